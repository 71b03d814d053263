//! The functions that glibc's ld.so exports to libc.so.6, but for those of TLS and the debugger rendezvous.

use super::globals::{Structure, RTLD_GLOBAL_RO};
use super::libc;
use super::tunables::Value;
use crate::process;
use core::cell::UnsafeCell;
use core::ffi::{c_char, CStr};
use loader::addr::Addr;
use loader::elf::symbols::{HashedName, Sym, Symbols};
use loader::error::Lossy;
use loader::sys;

/// glibc's `tunable_val_t`: a union of number and pointer.
type TunableCallback = unsafe extern "C" fn(*const u64);

/// `__tunable_get_val`: stores a tunable's value in the width of its type, and calls back if the user has set it. libc asks by number.
///
/// # Safety
/// `value` must be valid for writes of the tunable's type.
#[cfg_attr(feature = "interpreter", export_name = "__tunable_get_val")]
pub unsafe extern "C" fn tunable_get_val(id: u32, value: *mut u8, callback: Option<TunableCallback>) {
    let (found, word, is_set) = {
        let process = process::enter();
        let tunables = &process.tunables;
        let id = id as usize;
        (tunables.value(id), tunables.callback_word(id).unwrap_or(0), tunables.is_set(id))
    };
    // SAFETY: the caller's contract. For a number that the table does not have, four bytes are the least that any type has.
    unsafe {
        match found {
            Some(Value::Int32(number)) => value.cast::<i32>().write_unaligned(number),
            Some(Value::Uint64(number)) => value.cast::<u64>().write_unaligned(number),
            Some(Value::Text(text)) => {
                value.cast::<*const u8>().write_unaligned(text.map_or(core::ptr::null(), <[u8]>::as_ptr));
            }
            None => value.cast::<u32>().write_unaligned(0),
        }
        if let Some(callback) = callback.filter(|_| is_set) {
            callback(&word);
        }
    }
}

/// `__tunable_is_initialized`: whether the user has set a tunable.
#[cfg_attr(feature = "interpreter", export_name = "__tunable_is_initialized")]
pub extern "C" fn tunable_is_initialized(id: u32) -> bool {
    process::enter().tunables.is_set(id as usize)
}

/// `_dl_find_dso_for_object`: the link map of the object that an address lies in.
#[cfg_attr(feature = "interpreter", export_name = "_dl_find_dso_for_object")]
pub extern "C" fn dl_find_dso_for_object(address: usize) -> *mut u8 {
    let process = process::enter();
    let found = process.linker.find_by_address(Addr(address));
    found.map_or(core::ptr::null_mut(), |id| process.maps.address(id))
}

/// `_dl_audit_preinit`: libc calls it right before the program begins.
#[cfg_attr(feature = "interpreter", export_name = "_dl_audit_preinit")]
pub extern "C" fn dl_audit_preinit(_map: *mut u8) {
    crate::audit::preinit();
}

/// `_dl_audit_symbind_alt`: libc calls it in its own `dlsym`, which the dlfcn hook takes the place of.
#[cfg_attr(feature = "interpreter", export_name = "_dl_audit_symbind_alt")]
pub extern "C" fn dl_audit_symbind_alt(_map: *mut u8, _symbol: *const u8, _value: *mut *mut u8, _result: *mut u8) {}

/// `_dl_mcount`: a call that libc makes of a function that the program has given it, while a library is profiled.
#[cfg_attr(feature = "interpreter", export_name = "_dl_mcount")]
pub extern "C" fn dl_mcount(from: usize, to: usize) {
    crate::profile::call(from as u64, to as u64);
}

/// `__rtld_version_placeholder`: makes the version GLIBC_2.34 exist.
#[cfg_attr(feature = "interpreter", export_name = "__rtld_version_placeholder")]
pub extern "C" fn rtld_version_placeholder() {}

/// `_dl_x86_get_cpu_features`
#[cfg_attr(feature = "interpreter", export_name = "_dl_x86_get_cpu_features")]
pub extern "C" fn dl_x86_get_cpu_features(_max: u32) -> *const u8 {
    RTLD_GLOBAL_RO.structure().field(process::layout().rtld_global_ro.dl_x86_cpu_features).as_ptr()
}

