//! The table behind `_rtld_global_ro._dl_dlfcn_hook`: the functions to which libc.so.6 (2.34 and later) turns over the whole dlopen family,
//! for programs that call it and for its own uses (NSS, gconv, libgcc_s).
//!
//! glibc made it for dlopen in static programs; the seam has not moved from 2.34 to 2.43. It spares the interpreter glibc's exceptions,
//! which leave functions by longjmp, and its scope and version structures.

use super::find_object;
use super::layout::DlfcnHook;
use crate::process;
use crate::services::namespace::{self, Target};
use crate::services::open::{self, mode, Request};
use crate::services::symbol::{self, Where};
use crate::services::{address, close, error};
use core::ffi::{c_char, c_int, c_void, CStr};
use core::ptr::null_mut;
use loader::addr::Addr;
use loader::error::LoadError;
use loader::object::ObjectId;

/// Mode bits of `__libc_dlopen_mode` that dlopen(3) does not have; libc's own business.
const INTERNAL_MODES: i32 = 0x8000_0000u32 as i32;

/// `Dl_info` (dlfcn.h).
#[repr(C)]
pub struct DlInfo {
    file_name: *const c_char,
    file_base: *const c_void,
    symbol_name: *const c_char,
    symbol_address: *const c_void,
}

/// The functions with their places in the table.
pub fn table(layout: &DlfcnHook) -> [(usize, usize); 13] {
    [
        (layout.dlopen, dlopen as *const () as usize),
        (layout.dlclose, dlclose as *const () as usize),
        (layout.dlsym, dlsym as *const () as usize),
        (layout.dlvsym, dlvsym as *const () as usize),
        (layout.dlerror, dlerror as *const () as usize),
        (layout.dladdr, dladdr as *const () as usize),
        (layout.dladdr1, dladdr1 as *const () as usize),
        (layout.dlinfo, dlinfo as *const () as usize),
        (layout.dlmopen, dlmopen as *const () as usize),
        (layout.libc_dlopen_mode, libc_dlopen_mode as *const () as usize),
        (layout.libc_dlsym, libc_dlsym as *const () as usize),
        (layout.libc_dlvsym, libc_dlvsym as *const () as usize),
        (layout.libc_dlclose, libc_dlclose as *const () as usize),
    ]
}

/// # Safety
/// `string` is null or a C string.
unsafe fn optional<'s>(string: *const c_char) -> Option<&'s CStr> {
    // SAFETY: the caller's contract.
    (!string.is_null()).then(|| unsafe { CStr::from_ptr(string) })
}

/// Turns a result into what C expects, and keeps the error for the `dlerror` of the caller's C library.
fn answer<T>(result: Result<T, LoadError>, failure: T, caller: usize) -> T {
    keep(result.inspect_err(error::tell), failure, caller)
}

/// The same, after `LD_DEBUG` has told of the error.
fn keep<T>(result: Result<T, LoadError>, failure: T, caller: usize) -> T {
    let namespace = find_object::namespace_of(Addr(caller));
    match result {
        Ok(value) => {
            error::clear(namespace);
            value
        }
        Err(e) => {
            error::set(namespace, &e);
            failure
        }
    }
}

fn handle_of(id: ObjectId) -> *mut c_void {
    process::enter().maps.address(id).cast()
}

fn object_of(handle: *mut c_void) -> Result<ObjectId, LoadError> {
    let process = process::enter();
    let known = process.maps.object(handle.cast());
    known.ok_or_else(|| LoadError::fault(b"", "invalid handle"))
}

fn open_handle(request: &Request<'_>) -> Result<*mut c_void, LoadError> {
    Ok(open::open(request)?.map_or(null_mut(), handle_of))
}

/// What `dlopen` takes for a mode; `dlmopen` does not look.
const KNOWN_MODES: c_int =
    mode::LAZY | mode::NOW | mode::NOLOAD | mode::DEEPBIND | mode::GLOBAL | mode::NODELETE | PROFILE;
/// `__RTLD_SPROF`, of a tool that comes with glibc.
const PROFILE: c_int = 0x4000_0000;

unsafe extern "C" fn dlopen(file: *const c_char, mode: c_int, caller: usize) -> *mut c_void {
    if mode & !KNOWN_MODES != 0 {
        return answer(Err(LoadError::fault(b"", "invalid mode parameter")), null_mut(), caller);
    }
    // SAFETY: dlopen(3) takes null or a C string.
    let name = unsafe { optional(file) };
    let request = Request { name, mode, caller: Addr(caller), target: Target::Caller };
    keep(open_handle(&request), null_mut(), caller)
}

/// Called by a C library for itself: whoever calls is the asker, and says in which namespace.
#[unsafe(naked)]
unsafe extern "C" fn libc_dlopen_mode(file: *const c_char, mode: c_int) -> *mut c_void {
    core::arch::naked_asm!("mov rdx, [rsp]", "jmp {}", sym open_for_libc)
}

