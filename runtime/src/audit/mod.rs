//! Audit modules (rtld-audit(7)): who they are, what they know of each object, and how they are told of what happens.
//!
//! Each module lives in a namespace of its own with a C library of its own, and is told of the objects of all namespaces that are not a
//! module's. The functions that tell are called without the gate, but for `search` and the ones of bindings that are made while an
//! object is relocated: in those a module can't open or close objects ([`allow_changes`]).

pub mod bindings;
pub mod modules;
pub mod plt;
mod report;
pub mod trampoline;

pub use report::{activity, added, close, close_all, open, opened, preinit};

use crate::glibc::audit::{interest, Cookie, Interface};
use crate::glibc::tls;
use crate::process::Process;
use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU16, AtomicU32, AtomicUsize, Ordering};
use loader::error::LoadError;
use loader::linker::Linker;
use loader::object::{NamespaceId, ObjectId};
use plt::Calls;

/// How many modules there can be: each needs a namespace beside the program's.
pub const LIMIT: usize = 15;

static INTERFACES: [AtomicPtr<Interface>; LIMIT] = [const { AtomicPtr::new(core::ptr::null_mut()) }; LIMIT];
static COUNT: AtomicUsize = AtomicUsize::new(0);
/// By number: the namespaces of modules.
static OWN_NAMESPACES: AtomicU16 = AtomicU16::new(0);
/// The namespace of a module that is being loaded; 0, the program's, for none.
static CANDIDATE: AtomicU32 = AtomicU32::new(0);
/// The thread pointer of the thread that is in a callback with the gate held.
static INSIDE: AtomicUsize = AtomicUsize::new(0);

/// Whether there are audit modules. All that this module does is behind that question.
pub fn is_active() -> bool {
    COUNT.load(Ordering::Relaxed) != 0
}

/// The modules in their order, with their numbers.
fn interfaces() -> impl Iterator<Item = (usize, &'static Interface)> {
    let count = COUNT.load(Ordering::Acquire);
    // SAFETY: an interface lives as long as the process, and is complete before it is counted.
    INTERFACES[..count]
        .iter()
        .enumerate()
        .filter_map(|(i, p)| Some((i, unsafe { p.load(Ordering::Relaxed).as_ref() }?)))
}

/// Adds an accepted module whose namespace is `namespace`.
fn add(interface: Interface, namespace: NamespaceId) {
    let count = COUNT.load(Ordering::Relaxed);
    if let Some(slot) = INTERFACES.get(count) {
        slot.store(Box::into_raw(Box::new(interface)), Ordering::Relaxed);
        OWN_NAMESPACES.fetch_or(1u16.checked_shl(namespace.0.into()).unwrap_or(0), Ordering::Relaxed);
        COUNT.store(count + 1, Ordering::Release);
    }
}

/// Whether a namespace is a module's own.
pub fn is_own(namespace: NamespaceId) -> bool {
    OWN_NAMESPACES.load(Ordering::Relaxed) & 1u16.checked_shl(namespace.0.into()).unwrap_or(0) != 0
}

/// Checks that the calling thread is not in a callback during which nothing can be opened or closed.
///
/// # Errors
/// It is.
pub fn allow_changes(object: &[u8]) -> Result<(), LoadError> {
    if is_active() && INSIDE.load(Ordering::Relaxed) == tls::thread_pointer().0 {
        let what = "an audit module can't open or close objects in la_objsearch or la_symbind64";
        return Err(LoadError::fault(object, what));
    }
    Ok(())
}

/// Marks the calling thread as being in a callback with the gate held, as long as the value lives.
struct Inside(usize);

impl Inside {
    fn begin() -> Inside {
        Inside(INSIDE.swap(tls::thread_pointer().0, Ordering::Relaxed))
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        INSIDE.store(self.0, Ordering::Relaxed);
    }
}

/// What one module knows of one object.
struct State {
    cookie: UnsafeCell<usize>,
    /// What `la_objopen` has answered.
    interest: AtomicU32,
}

