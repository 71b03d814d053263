//! Who is searching: the flag in each thread's control block that glibc's ld.so sets while it looks symbols up without a lock
//! (`header.gscope_flag`). What a search may be reading is freed or unmapped when no thread has its flag up.
//!
//! The flag is 0 when the thread is outside, 1 inside, 2 when somebody waits for it to leave. A handler that interrupts a search finds the
//! flag up and leaves it to the search. Should such a handler never return, but leave by siglongjmp(3), the flag stays up: who waits
//! gives up after a while and sets it to 3, at which the thread's next search takes it over.

use super::thread;
use super::tls::thread_pointer;
use crate::process;
use core::sync::atomic::{AtomicU32, Ordering};
use loader::addr::Addr;
use rustix::io::Errno;
use rustix::thread::futex;

const OUTSIDE: u32 = 0;
const INSIDE: u32 = 1;
const AWAITED: u32 = 2;
const GIVEN_UP: u32 = 3;

/// How long one wait lasts, and how many there are before a thread is given up.
const WAIT: futex::Timespec = futex::Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
const WAITS: usize = 20;

/// The calling thread is searching, as long as this value lives.
pub struct Searching {
    /// The flag to take down; `None` if that is somebody else's.
    flag: Option<&'static AtomicU32>,
}

fn flag_of(tcb: Addr) -> &'static AtomicU32 {
    // SAFETY: every thread control block has the flag, aligned, at this offset, and libc too uses it with atomic instructions only. The
    // block is that of the calling thread, or of a thread that libc's lists hold while their lock is taken.
    unsafe { &*Addr(tcb.0 + process::layout().pthread.header_gscope_flag).as_ptr::<AtomicU32>() }
}

/// Says that the calling thread begins to search. What it finds published afterwards stays until the value is dropped.
pub fn enter() -> Searching {
    let flag = flag_of(thread_pointer());
    match flag.load(Ordering::Relaxed) {
        INSIDE | AWAITED => Searching { flag: None },
        _ => {
            // Sequentially consistent: the flag is up before the published pointer is read, as seen by who replaces it and then looks
            // at the flags.
            flag.swap(INSIDE, Ordering::SeqCst);
            Searching { flag: Some(flag) }
        }
    }
}

impl Drop for Searching {
    fn drop(&mut self) {
        let Some(flag) = self.flag else { return };
        if flag.swap(OUTSIDE, Ordering::Release) == AWAITED {
            // A failed wake leaves the waiter to its timeout.
            let _ = futex::wake(flag, futex::Flags::PRIVATE, i32::MAX as u32);
        }
    }
}

/// Whether no thread searches at this moment, as far as that can be told without waiting. What was replaced before is then read by nobody
/// any more.
pub fn nobody_searches() -> bool {
    core::sync::atomic::fence(Ordering::SeqCst);
    let mut nobody = true;
    let stacks = thread::try_lock_stacks(process::layout());
    stacks.is_some_and(|stacks| {
        stacks.each_running(|tcb| nobody &= flag_of(tcb).load(Ordering::SeqCst) == OUTSIDE);
        nobody
    })
}

/// Waits until every other thread has been outside once. False if one of them is given up: it may still be reading.
pub fn wait_for_others() -> bool {
    core::sync::atomic::fence(Ordering::SeqCst);
    let me = thread_pointer();
    let mut all = true;
    thread::lock_stacks(process::layout()).each_running(|tcb| {
        if tcb != me {
            all &= wait_for(flag_of(tcb));
        }
    });
    all
}

fn wait_for(flag: &AtomicU32) -> bool {
    match flag.compare_exchange(INSIDE, AWAITED, Ordering::SeqCst, Ordering::SeqCst) {
        Ok(_) | Err(AWAITED) => {}
        Err(GIVEN_UP) => return false,
        Err(_) => return true,
    }
    let mut waits = 0;
    while waits < WAITS {
        // Signals and stray wakes are not time that has passed.
        if futex::wait(flag, futex::Flags::PRIVATE, AWAITED, Some(&WAIT)) == Err(Errno::TIMEDOUT) {
            waits += 1;
        }
        match flag.load(Ordering::SeqCst) {
            AWAITED => {}
            GIVEN_UP => return false,
            // Outside, or in a search that began after that.
            _ => return true,
        }
    }
    flag.compare_exchange(AWAITED, GIVEN_UP, Ordering::SeqCst, Ordering::SeqCst).is_err()
}

/// Takes the flag down of a thread that is about to begin: the one that had the memory before may have been cancelled in a search.
pub fn reset(tcb: Addr) {
    flag_of(tcb).store(OUTSIDE, Ordering::Relaxed);
}
