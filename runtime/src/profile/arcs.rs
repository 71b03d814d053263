//! Arcs of the call graph: callers and functions, counted in a file that several processes may share. Any thread counts without a lock.

use super::file::{ArcTable, ARC};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use loader::addr::Addr;

/// How many lists there are, at most.
const LISTS: u64 = 1 << 16;

/// The arcs of a file, found by function.
pub struct Arcs {
    table: ArcTable,
    /// By a part of the function's address: the number of an arc and one more; 0 ends a list.
    heads: Vec<AtomicU32>,
    /// By arc: the next one in its list.
    links: Vec<AtomicU32>,
    /// How many arcs of the file are in the lists, or were passed over because their ends are there already.
    known: AtomicU32,
    /// Whether somebody changes the lists.
    busy: AtomicBool,
}

impl Arcs {
    /// Those of a file of a library with so many bytes of code.
    pub fn new(table: ArcTable, text_size: u64) -> Arcs {
        let zeroes = |count: usize| (0..count).map(|_| AtomicU32::new(0)).collect();
        let lists = (text_size / 4).clamp(1, LISTS) as usize;
        let arcs = Arcs {
            table,
            heads: zeroes(lists),
            links: zeroes(table.limit as usize),
            known: AtomicU32::new(0),
            busy: AtomicBool::new(false),
        };
        arcs.learn();
        arcs
    }

    /// Counts a call.
    pub fn count(&self, from: u64, to: u64) {
        if let Some(arc) = self.find(from, to).or_else(|| self.enter(from, to)) {
            self.counter(arc).fetch_add(1, Ordering::Relaxed);
        }
    }

    /// An arc that was not known. Who comes while the lists are being changed, perhaps in a signal handler, does not wait: what it adds to
    /// the file may be there twice, and readers add such arcs up.
    fn enter(&self, from: u64, to: u64) -> Option<u32> {
        if self.busy.swap(true, Ordering::Acquire) {
            return self.add(from, to);
        }
        self.learn();
        let arc = self.find(from, to).or_else(|| {
            let arc = self.add(from, to)?;
            self.link(arc, to);
            self.known.store(arc + 1, Ordering::Relaxed);
            Some(arc)
        });
        self.busy.store(false, Ordering::Release);
        arc
    }

    fn head(&self, to: u64) -> &AtomicU32 {
        &self.heads[(to / 4) as usize % self.heads.len()]
    }

    fn find(&self, from: u64, to: u64) -> Option<u32> {
        let mut next = self.head(to).load(Ordering::Acquire);
        while let Some(arc) = next.checked_sub(1) {
            if self.ends(arc) == (from, to) {
                return Some(arc);
            }
            next = self.links.get(arc as usize)?.load(Ordering::Acquire);
        }
        None
    }

    /// Takes the next arc of the file, unless it is full.
    fn add(&self, from: u64, to: u64) -> Option<u32> {
        if self.table.used.load(Ordering::Relaxed) >= self.table.limit {
            return None;
        }
        let arc = self.table.used.fetch_add(1, Ordering::AcqRel);
        if arc >= self.table.limit {
            return None;
        }
        let at = self.place(arc);
        // SAFETY: the arc lies in the file, and is nobody else's.
        unsafe {
            at.as_mut_ptr::<u64>().write_unaligned(from);
            Addr(at.0 + 8).as_mut_ptr::<u64>().write_unaligned(to);
        }
        Some(arc)
    }

    /// Puts an arc into its list. Each is put there once, by who has set `busy`.
    fn link(&self, arc: u32, to: u64) {
        let Some(link) = self.links.get(arc as usize) else {
            return;
        };
        let head = self.head(to);
        link.store(head.load(Ordering::Relaxed), Ordering::Relaxed);
        head.store(arc + 1, Ordering::Release);
    }

    /// Puts what others have added to the file into the lists; by who has set `busy`.
    fn learn(&self) {
        let used = self.table.used.load(Ordering::Acquire).min(self.table.limit);
        for arc in self.known.load(Ordering::Relaxed)..used {
            let (from, to) = self.ends(arc);
            if self.find(from, to).is_none() {
                self.link(arc, to);
            }
        }
        self.known.store(used, Ordering::Relaxed);
    }

    fn place(&self, arc: u32) -> Addr {
        Addr(self.table.first.0 + arc as usize * ARC)
    }

    fn ends(&self, arc: u32) -> (u64, u64) {
        let at = self.place(arc);
        // SAFETY: callers name arcs below the limit, which lie in the file. One that is just being written may be read half; it is
        // compared only, so at worst one arc stands in the file twice.
        unsafe { (at.as_mut_ptr::<u64>().read_unaligned(), Addr(at.0 + 8).as_mut_ptr::<u64>().read_unaligned()) }
    }

    fn counter(&self, arc: u32) -> &AtomicU32 {
        // SAFETY: it lies in the file behind the ends of the arc, at a multiple of four.
        unsafe { &*Addr(self.place(arc).0 + 16).as_mut_ptr::<AtomicU32>() }
    }
}