/// `_dl_fatal_printf`: ends the program with a message. The arguments of the format are not formatted: C-variadic functions can't be written
/// in stable Rust, and the texts that libc passes say enough without them.
///
/// # Safety
/// `format` must be a C string.
#[cfg_attr(feature = "interpreter", export_name = "_dl_fatal_printf")]
pub unsafe extern "C" fn dl_fatal_printf(format: *const c_char) -> ! {
    // SAFETY: the caller's contract.
    sys::write_all(sys::stderr(), unsafe { CStr::from_ptr(format) }.to_bytes());
    sys::exit(127)
}

/// `_dl_debug_printf`: by it libc tells of the program's constructors and of its start, where `_dl_debug_mask` asks for that. It takes any
/// number of arguments, of which the first five can be shown.
///
/// # Safety
/// As for printf.
#[unsafe(naked)]
pub unsafe extern "C" fn dl_debug_printf() {
    core::arch::naked_asm!(
        "push r9",
        "push r8",
        "push rcx",
        "push rdx",
        "push rsi",
        "mov rsi, rsp",
        "call {print}",
        "add rsp, 40",
        "ret",
        print = sym print_debug,
    )
}

/// Logs a message of libc's: text with `%s`, after which no other conversion comes in glibc 2.36.
///
/// # Safety
/// `format` and what its conversions take must be C strings.
unsafe extern "C" fn print_debug(format: *const c_char, arguments: &[*const c_char; 5]) {
    // SAFETY: the caller's contract.
    let format = unsafe { CStr::from_ptr(format) }.to_bytes();
    let mut message = alloc::vec::Vec::new();
    let mut arguments = arguments.iter();
    let mut rest = format.strip_suffix(b"\n").unwrap_or(format);
    while let Some(at) = rest.windows(2).position(|pair| pair == b"%s") {
        message.extend_from_slice(&rest[..at]);
        rest = &rest[at + 2..];
        if let Some(&text) = arguments.next().filter(|text| !text.is_null()) {
            // SAFETY: the caller's contract.
            message.extend_from_slice(unsafe { CStr::from_ptr(text) }.to_bytes());
        }
    }
    message.extend_from_slice(rest);
    log::debug!(target: "calls", "{}", Lossy(&message));
}

/// `_dl_error_free`: frees a message of the loader's; none reaches libc, since the dlfcn hook keeps them.
pub extern "C" fn dl_error_free(_message: *mut u8) {}

/// `_dl_libc_freeres`: what a memory checker asks for at exit; the loader's memory is not libc's.
pub extern "C" fn dl_libc_freeres() {}

/// Stands in for functions that libc does not call as long as the dlfcn hook is set.
pub extern "C" fn behind_the_hook() -> ! {
    crate::fatal(format_args!("inconsistency: libc.so.6 has gone around the dlfcn hook"))
}

/// `_dl_rtld_di_serinfo`: dlinfo(3) comes through the dlfcn hook.
#[cfg_attr(feature = "interpreter", export_name = "_dl_rtld_di_serinfo")]
pub extern "C" fn dl_rtld_di_serinfo() -> ! {
    behind_the_hook()
}

/// `_dl_exception_create`: an error value in one block of the program's memory.
///
/// # Safety
/// `exception` must be valid for writes, the others null or C strings.
#[cfg_attr(feature = "interpreter", export_name = "_dl_exception_create")]
pub unsafe extern "C" fn dl_exception_create(exception: *mut u8, object: *const c_char, message: *const c_char) {
    let fields = &process::layout().dl_exception;
    // SAFETY: the caller's contract.
    let (out, object, message) = unsafe {
        let bytes = |s: *const c_char| if s.is_null() { c"" } else { CStr::from_ptr(s) }.to_bytes_with_nul();
        (Structure::at(exception, fields.size), bytes(object), bytes(message))
    };
    let block = libc::allocate(object.len() + message.len());
    if block.is_null() {
        out.put_addr(fields.errstring, Addr(c"out of memory".as_ptr() as usize));
        out.put_addr(fields.objname, Addr(c"".as_ptr() as usize));
        out.put_u64(fields.message_buffer, 0);
        return;
    }
    // SAFETY: the block has room for both strings.
    unsafe {
        core::ptr::copy_nonoverlapping(message.as_ptr(), block, message.len());
        core::ptr::copy_nonoverlapping(object.as_ptr(), block.add(message.len()), object.len());
    }
    out.put_addr(fields.errstring, Addr(block as usize));
    out.put_addr(fields.objname, Addr(block as usize + message.len()));
    out.put_addr(fields.message_buffer, Addr(block as usize));
}