unsafe extern "C" fn open_for_libc(file: *const c_char, mode: c_int, caller: usize) -> *mut c_void {
    // SAFETY: as for dlopen.
    let name = unsafe { optional(file) };
    let request = Request { name, mode: mode & !INTERNAL_MODES, caller: Addr(caller), target: Target::Caller };
    open_handle(&request).unwrap_or(null_mut())
}

unsafe extern "C" fn dlmopen(namespace: i64, file: *const c_char, mode: c_int, caller: usize) -> *mut c_void {
    // SAFETY: as for dlopen.
    let name = unsafe { optional(file) };
    let target = Target::from_argument(namespace);
    let outcome = if namespace != 0 && name.is_none() {
        Err(namespace::refuse("invalid namespace"))
    } else if namespace != 0 && mode & mode::GLOBAL != 0 {
        Err(namespace::refuse("invalid mode"))
    } else {
        open_handle(&Request { name, mode, caller: Addr(caller), target })
    };
    keep(outcome, null_mut(), caller)
}

/// These do not say who calls: the return address does.
#[unsafe(naked)]
unsafe extern "C" fn dlclose(handle: *mut c_void) -> c_int {
    core::arch::naked_asm!("mov rsi, [rsp]", "jmp {}", sym close_for)
}

unsafe extern "C" fn close_for(handle: *mut c_void, caller: usize) -> c_int {
    let close = || close::close(object_of(handle).map_err(|_| LoadError::fault(b"", "shared object not open"))?);
    answer(close().map(|()| 0), -1, caller)
}

unsafe extern "C" fn libc_dlclose(handle: *mut c_void) -> c_int {
    match object_of(handle).and_then(close::close) {
        Ok(()) => 0,
        Err(_) => 1,
    }
}

fn place(handle: *mut c_void) -> Result<Where, LoadError> {
    match handle as isize {
        0 => Ok(Where::Default),
        -1 => Ok(Where::Next),
        _ => object_of(handle).map(Where::Object),
    }
}

fn look_up(
    handle: *mut c_void,
    name: *const c_char,
    version: *const c_char,
    caller: usize,
) -> Result<*mut c_void, LoadError> {
    // SAFETY: the dlsym family takes C strings; a null name is treated as an empty one.
    let (name, version) = unsafe { (optional(name), optional(version)) };
    let name = name.map_or(&b""[..], CStr::to_bytes);
    let address = symbol::find(place(handle)?, name, version.map(CStr::to_bytes), Addr(caller))?;
    Ok(address as *mut c_void)
}

unsafe extern "C" fn dlsym(handle: *mut c_void, name: *const c_char, caller: usize) -> *mut c_void {
    answer(look_up(handle, name, core::ptr::null(), caller), null_mut(), caller)
}

unsafe extern "C" fn dlvsym(
    handle: *mut c_void,
    name: *const c_char,
    version: *const c_char,
    caller: usize,
) -> *mut c_void {
    answer(look_up(handle, name, version, caller), null_mut(), caller)
}

unsafe extern "C" fn libc_dlsym(handle: *mut c_void, name: *const c_char) -> *mut c_void {
    look_up(handle, name, core::ptr::null(), 0).unwrap_or(null_mut())
}

unsafe extern "C" fn libc_dlvsym(handle: *mut c_void, name: *const c_char, version: *const c_char) -> *mut c_void {
    look_up(handle, name, version, 0).unwrap_or(null_mut())
}

#[unsafe(naked)]
unsafe extern "C" fn dlerror() -> *const c_char {
    core::arch::naked_asm!("mov rdi, [rsp]", "jmp {}", sym error_of)
}

extern "C" fn error_of(caller: usize) -> *const c_char {
    error::take(find_object::namespace_of(Addr(caller))).cast()
}

unsafe extern "C" fn dladdr(at: *const c_void, info: *mut DlInfo) -> c_int {
    // SAFETY: the caller passes a valid `Dl_info`.
    unsafe { dladdr1(at, info, null_mut(), 0) }
}

unsafe extern "C" fn dladdr1(at: *const c_void, info: *mut DlInfo, extra: *mut *mut c_void, flags: c_int) -> c_int {
    const SYMBOL_ENTRY: c_int = 1;
    const LINK_MAP: c_int = 2;
    let process = process::enter();
    let Some(located) = address::locate(&process, Addr(at as usize)) else {
        return 0;
    };
    let object = &process.linker.objects[located.object];
    let (symbol_name, symbol_address) = match located.symbol {
        Some(symbol) => {
            let name = object.symbols.name(symbol).as_ptr();
            (name.cast(), loader::reloc::value_of(object, symbol) as *const c_void)
        }
        None => (core::ptr::null(), core::ptr::null()),
    };
    let file_name = if object.name.is_empty() { process.program_name() } else { object.name.as_ptr().cast() };
    // SAFETY: the caller passes a valid `Dl_info`, and a place for the extra word if the flags ask for one.
    unsafe {
        *info = DlInfo { file_name, file_base: object.image.range.start.as_ptr(), symbol_name, symbol_address };
        match flags {
            SYMBOL_ENTRY if !extra.is_null() => {
                *extra = located.symbol.map_or(null_mut(), |s| core::ptr::from_ref(s).cast_mut().cast());
            }
            LINK_MAP if !extra.is_null() => *extra = process.maps.address(located.object).cast(),
            _ => {}
        }
    }
    1
}

