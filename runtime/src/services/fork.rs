//! fork(2) in a program with threads: the child has one of them, and the loader as it was between two changes.
//!
//! glibc leaves its child what the other threads were at. Here a fork waits until nobody is changing the state, and the child takes back
//! what another thread had only begun.

use super::{error, lazy, rollback};
use crate::glibc::libc::RegisterAtfork;
use crate::glibc::{locks, tls};
use crate::heap::HEAP;
use crate::process;
use core::sync::atomic::{AtomicBool, Ordering};
use loader::object::{ObjectId, Stage, Stay};

/// Whether the thread that forks is in the middle of a change itself: a resolver forks.
static NESTED: AtomicBool = AtomicBool::new(false);

/// Registers with a C library what must happen around its forks.
///
/// # Safety
/// The function must be that of an initialised C library.
pub unsafe fn register(register: RegisterAtfork) {
    // The first to be registered, so the last to be called before a fork and the first after it.
    // SAFETY: the functions need nothing of an object that could be unloaded. A failure leaves forks as they are with glibc, where the child
    // of a thread that forks during a dlopen in another one sees what there is.
    unsafe { register(Some(before), Some(in_parent), Some(in_child), core::ptr::null_mut()) };
}

/// Called before a fork.
extern "C" fn before() {
    let gate = process::enter();
    NESTED.store(gate.is_nested(), Ordering::Relaxed);
    gate.keep();
    locks::keep_tls();
    error::LOCK.before_fork();
    HEAP.lock.before_fork();
}

/// Called after a fork in the process that has forked.
extern "C" fn in_parent() {
    HEAP.lock.after_fork();
    error::LOCK.after_fork();
    locks::let_go_tls();
    process::let_go();
}

/// Called in the child.
extern "C" fn in_child() {
    HEAP.lock.after_fork();
    error::LOCK.after_fork();
    // Nobody was changing what these guard, and whoever held one is not there.
    locks::renew_after_fork();
    process::let_go();
    if NESTED.load(Ordering::Relaxed) {
        return;
    }
    let begun: alloc::vec::Vec<ObjectId> = {
        let mut process = process::enter();
        if process.collector != tls::thread_pointer().0 {
            process.collector = 0;
        }
        lazy::forget_withdrawal(&process.linker);
        let unlinked = |o: &loader::object::Object| o.stage == Stage::Mapped && o.stay == Stay::UntilClosed;
        process.linker.objects.iter().filter(|(_, o)| unlinked(o)).map(|(id, _)| id).collect()
    };
    rollback::abandon(&begun);
}