/// What the modules know of an object.
pub struct Audited {
    /// The object.
    id: ObjectId,
    namespace: NamespaceId,
    states: [State; LIMIT],
    /// Whether any module wants to know of its bindings.
    is_interesting: AtomicBool,
    /// Its calls through the PLT, once they are watched.
    calls: Calls,
    /// Whether it was said that it goes.
    is_closed: AtomicBool,
    /// Whether it has been opened by its own name.
    is_root: AtomicBool,
}

// SAFETY: cookies belong to the modules, which get their addresses; all else is atomic.
unsafe impl Sync for Audited {}

impl Audited {
    /// An object whose link map is at `map`, which is what cookies are at first.
    fn new(id: ObjectId, namespace: NamespaceId, map: *mut u8) -> Audited {
        let state = || State { cookie: UnsafeCell::new(map as usize), interest: AtomicU32::new(0) };
        Audited {
            id,
            namespace,
            states: core::array::from_fn(|_| state()),
            is_interesting: AtomicBool::new(false),
            calls: Calls::default(),
            is_closed: AtomicBool::new(false),
            is_root: AtomicBool::new(false),
        }
    }

    fn cookie(&self, module: usize) -> Cookie {
        self.states[module].cookie.get()
    }

    fn set_interest(&self, module: usize, interest: u32) {
        self.states[module].interest.store(interest, Ordering::Relaxed);
        self.is_interesting.fetch_or(interest != 0, Ordering::Relaxed);
    }

    fn wants_from(&self, module: usize) -> bool {
        self.states[module].interest.load(Ordering::Relaxed) & interest::FROM != 0
    }

    fn wants_to(&self, module: usize) -> bool {
        self.states[module].interest.load(Ordering::Relaxed) & interest::TO != 0
    }
}

struct Table(UnsafeCell<BTreeMap<ObjectId, Box<Audited>>>);
// SAFETY: touched while the gate is held only.
unsafe impl Sync for Table {}

static AUDITED: Table = Table(UnsafeCell::new(BTreeMap::new()));

/// Moves the table out of the memory that a transaction which failed has taken. The gate must be held.
pub fn renew(_process: &Process) {
    // SAFETY: whoever has the process has the gate.
    let table = unsafe { &mut *AUDITED.0.get() };
    *table = core::mem::take(table).into_iter().collect();
}

/// What the modules know of an object; `None` for one of theirs. It stays until the object goes.
fn audited(_linker: &Linker, id: ObjectId) -> Option<&'static Audited> {
    // SAFETY: whoever has the linker has the gate.
    unsafe { audited_in_gate(id) }
}

/// The same for who has nothing to show.
///
/// # Safety
/// The gate must be held.
unsafe fn audited_in_gate(id: ObjectId) -> Option<&'static Audited> {
    // SAFETY: the caller's contract. An entry is boxed, and goes when nobody can refer to its object any more.
    unsafe { (*AUDITED.0.get()).get(&id).map(|a| &*core::ptr::from_ref::<Audited>(a)) }
}

/// Whether the modules are to know of the bindings of an object: it is neither a module's nor becoming one's.
fn is_concerned(linker: &Linker, id: ObjectId) -> bool {
    let namespace = linker.objects[id].namespace;
    let candidate = CANDIDATE.load(Ordering::Relaxed);
    let is_candidate = candidate != 0 && candidate == u32::from(namespace.0);
    !is_own(namespace) && !is_candidate && audited(linker, id).is_some()
}

/// Begins to know an object.
fn know(process: &mut Process, id: ObjectId) -> &'static Audited {
    let (map, namespace) = (process.maps.address(id), process.linker.objects[id].namespace);
    // SAFETY: whoever has the process has the gate, and the borrow of it is exclusive. As for the reference, see `audited`.
    unsafe {
        let entry = (*AUDITED.0.get()).entry(id).or_insert_with(|| Box::new(Audited::new(id, namespace, map)));
        &*core::ptr::from_ref::<Audited>(entry)
    }
}

/// Forgets an object that is gone, or is about to be.
pub fn forget(_process: &mut Process, id: ObjectId) {
    if is_active() {
        // SAFETY: as in `know`.
        unsafe { (*AUDITED.0.get()).remove(&id) };
    }
}