/// Requests of `dlinfo(3)`.
mod request {
    pub const LMID: i32 = 1;
    pub const LINKMAP: i32 = 2;
    pub const SERINFO: i32 = 4;
    pub const SERINFOSIZE: i32 = 5;
    pub const ORIGIN: i32 = 6;
    pub const TLS_MODID: i32 = 9;
    pub const TLS_DATA: i32 = 10;
    pub const PHDR: i32 = 11;
}

#[unsafe(naked)]
unsafe extern "C" fn dlinfo(handle: *mut c_void, what: c_int, argument: *mut c_void) -> c_int {
    core::arch::naked_asm!("mov rcx, [rsp]", "jmp {}", sym info_for)
}

unsafe extern "C" fn info_for(handle: *mut c_void, what: c_int, argument: *mut c_void, caller: usize) -> c_int {
    // SAFETY: the caller passes an argument that fits the request.
    answer(object_of(handle).and_then(|id| unsafe { info(id, what, argument) }), -1, caller)
}

/// `Dl_serinfo` (dlfcn.h): followed by `count` elements of [`SearchPath`], then their strings.
#[repr(C)]
struct SearchInfo {
    size: usize,
    count: u32,
}

/// `Dl_serpath`
#[repr(C)]
struct SearchPath {
    name: *mut c_char,
    flags: u32,
}

/// Where libraries are searched for an object: how much room the answer takes, or the answer.
///
/// # Safety
/// `argument` must be a `Dl_serinfo`; for the answer, one with as much room as was said.
unsafe fn search_info(id: ObjectId, size_only: bool, argument: *mut c_void) {
    let mut gate = process::enter();
    let process = &mut *gate;
    let list = process.finder.search_list(id, &process.linker.objects);
    // The slash at the end of a path makes room for the NUL; the working directory is a dot, the root keeps its slash.
    let room = |path: &[u8]| path.len().max(2);
    let header = size_of::<SearchInfo>() + list.len() * size_of::<SearchPath>();
    let info: *mut SearchInfo = argument.cast();
    if size_only {
        let size = header + list.iter().map(|path| room(path)).sum::<usize>();
        // SAFETY: the caller's contract.
        unsafe { *info = SearchInfo { size, count: list.len() as u32 } };
        return;
    }
    // SAFETY: the caller's contract: the room is what was said above, for the count that is in the structure.
    unsafe {
        let count = (*info).count as usize;
        let paths: *mut SearchPath = info.add(1).cast();
        let mut text: *mut u8 = paths.add(count).cast();
        for (index, path) in list.iter().take(count).enumerate() {
            // glibc has no flags for where a path comes from.
            *paths.add(index) = SearchPath { name: text.cast(), flags: 0 };
            let shown = match path.as_slice() {
                b"" => b".",
                b"/" => b"/",
                longer => &longer[..longer.len() - 1],
            };
            core::ptr::copy_nonoverlapping(shown.as_ptr(), text, shown.len());
            *text.add(shown.len()) = 0;
            text = text.add(room(path));
        }
    }
}

/// # Safety
/// `argument` must fit the request.
unsafe fn info(id: ObjectId, what: c_int, argument: *mut c_void) -> Result<c_int, LoadError> {
    if matches!(what, request::SERINFO | request::SERINFOSIZE) {
        // SAFETY: the caller's contract.
        unsafe { search_info(id, what == request::SERINFOSIZE, argument) };
        return Ok(0);
    }
    let process = process::enter();
    let object = &process.linker.objects[id];
    // SAFETY: the caller's contract.
    unsafe {
        match what {
            request::LMID => *argument.cast::<i64>() = i64::from(object.namespace.0),
            request::LINKMAP => *argument.cast::<*mut u8>() = process.maps.address(id),
            request::TLS_MODID => *argument.cast::<usize>() = object.tls_state.get().module(),
            request::TLS_DATA => {
                *argument.cast::<*mut u8>() = super::tls::existing_block(object.tls_state.get().module());
            }
            request::ORIGIN => {
                let origin = object.origin.get().unwrap_or_default();
                core::ptr::copy_nonoverlapping(origin.as_ptr(), argument.cast(), origin.len());
                *argument.cast::<u8>().add(origin.len()) = 0;
            }
            request::PHDR => {
                *argument.cast::<usize>() = object.readable_headers().0;
                return Ok(object.headers.len() as c_int);
            }
            _ => return Err(LoadError::fault(b"", "unsupported dlinfo request")),
        }
    }
    Ok(0)
}
