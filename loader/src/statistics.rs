//! Counts of what relocation does (`LD_DEBUG=statistics`). Nothing is counted unless somebody wants to know.

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Whether anything is counted.
pub static COUNTING: AtomicBool = AtomicBool::new(false);

/// Symbols that were looked up: for relocations, for calls that are bound at their first time, for `dlsym`.
pub static LOOKUPS: Counter = Counter(AtomicU64::new(0));
/// Relocations against the symbol of the one before, whose definition was still known.
pub static REMEMBERED: Counter = Counter(AtomicU64::new(0));
/// `R_X86_64_RELATIVE` relocations among those that `DT_RELACOUNT` counts.
pub static RELATIVE: Counter = Counter(AtomicU64::new(0));

/// A number that grows, in any thread.
pub struct Counter(AtomicU64);

impl Counter {
    /// Counts `number` more, if anything is counted.
    #[inline]
    pub fn add(&self, number: u64) {
        if COUNTING.load(Ordering::Relaxed) {
            self.0.fetch_add(number, Ordering::Relaxed);
        }
    }

    /// How many were counted.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
