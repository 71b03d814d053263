//! The interface of audit modules (rtld-audit(7), `<link.h>`, `<bits/link.h>`): what they define, and what they are called with.

use super::globals::{Structure, RTLD_GLOBAL_RO};
use super::layout::Layout;
use alloc::boxed::Box;
use alloc::vec;
use core::ffi::{c_char, c_long, c_uint, CStr};
use core::mem::transmute;
use loader::addr::Addr;
use loader::elf::symbols::Sym;

/// The interface's version (`LAV_CURRENT`) of a glibc release.
pub const fn version(release: (u32, u32)) -> u32 {
    if release.0 == 2 && release.1 < 35 {
        1
    } else {
        2
    }
}

/// Signals of `la_activity`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Activity {
    /// `LA_ACT_CONSISTENT`
    Consistent = 0,
    /// `LA_ACT_ADD`
    Add = 1,
    /// `LA_ACT_DELETE`
    Delete = 2,
}

/// Where a name comes from (`la_objsearch`).
pub mod search {
    /// `LA_SER_ORIG`
    pub const ORIGINAL: u32 = 0x01;
    /// `LA_SER_LIBPATH`
    pub const LIBRARY_PATH: u32 = 0x02;
    /// `LA_SER_RUNPATH`: of DT_RPATH too.
    pub const RUNPATH: u32 = 0x04;
    /// `LA_SER_CONFIG`
    pub const CACHE: u32 = 0x08;
    /// `LA_SER_DEFAULT`
    pub const DEFAULT: u32 = 0x40;
}

/// What `la_objopen` answers.
pub mod interest {
    /// `LA_FLG_BINDTO`
    pub const TO: u32 = 1;
    /// `LA_FLG_BINDFROM`
    pub const FROM: u32 = 2;
}

/// Flags of `la_symbind64` and the PLT functions.
pub mod binding {
    /// `LA_SYMB_NOPLTENTER`
    pub const NO_ENTER: u32 = 0x01;
    /// `LA_SYMB_NOPLTEXIT`
    pub const NO_EXIT: u32 = 0x02;
    /// `LA_SYMB_DLSYM`
    pub const DLSYM: u32 = 0x08;
    /// `LA_SYMB_ALTVALUE`
    pub const ALTERED: u32 = 0x10;
}

/// The registers of a call that can carry arguments (`La_x86_64_regs`).
#[repr(C, align(16))]
pub struct Registers {
    /// rdx, r8, r9, rcx, rsi, rdi, rbp, and the stack pointer, which points to the return address.
    pub general: [u64; 8],
    /// xmm0 to xmm7.
    pub xmm: [u128; 8],
    /// The same registers in full width.
    pub vector: [[u128; 4]; 8],
    unused: [u128; 4],
}

/// What a call returns (`La_x86_64_retval`).
#[repr(C, align(16))]
pub struct ReturnValue {
    /// rax and rdx.
    pub general: [u64; 2],
    /// xmm0 and xmm1.
    pub xmm: [u128; 2],
    /// st0 and st1, of which ten bytes count.
    pub x87: [u128; 2],
    /// xmm0 and xmm1 in full width.
    pub vector: [[u128; 4]; 2],
    unused: [u128; 2],
}

/// A cookie: a module's own word for an object.
pub type Cookie = *mut usize;

type ActivityFunction = unsafe extern "C" fn(Cookie, c_uint);
type SearchFunction = unsafe extern "C" fn(*const c_char, Cookie, c_uint) -> *mut c_char;
type OpenFunction = unsafe extern "C" fn(*mut u8, c_long, Cookie) -> c_uint;
type PreinitFunction = unsafe extern "C" fn(Cookie);
type BindFunction = unsafe extern "C" fn(*mut Sym, c_uint, Cookie, Cookie, *mut c_uint, *const c_char) -> u64;
type EnterFunction = unsafe extern "C" fn(
    *mut Sym,
    c_uint,
    Cookie,
    Cookie,
    *mut Registers,
    *mut c_uint,
    *const c_char,
    *mut c_long,
) -> u64;
type ExitFunction =
    unsafe extern "C" fn(*mut Sym, c_uint, Cookie, Cookie, *const Registers, *mut ReturnValue, *const c_char) -> c_uint;
type CloseFunction = unsafe extern "C" fn(Cookie) -> c_uint;
/// `la_version`
pub type VersionFunction = unsafe extern "C" fn(c_uint) -> c_uint;

