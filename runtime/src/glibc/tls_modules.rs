//! The table of thread-local modules. `__tls_get_addr` reads it in any thread at any time, in a signal handler too, perhaps over code of the
//! same thread that is changing it: entries never move, and what such a reader needs takes no lock and no memory.

use super::locks::TlsLock;
use alloc::vec::Vec;
use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, AtomicUsize, Ordering};
use loader::tls::TlsSegment;

/// A module as threads see it.
#[derive(Clone, Copy)]
pub struct Module {
    /// The generation in which it was added or removed.
    pub generation: u64,
    /// Where its blocks are and what is in them at first.
    pub place: Place,
    /// Whether some thread has found out where its block is, so that it can't move any more.
    pub decided: bool,
}

/// Where a module's blocks are and what is in them at first.
#[derive(Clone, Copy)]
pub struct Place {
    /// Its segment; `None` when the number is free.
    pub segment: Option<TlsSegment>,
    /// Distance below the thread pointer of a static block.
    pub static_offset: Option<u64>,
}

impl Module {
    /// An unused number.
    pub const FREE: Module =
        Module { generation: 0, place: Place { segment: None, static_offset: None }, decided: false };
}

/// A number's entry.
pub struct Entry {
    generation: AtomicU64,
    decided: AtomicBool,
    place: UnsafeCell<Place>,
}

// SAFETY: `place` is written under the TLS lock only, and read under it, or once `decided` says that it stays as it is.
unsafe impl Sync for Entry {}

/// Entries of the first piece; each piece is twice as long as the one before it.
const FIRST: usize = 16;
const PIECES: usize = 16;

/// The pieces of the table, in the order of the numbers. None is ever freed.
static TABLE: [AtomicPtr<Entry>; PIECES] = [const { AtomicPtr::new(core::ptr::null_mut()) }; PIECES];
/// How many numbers there are.
static COUNT: AtomicUsize = AtomicUsize::new(0);

impl Entry {
    fn free() -> Entry {
        let Module { generation, place, decided } = Module::FREE;
        Entry {
            generation: AtomicU64::new(generation),
            decided: AtomicBool::new(decided),
            place: UnsafeCell::new(place),
        }
    }

    /// The generation in which the module was added or removed.
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Where the blocks are, if some thread has found out before. The number must be in use.
    pub fn settled(&self) -> Option<Place> {
        // SAFETY: a place that is settled is not written until the module goes, and then nobody uses its number.
        self.decided.load(Ordering::Acquire).then(|| unsafe { *self.place.get() })
    }

    /// All that is known.
    pub fn get(&self, _lock: &TlsLock) -> Module {
        // SAFETY: the lock is held.
        let place = unsafe { *self.place.get() };
        Module { generation: self.generation(), place, decided: self.decided.load(Ordering::Relaxed) }
    }

    /// Changes it.
    pub fn set(&self, _lock: &TlsLock, module: Module) {
        self.decided.store(false, Ordering::Relaxed);
        // SAFETY: the lock is held, and nobody uses a number that was not settled, or whose module changes.
        unsafe { *self.place.get() = module.place };
        self.generation.store(module.generation, Ordering::Release);
        self.decided.store(module.decided, Ordering::Release);
    }

    /// Settles where the blocks are.
    pub fn settle(&self, _lock: &TlsLock) -> Place {
        self.decided.store(true, Ordering::Release);
        // SAFETY: the lock is held.
        unsafe { *self.place.get() }
    }
}

/// How many modules there are, numbers that are free included.
pub fn count() -> usize {
    COUNT.load(Ordering::Acquire)
}

/// The piece that holds a number from 1, the index in it, and the piece's length.
fn position(number: usize) -> Option<(usize, usize, usize)> {
    let index = number.checked_sub(1)?;
    let piece = (index / FIRST + 1).ilog2() as usize;
    let before = FIRST * ((1 << piece) - 1);
    Some((piece, index - before, FIRST << piece))
}

/// The entry of a number, from 1.
pub fn entry(number: usize) -> Option<&'static Entry> {
    if number > count() {
        return None;
    }
    let (piece, index, _) = position(number)?;
    let start = TABLE.get(piece)?.load(Ordering::Acquire);
    // SAFETY: pieces with numbers up to the count are there, have their full length, and are never freed.
    (!start.is_null()).then(|| unsafe { &*start.add(index) })
}

/// The entries in use and free ones, in the order of their numbers.
pub fn entries() -> impl Iterator<Item = &'static Entry> {
    (1..=count()).map_while(entry)
}

/// Makes the entry of a number if it is not there.
pub fn make_entry(_lock: &TlsLock, number: usize) -> Option<&'static Entry> {
    for next in count() + 1..=number {
        let (piece, _, len) = position(next)?;
        let slot = TABLE.get(piece)?;
        if slot.load(Ordering::Relaxed).is_null() {
            let entries: Vec<Entry> = (0..len).map(|_| Entry::free()).collect();
            slot.store(Vec::leak(entries).as_mut_ptr(), Ordering::Release);
        }
        COUNT.store(next, Ordering::Release);
    }
    entry(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_fill_the_pieces_without_holes() {
        assert_eq!(position(0), None);
        let mut expected = (0, 0);
        for number in 1..=5000 {
            let (piece, index, len) = position(number).expect("a number from 1");
            assert_eq!((piece, index), expected);
            expected = if index + 1 == len { (piece + 1, 0) } else { (piece, index + 1) };
        }
    }
}
