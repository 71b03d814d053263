//! What the interpreter calls in libc.so.6, and which glibc it is.

use super::layout::{self, Layout};
use crate::process;
use alloc::string::{String, ToString};
use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicUsize, Ordering};
use loader::addr::{Addr, VAddr};
use loader::elf::symbols::HashedName;
use loader::elf::version::{Version, Wanted};
use loader::linker::Linker;
use loader::lookup::{Class, Query, Scope};
use loader::object::{NamespaceId, Object, ObjectId};
use loader::reloc;
use loader::sys::{self, Place, Prot};

/// The soname of glibc's C library.
pub const SONAME: &[u8] = b"libc.so.6";

/// The release of a libc.so.6: the highest `GLIBC_x.y` that it defines.
pub fn release(libc: &Object) -> Option<(u32, u32)> {
    libc.versions.definitions.iter().filter_map(|v| parse_release(v.name)).max()
}

fn parse_release(name: &[u8]) -> Option<(u32, u32)> {
    let text = core::str::from_utf8(name.strip_prefix(b"GLIBC_")?).ok()?;
    let mut parts = text.split('.');
    let major = parts.next()?.parse().ok()?;
    let minor = parts.next()?.parse().ok()?;
    Some((major, minor))
}

/// The layout of the private structures of a mapped libc.so.6, chosen and checked by what it says of itself.
///
/// # Errors
/// One line that names what was found and what is supported.
pub fn choose_layout(libc: &Object) -> Result<&'static Layout, String> {
    let Some(release) = release(libc) else {
        return Err(String::from("libc.so.6 defines no GLIBC version: not a glibc that is supported"));
    };
    layout::choose(release, &|name| thread_db_words(libc, name)).map_err(|e| e.to_string())
}

/// The words of an object that libc.so.6 exports for libthread_db.
fn thread_db_words(libc: &Object, name: &str) -> Option<[u32; 3]> {
    let symbol = libc.symbols.find(HashedName::new(name.as_bytes()), |_, s| (s.st_shndx != 0).then_some(s))?;
    let view = libc.image.view();
    let bytes = view.bytes(VAddr(symbol.st_value), symbol.st_size.min(12))?;
    let mut words = [0; 3];
    for (word, chunk) in words.iter_mut().zip(bytes.chunks_exact(4)) {
        *word = u32::from_le_bytes(chunk.try_into().ok()?);
    }
    Some(words)
}

/// The functions of libc.so.6, and of whoever interposes malloc, that the interpreter uses once they are relocated.
#[derive(Clone, Copy, Default)]
pub struct Functions {
    /// `malloc` as the program sees it.
    pub malloc: Option<unsafe extern "C" fn(usize) -> *mut u8>,
    /// `calloc` as the program sees it.
    pub calloc: Option<unsafe extern "C" fn(usize, usize) -> *mut u8>,
    /// `free` as the program sees it.
    pub free: Option<unsafe extern "C" fn(*mut u8)>,
    /// libc's own.
    pub pthread_mutex_lock: Option<unsafe extern "C" fn(*mut u8) -> i32>,
    /// libc's own.
    pub pthread_mutex_unlock: Option<unsafe extern "C" fn(*mut u8) -> i32>,
    /// libc's own: where this thread's `errno` is.
    pub errno_location: Option<unsafe extern "C" fn() -> *mut i32>,
    /// `__libc_early_init`
    pub early_init: Option<unsafe extern "C" fn(bool)>,
    /// `__register_atfork`: what to call before a fork, and after it in the parent and in the child, on behalf of which object.
    pub register_atfork: Option<RegisterAtfork>,
}

/// The type of `__register_atfork`.
pub type RegisterAtfork =
    unsafe extern "C" fn(Option<extern "C" fn()>, Option<extern "C" fn()>, Option<extern "C" fn()>, *mut u8) -> i32;

/// Holds [`Functions`] from the hand-over on.
pub struct FunctionCell(UnsafeCell<Functions>);

// SAFETY: written once, while the interpreter is alone in the process.
unsafe impl Sync for FunctionCell {}

/// The functions in use; all `None` before the hand-over.
pub static FUNCTIONS: FunctionCell = FunctionCell(UnsafeCell::new(Functions {
    malloc: None,
    calloc: None,
    free: None,
    pthread_mutex_lock: None,
    pthread_mutex_unlock: None,
    errno_location: None,
    early_init: None,
    register_atfork: None,
}));

