//! `dlerror(3)`: the last error of each thread in each namespace, as text: each C library keeps its errors to itself.

use crate::glibc::tls;
use crate::word::{Held, WordLock};
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::cell::UnsafeCell;
use core::fmt::{self, Write};
use loader::addr::Addr;
use loader::error::{Consequence, LoadError};
use loader::object::NamespaceId;

struct Slot {
    namespace: NamespaceId,
    /// Not yet asked for.
    pending: Option<Text>,
    /// Handed out by the last call; valid until the next.
    given: Option<Text>,
}

struct Slots(UnsafeCell<BTreeMap<usize, Vec<Slot>>>);
// SAFETY: touched while the lock is held only.
unsafe impl Sync for Slots {}

static SLOTS: Slots = Slots(UnsafeCell::new(BTreeMap::new()));

/// Guards the slots. Not the gate: libc forgets threads while it holds locks of its own.
pub static LOCK: WordLock = WordLock::new();

fn slots<'h>(_held: &'h mut Held<'_>) -> &'h mut BTreeMap<usize, Vec<Slot>> {
    // SAFETY: the lock is held, and the borrow of it is exclusive.
    unsafe { &mut *SLOTS.0.get() }
}

/// Text as `dlerror` gives it, with a NUL at its end and nowhere else. Made without ending the program if there is no memory for it.
struct Text(Vec<u8>);

impl fmt::Write for Text {
    fn write_str(&mut self, more: &str) -> fmt::Result {
        // With the NUL.
        self.0.try_reserve(more.len().saturating_add(1)).map_err(|_| fmt::Error)?;
        self.0.extend(more.bytes().filter(|&b| b != 0));
        Ok(())
    }
}

impl Text {
    fn of(error: &LoadError) -> Text {
        let mut text = Text(Vec::new());
        if write!(text, "{error}").is_err() {
            text.0.clear();
            // Fits where some of the longer text has been, or was made sure of before.
            text.0.extend_from_slice(b"out of memory");
        }
        text.0.push(0);
        text
    }
}

/// The slot of the calling thread in a namespace.
fn slot<'h>(held: &'h mut Held<'_>, namespace: NamespaceId) -> Option<&'h mut Slot> {
    slots(held).get_mut(&tls::thread_pointer().0)?.iter_mut().find(|slot| slot.namespace == namespace)
}

/// Tells `LD_DEBUG` why a call fails.
pub fn tell(error: &LoadError) {
    error.tell(Consequence::Fatal);
}

/// Remembers an error for the calling thread.
pub fn set(namespace: NamespaceId, error: &LoadError) {
    let message = Some(Text::of(error));
    let mut held = LOCK.hold();
    match slot(&mut held, namespace) {
        Some(slot) => slot.pending = message,
        None => {
            let slot = Slot { namespace, pending: message, given: None };
            slots(&mut held).entry(tls::thread_pointer().0).or_default().push(slot);
        }
    }
}

/// Forgets the pending error of the calling thread: a call succeeded.
pub fn clear(namespace: NamespaceId) {
    let mut held = LOCK.hold();
    if let Some(slot) = slot(&mut held, namespace) {
        slot.pending = None;
    }
}

/// The pending error, once; null if there is none.
pub fn take(namespace: NamespaceId) -> *const i8 {
    let mut held = LOCK.hold();
    let Some(slot) = slot(&mut held, namespace) else {
        return core::ptr::null();
    };
    slot.given = slot.pending.take();
    slot.given.as_ref().map_or(core::ptr::null(), |text| text.0.as_ptr().cast())
}

/// Frees what is kept for a namespace that is gone.
pub fn forget_namespace(namespace: NamespaceId) {
    let mut held = LOCK.hold();
    for slots in slots(&mut held).values_mut() {
        slots.retain(|slot| slot.namespace != namespace);
    }
}

/// Frees what is kept for a thread that has ended.
pub fn forget_thread(thread: Addr) {
    let mut held = LOCK.hold();
    slots(&mut held).remove(&thread.0);
}

/// The error of a call that has no more to say than a sentence.
pub fn fault(object: &[u8], what: &'static str) -> LoadError {
    LoadError { object: Vec::from(object), reason: loader::error::Reason::Fault(what), errno: None }
}
