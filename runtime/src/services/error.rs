//! `dlerror(3)`: the last error of each thread, as text.

use crate::glibc::tls;
use crate::process::{self, Gate};
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
// SAFETY: touched while the gate is held only.
unsafe impl Sync for Slots {}

static SLOTS: Slots = Slots(UnsafeCell::new(BTreeMap::new()));

fn slots(_gate: &mut Gate) -> &mut BTreeMap<usize, Slot> {
    // SAFETY: the gate is held, and the borrow of it is exclusive.
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
    let mut gate = process::enter();
    let message = text(error);
    log::debug!(target: "files", "error: {}", Lossy(message.to_bytes()));
    slots(&mut gate).entry(tls::thread_pointer().0).or_default().pending = Some(message);
}

/// Forgets the pending error of the calling thread: a call succeeded.
pub fn clear() {
    let mut gate = process::enter();
    if let Some(slot) = slots(&mut gate).get_mut(&tls::thread_pointer().0) {
        slot.pending = None;
    }
}

/// The pending error, once; null if there is none.
pub fn take() -> *const i8 {
    let mut gate = process::enter();
    let Some(slot) = slots(&mut gate).get_mut(&tls::thread_pointer().0) else {
        return core::ptr::null();
    };
    slot.given = slot.pending.take();
    slot.given.as_deref().map_or(core::ptr::null(), CStr::as_ptr)
}

/// Frees what is kept for a thread that has ended.
pub fn forget_thread(thread: Addr) {
    let mut gate = process::enter();
    slots(&mut gate).remove(&thread.0);
}

/// The error of a call that has no more to say than a sentence.
pub fn fault(object: &[u8], what: &'static str) -> LoadError {
    LoadError { object: Vec::from(object), reason: loader::error::Reason::Fault(what), errno: None }
}
