//! `dlerror(3)`: the last error of each thread, as text.

use crate::glibc::tls;
use crate::spin::{Held, SpinLock};
use alloc::collections::BTreeMap;
use alloc::ffi::CString;
use alloc::string::ToString;
use alloc::vec::Vec;
use core::cell::UnsafeCell;
use core::ffi::CStr;
use loader::addr::Addr;
use loader::error::{LoadError, Lossy};

#[derive(Default)]
struct Slot {
    /// Not yet asked for.
    pending: Option<CString>,
    /// Handed out by the last call; valid until the next.
    given: Option<CString>,
}

struct Slots(UnsafeCell<BTreeMap<usize, Slot>>);
// SAFETY: touched while the lock is held only.
unsafe impl Sync for Slots {}

static SLOTS: Slots = Slots(UnsafeCell::new(BTreeMap::new()));

/// Guards the slots. Not the gate: libc forgets threads while it holds locks of its own.
pub static LOCK: SpinLock = SpinLock::new();

fn slots<'h>(_held: &'h mut Held<'_>) -> &'h mut BTreeMap<usize, Slot> {
    // SAFETY: the lock is held, and the borrow of it is exclusive.
    unsafe { &mut *SLOTS.0.get() }
}

/// Text of an error as `dlerror` gives it.
fn text(error: &LoadError) -> CString {
    let mut bytes = error.to_string().into_bytes();
    bytes.retain(|&b| b != 0);
    // There is no NUL left.
    CString::new(bytes).unwrap_or_default()
}

/// Remembers an error for the calling thread.
pub fn set(error: &LoadError) {
    let message = text(error);
    log::debug!(target: "files", "error: {}", Lossy(message.to_bytes()));
    let mut held = LOCK.hold();
    let slot = slots(&mut held).entry(tls::thread_pointer().0).or_default();
    slot.pending = Some(message);
}

/// Forgets the pending error of the calling thread: a call succeeded.
pub fn clear() {
    let mut held = LOCK.hold();
    if let Some(slot) = slots(&mut held).get_mut(&tls::thread_pointer().0) {
        slot.pending = None;
    }
}

/// The pending error, once; null if there is none.
pub fn take() -> *const i8 {
    let mut held = LOCK.hold();
    let Some(slot) = slots(&mut held).get_mut(&tls::thread_pointer().0) else {
        return core::ptr::null();
    };
    slot.given = slot.pending.take();
    slot.given.as_deref().map_or(core::ptr::null(), CStr::as_ptr)
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