/// `__nptl_change_stack_perm`: makes a thread's stack executable, for programs that want executable stacks; 0 or an error number.
///
/// # Safety
/// `pthread` must be a thread control block.
#[cfg_attr(feature = "interpreter", export_name = "__nptl_change_stack_perm")]
pub unsafe extern "C" fn nptl_change_stack_perm(pthread: *mut u8) -> i32 {
    let prot = sys::Prot { read: true, write: true, exec: true };
    // SAFETY: the caller's contract.
    match unsafe { protect_stack(Addr(pthread as usize), prot) } {
        Ok(()) => 0,
        Err(errno) => errno.raw_os_error(),
    }
}

/// Changes the protection of a thread's stack, without its guard.
///
/// # Safety
/// `pthread` must be a thread control block whose stack libc has made; the protection must let the thread read and write.
pub unsafe fn protect_stack(pthread: Addr, prot: sys::Prot) -> Result<(), rustix::io::Errno> {
    let layout = process::layout();
    // SAFETY: the caller's contract.
    let pthread = unsafe { Structure::at(pthread.as_mut_ptr(), layout.pthread.size) };
    let fields = &layout.pthread;
    let start = pthread.get_u64(fields.stackblock) + pthread.get_u64(fields.guardsize);
    let end = pthread.get_u64(fields.stackblock) + pthread.get_u64(fields.stackblock_size);
    // SAFETY: the stack stays readable and writable.
    unsafe { sys::protect(Addr(start as usize)..Addr(end as usize), prot) }
}

struct Vdso(UnsafeCell<Option<(Symbols<'static>, usize)>>);
// SAFETY: written before any code of the program runs.
unsafe impl Sync for Vdso {}

static VDSO: Vdso = Vdso(UnsafeCell::new(None));

/// Says where the vDSO's symbols and its link map are.
///
/// # Safety
/// Only while the interpreter is alone in the process.
pub unsafe fn set_vdso(symbols: Symbols<'static>, map: Addr) {
    // SAFETY: the caller's contract.
    unsafe { *VDSO.0.get() = Some((symbols, map.0)) };
}

/// A function of the vDSO.
pub fn vdso_symbol(name: &[u8]) -> Option<&'static Sym> {
    // SAFETY: written once, before the first call.
    let (symbols, _) = unsafe { &*VDSO.0.get() }.as_ref()?;
    symbols.find(HashedName::new(name), |_, symbol| (symbol.st_shndx != 0).then_some(symbol))
}

/// `_dl_lookup_symbol_x`: libc 2.36 calls it while it is relocated, to find time functions in the vDSO; all else comes through the dlfcn
/// hook.
///
/// # Safety
/// As glibc calls it: a C string, and a place for the symbol.
pub unsafe extern "C" fn dl_lookup_symbol_x(name: *const c_char, undef_map: usize, symbol: *mut *const Sym) -> usize {
    // SAFETY: written once, before the first call.
    let vdso_map = unsafe { &*VDSO.0.get() }.as_ref().map(|(_, map)| *map);
    if vdso_map != Some(undef_map) {
        behind_the_hook();
    }
    // SAFETY: the caller's contract.
    let found = vdso_symbol(unsafe { CStr::from_ptr(name) }.to_bytes());
    // SAFETY: the caller's contract.
    unsafe { *symbol = found.map_or(core::ptr::null(), core::ptr::from_ref) };
    if found.is_some() {
        undef_map
    } else {
        0
    }
}
