//! Locks of one word, around what is touched for a few instructions: the heap's state, the slots of `dlerror`. Nobody waits for anything else
//! while holding one.
//!
//! The words lie on a page that the kernel clears in the child of a fork, whose other threads are gone.

use crate::glibc::tls;
use core::sync::atomic::{AtomicPtr, AtomicU32, AtomicUsize, Ordering};
use rustix::thread::futex;

/// What such a lock consists of.
#[repr(C)]
pub struct Words {
    /// 0 free, 1 held, 2 held with waiters.
    state: AtomicU32,
    /// Thread pointer of a holder that forks: what runs in its thread until it lets go, a signal handler for one, passes.
    forker: AtomicUsize,
}

/// A lock whose words lie elsewhere.
pub struct WordLock {
    /// Null while there is one thread.
    words: AtomicPtr<Words>,
}

/// A held lock.
pub struct Held<'l> {
    /// `None` if there is nothing to let go.
    words: Option<&'l Words>,
}

impl Default for WordLock {
    fn default() -> Self {
        Self::new()
    }
}

impl WordLock {
    /// A lock for a process with one thread.
    pub const fn new() -> WordLock {
        WordLock { words: AtomicPtr::new(core::ptr::null_mut()) }
    }

    /// From now on there may be threads, and the lock is these words.
    pub fn lock_by(&self, words: &'static Words) {
        self.words.store(core::ptr::from_ref(words).cast_mut(), Ordering::Release);
    }

    fn words(&self) -> Option<&Words> {
        // SAFETY: null, or words that live as long as the process.
        unsafe { self.words.load(Ordering::Acquire).as_ref() }
    }

    /// Waits for the lock.
    pub fn hold(&self) -> Held<'_> {
        let Some(words) = self.words() else {
            return Held { words: None };
        };
        if words.state.compare_exchange(0, 1, Ordering::Acquire, Ordering::Relaxed).is_err() {
            if words.forker.load(Ordering::Relaxed) == tls::thread_pointer().0 {
                return Held { words: None };
            }
            while words.state.swap(2, Ordering::Acquire) != 0 {
                // Whatever wakes it, the loop looks again.
                let _ = futex::wait(&words.state, futex::Flags::PRIVATE, 2, None);
            }
        }
        Held { words: Some(words) }
    }

    /// Takes the lock for a fork: until [`WordLock::after_fork`] only this thread gets it.
    pub fn before_fork(&self) {
        let held = self.hold();
        if let Some(words) = held.words {
            words.forker.store(tls::thread_pointer().0, Ordering::Relaxed);
        }
        core::mem::forget(held);
    }

    /// Lets go in the process that has forked, and in its child where the kernel has not done so.
    pub fn after_fork(&self) {
        let me = tls::thread_pointer().0;
        let taken = |words: &&Words| words.forker.compare_exchange(me, 0, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        drop(Held { words: self.words().filter(taken) });
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        if let Some(words) = self.words {
            if words.state.swap(0, Ordering::Release) == 2 {
                // A failed wake leaves nobody waiting.
                let _ = futex::wake(&words.state, futex::Flags::PRIVATE, 1);
            }
        }
    }
}
