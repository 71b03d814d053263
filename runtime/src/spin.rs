//! The lock around what is touched for a few instructions: the heap's state, the slots of `dlerror`. Nobody waits for anything else while
//! holding it.

use crate::glibc::tls;
use core::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};

/// Set in the word of a holder that forks: what runs in its thread until it lets go, a signal handler for one, passes.
const FORKING: usize = 1;

/// A lock whose word lies elsewhere: on a page that the kernel clears in the child of a fork, whose other threads are gone.
pub struct SpinLock {
    /// The word: 0, or the thread pointer of the holder. Null while there is one thread.
    word: AtomicPtr<AtomicUsize>,
}

/// A held lock.
pub struct Held<'l> {
    /// `None` if there is nothing to let go.
    word: Option<&'l AtomicUsize>,
}

impl Default for SpinLock {
    fn default() -> Self {
        Self::new()
    }
}

impl SpinLock {
    /// A lock for a process with one thread.
    pub const fn new() -> SpinLock {
        SpinLock { word: AtomicPtr::new(core::ptr::null_mut()) }
    }

    /// From now on there may be threads, and the lock is this word.
    pub fn lock_by(&self, word: &'static AtomicUsize) {
        self.word.store(core::ptr::from_ref(word).cast_mut(), Ordering::Release);
    }

    fn word(&self) -> Option<&AtomicUsize> {
        // SAFETY: null, or a word that lives as long as the process.
        unsafe { self.word.load(Ordering::Acquire).as_ref() }
    }

    /// Waits for the lock.
    pub fn hold(&self) -> Held<'_> {
        let Some(word) = self.word() else {
            return Held { word: None };
        };
        let me = tls::thread_pointer().0;
        while let Err(holder) = word.compare_exchange_weak(0, me, Ordering::Acquire, Ordering::Relaxed) {
            if holder == me | FORKING {
                return Held { word: None };
            }
            rustix::thread::sched_yield();
        }
        Held { word: Some(word) }
    }

    /// Takes the lock for a fork: until [`SpinLock::after_fork`] only this thread gets it.
    pub fn before_fork(&self) {
        let held = self.hold();
        if let Some(word) = held.word {
            word.store(tls::thread_pointer().0 | FORKING, Ordering::Relaxed);
        }
        core::mem::forget(held);
    }

    /// Lets go in the process that has forked, and in its child where the kernel has not done so.
    pub fn after_fork(&self) {
        if let Some(word) = self.word() {
            let mine = tls::thread_pointer().0 | FORKING;
            // Already free in the child, as a rule.
            let _ = word.compare_exchange(mine, 0, Ordering::Release, Ordering::Relaxed);
        }
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        if let Some(word) = self.word {
            word.store(0, Ordering::Release);
        }
    }
}