impl FunctionCell {
    /// The functions.
    pub fn get(&self) -> Functions {
        // SAFETY: nobody writes after the hand-over, and before it there is one thread.
        unsafe { *self.0.get() }
    }

    /// Takes over from the functions that were found.
    ///
    /// # Safety
    /// Only while the interpreter is alone in the process.
    pub unsafe fn set(&self, functions: Functions) {
        // SAFETY: the caller's contract.
        unsafe { *self.0.get() = functions };
    }
}

/// Finds the functions. `malloc` and its kin come from the global scope, so that an interposed allocator is used; the others are libc's.
///
/// # Safety
/// All objects must be relocated: a function may be an IFUNC, whose resolver is called.
pub unsafe fn find_functions(linker: &Linker, libc: Option<ObjectId>) -> Functions {
    let global = |name: &str| {
        let scope = Scope::new(&linker.objects, linker.namespace(NamespaceId(0)).global_scope.iter().copied());
        // SAFETY: the caller's contract.
        unsafe { address_in(linker, &scope, name, "GLIBC_2.2.5") }
    };
    let own = |name: &str, version: &str| {
        let scope = Scope::new(&linker.objects, libc);
        // SAFETY: the caller's contract.
        unsafe { address_in(linker, &scope, name, version) }
    };
    // SAFETY: the C functions of these names have these signatures; a null address is `None`.
    unsafe {
        use core::mem::transmute;
        Functions {
            malloc: transmute::<usize, Option<unsafe extern "C" fn(usize) -> *mut u8>>(global("malloc")),
            calloc: transmute::<usize, Option<unsafe extern "C" fn(usize, usize) -> *mut u8>>(global("calloc")),
            free: transmute::<usize, Option<unsafe extern "C" fn(*mut u8)>>(global("free")),
            pthread_mutex_lock: transmute::<usize, Option<unsafe extern "C" fn(*mut u8) -> i32>>(own(
                "pthread_mutex_lock",
                "GLIBC_2.2.5",
            )),
            pthread_mutex_unlock: transmute::<usize, Option<unsafe extern "C" fn(*mut u8) -> i32>>(own(
                "pthread_mutex_unlock",
                "GLIBC_2.2.5",
            )),
            errno_location: transmute::<usize, Option<unsafe extern "C" fn() -> *mut i32>>(own(
                "__errno_location",
                "GLIBC_2.2.5",
            )),
            early_init: transmute::<usize, Option<unsafe extern "C" fn(bool)>>(own(
                "__libc_early_init",
                "GLIBC_PRIVATE",
            )),
            register_atfork: transmute::<usize, Option<RegisterAtfork>>(own("__register_atfork", "GLIBC_2.3.2")),
        }
    }
}

/// `__libc_early_init` and `__register_atfork` of a C library other than the one that the program started with.
///
/// # Safety
/// The library must be relocated.
pub unsafe fn first_functions(
    linker: &Linker,
    libc: ObjectId,
) -> (Option<unsafe extern "C" fn(bool)>, Option<RegisterAtfork>) {
    let scope = Scope::new(&linker.objects, [libc]);
    // SAFETY: the caller's contract; the functions of these names have these signatures, and a null address is `None`.
    unsafe {
        let early_init = address_in(linker, &scope, "__libc_early_init", "GLIBC_PRIVATE");
        let register_atfork = address_in(linker, &scope, "__register_atfork", "GLIBC_2.3.2");
        (
            core::mem::transmute::<usize, Option<unsafe extern "C" fn(bool)>>(early_init),
            core::mem::transmute::<usize, Option<RegisterAtfork>>(register_atfork),
        )
    }
}

/// The environment as the C library of a namespace has it now; `None` if there is none.
pub fn environment(linker: &Linker, namespace: NamespaceId) -> Option<*mut *mut u8> {
    let scope = Scope::new(&linker.objects, linker.namespace(namespace).global_scope.iter().copied());
    // SAFETY: the object of this name is a variable, so no resolver is called.
    let variable = unsafe { address_in(linker, &scope, "__environ", "GLIBC_2.2.5") } as *const *mut *mut u8;
    // SAFETY: the C library's `__environ`, or the program's copy of it, has this type; libc.so.6 and its users are relocated.
    unsafe { variable.as_ref() }.copied()
}