/// The name of the function that makes an object an audit module.
pub const VERSION_FUNCTION: &CStr = c"la_version";

/// The names of the functions of an [`Interface`], in their order.
const FUNCTIONS: [&CStr; 8] = [
    c"la_activity",
    c"la_objsearch",
    c"la_objopen",
    c"la_preinit",
    c"la_symbind64",
    c"la_x86_64_gnu_pltenter",
    c"la_x86_64_gnu_pltexit",
    c"la_objclose",
];

/// The functions of an audit module.
#[derive(Clone, Copy, Default)]
pub struct Interface {
    /// `la_activity`
    pub activity: Option<ActivityFunction>,
    /// `la_objsearch`
    pub search: Option<SearchFunction>,
    /// `la_objopen`
    pub open: Option<OpenFunction>,
    /// `la_preinit`
    pub preinit: Option<PreinitFunction>,
    /// `la_symbind64`
    pub bind: Option<BindFunction>,
    /// `la_x86_64_gnu_pltenter`
    pub enter: Option<EnterFunction>,
    /// `la_x86_64_gnu_pltexit`
    pub exit: Option<ExitFunction>,
    /// `la_objclose`
    pub close: Option<CloseFunction>,
}

impl Interface {
    /// The functions of a module, of which `find` tells the addresses; 0 for one that it does not have.
    ///
    /// # Safety
    /// The addresses must be those of functions that are what their names say.
    pub unsafe fn find(mut find: impl FnMut(&'static CStr) -> usize) -> Interface {
        let [activity, search, open, preinit, bind, enter, exit, close] = FUNCTIONS.map(&mut find);
        // SAFETY: the caller's contract; a null address is `None`.
        unsafe {
            Interface {
                activity: transmute::<usize, Option<ActivityFunction>>(activity),
                search: transmute::<usize, Option<SearchFunction>>(search),
                open: transmute::<usize, Option<OpenFunction>>(open),
                preinit: transmute::<usize, Option<PreinitFunction>>(preinit),
                bind: transmute::<usize, Option<BindFunction>>(bind),
                enter: transmute::<usize, Option<EnterFunction>>(enter),
                exit: transmute::<usize, Option<ExitFunction>>(exit),
                close: transmute::<usize, Option<CloseFunction>>(close),
            }
        }
    }
}

/// Writes the list of modules where libc and debuggers look for it: `_dl_audit` and `_dl_naudit` of `_rtld_global_ro`.
pub fn publish<'i>(layout: &Layout, interfaces: impl DoubleEndedIterator<Item = &'i Interface>) {
    let fields = &layout.audit_ifaces;
    let (mut next, mut count) = (Addr(0), 0);
    for interface in interfaces.rev() {
        let memory = Box::leak(vec![0u8; fields.size].into_boxed_slice());
        // SAFETY: the memory was just made, zeroed, and is never freed.
        let structure = unsafe { Structure::at(memory.as_mut_ptr(), fields.size) };
        let put = |offset, function: Option<usize>| structure.put_u64(offset, function.unwrap_or(0) as u64);
        put(fields.activity, interface.activity.map(|f| f as usize));
        put(fields.objsearch, interface.search.map(|f| f as usize));
        put(fields.objopen, interface.open.map(|f| f as usize));
        put(fields.preinit, interface.preinit.map(|f| f as usize));
        put(fields.symbind64, interface.bind.map(|f| f as usize));
        put(fields.x86_64_gnu_pltenter, interface.enter.map(|f| f as usize));
        put(fields.x86_64_gnu_pltexit, interface.exit.map(|f| f as usize));
        put(fields.objclose, interface.close.map(|f| f as usize));
        structure.put_addr(fields.next, next);
        next = structure.addr();
        count += 1;
    }
    let ro = RTLD_GLOBAL_RO.structure();
    ro.put_addr(layout.rtld_global_ro.dl_audit, next);
    ro.put_u32(layout.rtld_global_ro.dl_naudit, count);
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::mem::offset_of;

    #[test]
    fn structures_are_those_of_the_header() {
        assert_eq!((size_of::<Registers>(), offset_of!(Registers, xmm), offset_of!(Registers, vector)), (768, 64, 192));
        assert_eq!((size_of::<ReturnValue>(), offset_of!(ReturnValue, x87)), (240, 48));
        assert_eq!(offset_of!(ReturnValue, vector), 80);
    }

    #[test]
    fn versions_follow_the_release() {
        assert_eq!((version((2, 34)), version((2, 35)), version((2, 41))), (1, 2, 2));
    }
}