/// The address of a symbol in a scope, 0 if it is not there.
///
/// # Safety
/// As for [`find_functions`].
unsafe fn address_in(linker: &Linker, scope: &Scope, name: &str, version: &str) -> usize {
    let hash = loader::elf::hash::sysv(version.as_bytes());
    let wanted = Wanted { version: Version { name: version.as_bytes(), hash }, exact: false };
    let query =
        Query { name: HashedName::new(name.as_bytes()), version: Some(wanted), class: Class::Plt, newest: false };
    let Some(found) = scope.find(&query, &linker.namespace(NamespaceId(0)).unique) else {
        return 0;
    };
    let address = reloc::value_of(&linker.objects[found.object], found.symbol) as usize;
    if reloc::is_ifunc(found.symbol) {
        // SAFETY: the symbol is a resolver of a relocated object.
        return unsafe { crate::services::call_resolver(Addr(address)) } as usize;
    }
    address
}

/// Room for what is allocated before the program's allocator is there: audit modules run then.
const EARLY_ROOM: usize = 1 << 20;
static EARLY: AtomicUsize = AtomicUsize::new(0);
static EARLY_USED: AtomicUsize = AtomicUsize::new(0);

/// Lets [`allocate`] take memory of the interpreter's own until the program's C library is there.
///
/// # Safety
/// Only while the interpreter is alone in the process.
pub unsafe fn use_early_allocator() {
    // SAFETY: the caller's contract.
    unsafe { FUNCTIONS.set(Functions { calloc: Some(early_calloc), ..FUNCTIONS.get() }) };
}

/// Memory that is never given back. There is room for the thread-local storage of a few dozen modules and threads.
unsafe extern "C" fn early_calloc(count: usize, size: usize) -> *mut u8 {
    const ALIGN: usize = 16;
    if EARLY.load(Ordering::Acquire) == 0 {
        // SAFETY: new memory at a place of the kernel's choice.
        let Ok(new) = (unsafe { sys::map_anonymous(Place::Anywhere, EARLY_ROOM, Prot::READ_WRITE, false) }) else {
            return core::ptr::null_mut();
        };
        if EARLY.compare_exchange(0, new.0, Ordering::AcqRel, Ordering::Relaxed).is_err() {
            // SAFETY: another thread was faster, and nobody knows this mapping.
            let _ = unsafe { sys::unmap(new..Addr(new.0 + EARLY_ROOM)) };
        }
    }
    let Some(wanted) = count.checked_mul(size).and_then(|bytes| bytes.checked_next_multiple_of(ALIGN)) else {
        return core::ptr::null_mut();
    };
    let at = EARLY_USED.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
        used.checked_add(wanted).filter(|end| *end <= EARLY_ROOM)
    });
    at.map_or(core::ptr::null_mut(), |at| (EARLY.load(Ordering::Relaxed) + at) as *mut u8)
}

fn is_early(block: *mut u8) -> bool {
    let start = EARLY.load(Ordering::Relaxed);
    start != 0 && (start..start + EARLY_ROOM).contains(&(block as usize))
}

/// Memory from the program's allocator, zeroed; null when there is none.
pub fn allocate(size: usize) -> *mut u8 {
    // SAFETY: calloc takes any sizes.
    FUNCTIONS.get().calloc.map_or(core::ptr::null_mut(), |calloc| unsafe { calloc(1, size) })
}

/// Sets the calling thread's `errno`, if there is a C library.
pub fn set_errno(number: i32) {
    if let Some(location) = FUNCTIONS.get().errno_location {
        // SAFETY: it gives the address of a variable of this thread.
        unsafe { *location() = number };
    }
}

/// Sets the calling thread's `errno` of the C library of a namespace, if it has one.
pub fn set_errno_in(namespace: NamespaceId, number: i32) {
    if namespace == NamespaceId(0) {
        return set_errno(number);
    }
    let location = {
        let gate = process::enter();
        let scope = Scope::new(&gate.linker.objects, gate.linker.namespace(namespace).global_scope.iter().copied());
        // SAFETY: the objects of a namespace whose code is running are relocated; the C function of this name has this
        // signature, and a null address is `None`.
        unsafe {
            let address = address_in(&gate.linker, &scope, "__errno_location", "GLIBC_2.2.5");
            core::mem::transmute::<usize, Option<unsafe extern "C" fn() -> *mut i32>>(address)
        }
    };
    if let Some(location) = location {
        // SAFETY: it gives the address of a variable of this thread.
        unsafe { *location() = number };
    }
}

/// Gives memory back to the program's allocator.
///
/// # Safety
/// `block` must have come from it.
pub unsafe fn give_back(block: *mut u8) {
    if let Some(free) = FUNCTIONS.get().free.filter(|_| !block.is_null() && !is_early(block)) {
        // SAFETY: the caller's contract.
        unsafe { free(block) };
    }
}
