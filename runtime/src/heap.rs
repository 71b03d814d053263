//! The interpreter's heap.
//!
//! Memory comes in arenas from the kernel. What a committed transaction has allocated stays for good and can be sealed. A transaction that
//! fails gives back the arenas that it has taken ([`Heap::begin`], [`Heap::leave`], [`Heap::left`]). Freed blocks go to lists by size and are
//! used again first, so that a program that opens and closes the same library for ever does not grow.

use crate::word::WordLock;
use core::alloc::{GlobalAlloc, Layout};
use core::cell::{Cell, UnsafeCell};
use core::ops::Range;
use core::ptr::{null, null_mut};
use loader::addr::Addr;
use loader::sys::{self, Place, Prot};

/// Size of the first arena: enough for a program with some dozens of libraries.
const FIRST_ARENA: usize = 512 * 1024;
/// Size of the later ones, unless a block needs more.
const ARENA: usize = 1024 * 1024;
/// Blocks are at least two words, for the list link and for alignment.
const SMALLEST: usize = 16;
/// Alignment of blocks of which nobody asks for more.
const ALIGN: usize = 16;
/// Four sizes for each power of two.
const STEPS: usize = 4;
const CLASSES: usize = 48 * STEPS;
/// How many rests of earlier arenas are kept.
const RESTS: usize = 4;

/// A freed block.
struct Block {
    next: *mut Block,
    /// Its size class.
    class: usize,
}

/// What is known of an arena until a commit seals it; its first bytes.
struct Arena {
    range: Range<usize>,
    /// How many arenas there were before it.
    serial: u64,
    /// How many blocks of it are in use, if it was taken since the first transaction.
    blocks: Cell<usize>,
    /// Whether it is about to be given back: it gives no more blocks.
    leaves: Cell<bool>,
    /// The one that was taken before it.
    older: Cell<*const Arena>,
}

struct State {
    /// The unused rest of the current arena.
    rest: Range<usize>,
    /// Those of earlier ones, the longest first: they are used when there is nothing else.
    rests: [Range<usize>; RESTS],
    /// Freed blocks by size class; those of the aligned classes come last.
    free: [*mut Block; CLASSES + 64],
    /// Freed blocks of arenas that are about to be given back.
    left: *mut Block,
    /// The longest rest in such an arena: for what finds no other place, and then keeps that arena.
    left_rest: Range<usize>,
    /// The newest of the arenas that no commit has sealed yet.
    newest: *const Arena,
    /// How many there have ever been.
    serial: u64,
    /// Whether a transaction has begun: before there is none, nothing is ever given back.
    counts: bool,
}

/// When a transaction began.
#[derive(Clone, Copy)]
pub struct Mark(u64);

/// The allocator.
pub struct Heap {
    /// Held by who is at the state.
    pub lock: WordLock,
    state: UnsafeCell<State>,
}

// SAFETY: the state is only touched while the lock is held.
unsafe impl Sync for Heap {}

impl Default for Heap {
    fn default() -> Self {
        Self::new()
    }
}

impl Heap {
    /// A heap without memory.
    pub const fn new() -> Heap {
        let state = State {
            rest: 0..0,
            rests: [const { 0..0 }; RESTS],
            free: [null_mut(); CLASSES + 64],
            left: null_mut(),
            left_rest: 0..0,
            newest: null(),
            serial: 0,
            counts: false,
        };
        Heap { lock: WordLock::new(), state: UnsafeCell::new(state) }
    }

    fn with<T>(&self, f: impl FnOnce(&mut State) -> T) -> T {
        let _held = self.lock.hold();
        // SAFETY: the lock is held.
        f(unsafe { &mut *self.state.get() })
    }

    /// Whether the next `bytes` can be had without asking the kernel; asks it for another arena if need be. What was freed before does not
    /// count, so that a block of any size is among what can be had.
    pub fn ensure(&self, bytes: usize) -> bool {
        self.with(|state| {
            if state.rest.end - state.rest.start >= bytes {
                return true;
            }
            state.take_arena(bytes, ARENA).map(|arena| state.switch_to(arena)).is_some()
        })
    }

    /// A transaction begins.
    pub fn begin(&self) -> Mark {
        self.with(|state| {
            state.counts = true;
            Mark(state.serial)
        })
    }

    /// A transaction has failed: what is allocated from here on does not come from arenas that were taken since, so that what has to stay can
    /// be moved out of them. Whether there are such arenas.
    pub fn leave(&self, mark: Mark) -> bool {
        self.with(|state| state.leave(mark))
    }

    /// Gives those arenas back that nothing is left in. The others go on as before.
    pub fn left(&self) {
        self.with(State::give_back);
    }

    /// The arenas that were made since the last call: what a commit seals.
    pub fn take_unsealed_arenas(&self, mut visit: impl FnMut(Range<Addr>)) {
        let newest = self.with(|state| core::mem::replace(&mut state.newest, null()));
        for arena in arenas(newest) {
            visit(Addr(arena.range.start)..Addr(arena.range.end));
        }
    }
}

/// Whether so many bytes can be had of the interpreter's heap.
pub fn has_room(bytes: usize) -> bool {
    HEAP.ensure(bytes)
}

/// Sees to it that a transaction which fails finds memory to say so without taking any that stays. Without success it may.
pub fn prepare_for_failure() {
    const ROOM: usize = 16 * 1024;
    HEAP.ensure(ROOM);
}

/// The interpreter's heap.
pub static HEAP: Heap = Heap::new();

/// The interpreter's allocator: [`HEAP`].
pub struct Allocator;

// SAFETY: as for `Heap`.
unsafe impl GlobalAlloc for Allocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's contract.
        unsafe { HEAP.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the caller's contract.
        unsafe { HEAP.dealloc(block, layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller's contract.
        unsafe { HEAP.realloc(block, layout, size) }
    }
}

/// The size class of a block: its index, and its size in bytes.
fn class_of(layout: &Layout) -> (usize, usize) {
    let size = layout.size().max(SMALLEST);
    if layout.align() > ALIGN {
        // A power of two, whose blocks are aligned to their size.
        let size = size.max(layout.align()).next_power_of_two();
        return (CLASSES + size.trailing_zeros() as usize, size);
    }
    // The power of two not above it, in quarters.
    let shift = size.ilog2();
    let quarter = 1usize << (shift - 2);
    let steps = (size - (1 << shift)).div_ceil(quarter);
    (shift as usize * STEPS + steps, (1 << shift) + steps * quarter)
}

impl State {
    fn allocate(&mut self, (class, size): (usize, usize)) -> *mut u8 {
        let Some(list) = self.free.get_mut(class) else {
            return null_mut();
        };
        if !list.is_null() {
            let block = *list;
            // SAFETY: a block on the list is free memory of this heap that starts with its link.
            *list = unsafe { (*block).next };
            self.count(block as usize, 1);
            return block.cast();
        }
        let align = if class >= CLASSES { size.min(4096) } else { ALIGN };
        let from_rests = |rests: &mut [Range<usize>]| rests.iter_mut().find_map(|rest| cut(rest, size, align));
        let start = cut(&mut self.rest, size, align)
            .or_else(|| from_rests(&mut self.rests))
            .or_else(|| cut(&mut self.left_rest, size, align))
            .or_else(|| self.grow(size, align));
        let Some(start) = start else {
            return null_mut();
        };
        self.count(start, 1);
        start as *mut u8
    }

    /// Makes the block that was cut off last longer where it lies, if it is that and there is room: lists that grow are not copied, and do not
    /// leave blocks behind for which nobody asks. Only before the first transaction: what a transaction frees comes back to the next one by
    /// its size, and a block that was lengthened comes back as one that nobody begins with.
    fn lengthen(
        &mut self,
        block: usize,
        (old_class, old_size): (usize, usize),
        (new_class, new_size): (usize, usize),
    ) -> bool {
        let is_last = block + old_size == self.rest.start && !self.rest.is_empty();
        if self.counts || !is_last || old_class.max(new_class) >= CLASSES || new_size <= old_size {
            return false;
        }
        cut(&mut self.rest, new_size - old_size, 1).is_some()
    }

    fn free(&mut self, block: *mut Block, class: usize) {
        let leaves = self.count(block as usize, usize::MAX);
        let list = if leaves { &mut self.left } else { &mut self.free[class] };
        // SAFETY: the block is the caller's to give back, aligned and large enough for a link and a class.
        unsafe { *block = Block { next: *list, class } };
        *list = block;
    }

    /// Counts a block of the arena that it lies in, if that is known, up or down. Whether the arena is about to be given back.
    fn count(&mut self, block: usize, change: usize) -> bool {
        self.counts
            && arenas(self.newest).find(|arena| arena.range.contains(&block)).is_some_and(|arena| {
                arena.blocks.set(arena.blocks.get().wrapping_add(change));
                arena.leaves.get()
            })
    }

    /// New memory of the kernel's: for so many bytes at least, usually for more.
    fn take_arena(&mut self, bytes: usize, usual: usize) -> Option<Range<usize>> {
        let len = usual.max(bytes.checked_add(size_of::<Arena>() + 4095)? & !4095);
        // SAFETY: new memory at a place of the kernel's choice.
        let Addr(start) = unsafe { sys::map_anonymous(Place::Anywhere, len, Prot::READ_WRITE, false) }.ok()?;
        let range = start..start + len;
        let older = Cell::new(self.newest);
        let arena = Arena { range, serial: self.serial, blocks: Cell::new(0), leaves: Cell::new(false), older };
        // SAFETY: the start of new memory, a page's, which does not become part of a block.
        unsafe { (start as *mut Arena).write(arena) };
        self.newest = start as *const Arena;
        self.serial += 1;
        Some(start + size_of::<Arena>()..start + len)
    }

    /// Goes on with another rest; keeps the one that there is.
    fn switch_to(&mut self, rest: Range<usize>) {
        let old = core::mem::replace(&mut self.rest, rest);
        self.keep_rest(old);
    }

    fn keep_rest(&mut self, rest: Range<usize>) {
        self.rests[RESTS - 1] =
            self.rests[RESTS - 1..].iter().cloned().chain([rest]).max_by_key(ExactSizeIterator::len).unwrap_or(0..0);
        self.rests.sort_unstable_by_key(|rest| core::cmp::Reverse(rest.len()));
    }

    fn leave(&mut self, mark: Mark) -> bool {
        let mut any = false;
        for arena in arenas(self.newest).filter(|arena| arena.serial >= mark.0) {
            arena.leaves.set(true);
            any = true;
        }
        if !any {
            return false;
        }
        let newest = self.newest;
        let leaves = |at: usize| arenas(newest).any(|arena| arena.leaves.get() && arena.range.contains(&at));
        for rest in self.rests.iter_mut().chain([&mut self.rest]).filter(|rest| leaves(rest.start)) {
            let rest = core::mem::replace(rest, 0..0);
            if rest.len() > self.left_rest.len() {
                self.left_rest = rest;
            }
        }
        for list in &mut self.free {
            let mut link: *mut *mut Block = list;
            // SAFETY: the list consists of free blocks of this heap, each of which starts with its link.
            unsafe {
                while !(*link).is_null() {
                    let block = *link;
                    if leaves(block as usize) {
                        *link = (*block).next;
                        (*block).next = core::mem::replace(&mut self.left, block);
                    } else {
                        link = &raw mut (*block).next;
                    }
                }
            }
        }
        self.rests.sort_unstable_by_key(|rest| core::cmp::Reverse(rest.len()));
        if self.rest.is_empty() {
            self.rest = core::mem::replace(&mut self.rests[0], 0..0);
        }
        true
    }

    fn give_back(&mut self) {
        let empty = |arena: &Arena| arena.leaves.get() && arena.blocks.get() == 0;
        let mut block = core::mem::replace(&mut self.left, null_mut());
        while !block.is_null() {
            // SAFETY: the list consists of free blocks of this heap, of arenas that are still mapped.
            let Block { next, class } = unsafe { core::ptr::read(block) };
            if !arenas(self.newest).any(|arena| empty(arena) && arena.range.contains(&(block as usize))) {
                // SAFETY: as above.
                unsafe { (*block).next = core::mem::replace(&mut self.free[class], block) };
            }
            block = next;
        }
        let mut next = self.newest;
        let mut newer: Option<&Arena> = None;
        // SAFETY: arenas stay mapped for as long as they are on the list.
        while let Some(arena) = unsafe { next.as_ref() } {
            let (at, older) = (next, arena.older.get());
            next = older;
            let range = Addr(arena.range.start)..Addr(arena.range.end);
            // SAFETY: no block of it is in use, no list has one, no rest lies in it, and below nothing of it is read.
            let gone = empty(arena) && unsafe { sys::unmap(range) }.is_ok();
            let follows = if gone { older } else { at };
            match newer {
                Some(newer) => newer.older.set(follows),
                None => self.newest = follows,
            }
            if !gone {
                arena.leaves.set(false);
                newer = Some(arena);
            }
        }
        let rest = core::mem::replace(&mut self.left_rest, 0..0);
        if arenas(self.newest).any(|arena| arena.range.contains(&rest.start)) {
            self.keep_rest(rest);
        }
    }

    /// A block of a new arena.
    fn grow(&mut self, size: usize, align: usize) -> Option<usize> {
        let usual = if self.rest.end == 0 { FIRST_ARENA } else { ARENA };
        let mut arena = self.take_arena(size.checked_add(align)?, usual)?;
        let start = cut(&mut arena, size, align)?;
        if arena.len() > self.rest.len() {
            self.switch_to(arena);
        } else {
            self.keep_rest(arena);
        }
        Some(start)
    }
}

/// Arenas of a list, from the newest.
fn arenas<'a>(newest: *const Arena) -> impl Iterator<Item = &'a Arena> {
    // SAFETY: arenas stay mapped for as long as they are on a list.
    let arena = |at: *const Arena| unsafe { at.as_ref() };
    core::iter::successors(arena(newest), move |newer| arena(newer.older.get()))
}

/// Takes a block off the start of a rest.
fn cut(rest: &mut Range<usize>, size: usize, align: usize) -> Option<usize> {
    let start = rest.start.checked_add(align - 1)? & !(align - 1);
    let end = start.checked_add(size).filter(|end| *end <= rest.end)?;
    rest.start = end;
    Some(start)
}

// SAFETY: blocks are disjoint, at least as large and as aligned as asked (a class is not smaller than either), and stay mapped.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if layout.align() > 4096 {
            return null_mut();
        }
        self.with(|state| state.allocate(class_of(&layout)))
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        let (class, _) = class_of(&layout);
        self.with(|state| state.free(block.cast(), class));
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller guarantees that `size` rounded up to the alignment does not overflow.
        let new = unsafe { Layout::from_size_align_unchecked(size, layout.align()) };
        let (old_class, new_class) = (class_of(&layout), class_of(&new));
        if new_class == old_class || self.with(|state| state.lengthen(block as usize, old_class, new_class)) {
            return block;
        }
        // SAFETY: as for `alloc`.
        let moved = unsafe { self.alloc(new) };
        if !moved.is_null() {
            // SAFETY: both blocks are at least as long as the shorter of the two sizes, and disjoint.
            unsafe { core::ptr::copy_nonoverlapping(block, moved, layout.size().min(size)) };
            // SAFETY: the old block is the caller's.
            unsafe { self.dealloc(block, layout) };
        }
        moved
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_ensured_needs_no_new_arena() {
        let heap = Heap::new();
        assert!(heap.ensure(100_000));
        let mut arenas = 0;
        heap.take_unsealed_arenas(|_| arenas += 1);
        assert_eq!(arenas, 1);
        for size in [50_000, 30_000, 4_000] {
            let layout = Layout::from_size_align(size, 16).expect("valid");
            // SAFETY: the layout is not empty.
            assert!(!unsafe { heap.alloc(layout) }.is_null());
        }
        assert!(heap.ensure(10_000) && !heap.ensure(usize::MAX / 2));
        heap.take_unsealed_arenas(|_| panic!("there was room"));
    }

    #[test]
    fn lists_that_grow_in_every_transaction_take_no_more_memory() {
        let heap = Heap::new();
        let layout = |size| Layout::from_size_align(size, 16).expect("valid");
        heap.begin();
        for _ in 0..100_000 {
            // SAFETY: the layouts are not empty, and the block is freed with the one that it has.
            unsafe {
                let short = heap.alloc(layout(64));
                let long = heap.realloc(short, layout(64), 256);
                assert!(!long.is_null());
                heap.dealloc(long, layout(256));
            }
        }
        let mut arenas = 0;
        heap.take_unsealed_arenas(|_| arenas += 1);
        assert_eq!(arenas, 1);
    }

    #[test]
    fn a_failed_transaction_gives_its_arenas_back() {
        let heap = Heap::new();
        let layout = |size| Layout::from_size_align(size, 16).expect("valid");
        // SAFETY: the layouts of this test are not empty.
        let alloc = |size| unsafe { heap.alloc(layout(size)) } as usize;
        // SAFETY: blocks are freed with the layout that they were made with.
        let free = |at: usize, size| unsafe { heap.dealloc(at as *mut u8, layout(size)) };
        let first = alloc(100);
        let mark = heap.begin();
        let (many, one) = (alloc(2 << 20), alloc(300_000));
        let (later, stays) = (alloc(300_000), alloc(64));
        free(many, 2 << 20);
        free(one, 300_000);
        assert!(heap.leave(mark));
        // What is allocated now comes from before the mark.
        let moved = alloc(64);
        assert!(moved.abs_diff(first) < FIRST_ARENA);
        free(later, 300_000);
        free(stays, 64);
        heap.left();
        let mut left = 0;
        heap.take_unsealed_arenas(|arena| left += arena.end.0 - arena.start.0);
        assert_eq!(left, FIRST_ARENA);
        assert!(!heap.leave(heap.begin()));
    }

    #[test]
    fn arenas_of_any_number_are_told() {
        let heap = Heap::new();
        heap.begin();
        let mut blocks = std::collections::BTreeSet::new();
        for _ in 0..200 {
            let layout = Layout::from_size_align(ARENA, 16).expect("valid");
            // SAFETY: the layout is not empty.
            blocks.insert(unsafe { heap.alloc(layout) } as usize);
        }
        assert!(blocks.len() == 200 && !blocks.contains(&0));
        heap.take_unsealed_arenas(|arena| blocks.retain(|block| !(arena.start.0..arena.end.0).contains(block)));
        assert!(blocks.is_empty(), "{} arenas stay unsealed", blocks.len());
    }

    #[test]
    fn what_is_in_use_keeps_its_arena() {
        let heap = Heap::new();
        let layout = |size| Layout::from_size_align(size, 16).expect("valid");
        // SAFETY: the layout is not empty.
        let alloc = |size| unsafe { heap.alloc(layout(size)) } as usize;
        alloc(100);
        let mark = heap.begin();
        let (gone, stays) = (alloc(400_000), alloc(500_000));
        assert!(gone != 0 && stays != 0);
        // SAFETY: the block came from this heap with this layout.
        unsafe { heap.dealloc(gone as *mut u8, layout(400_000)) };
        assert!(heap.leave(mark));
        heap.left();
        // SAFETY: the block is in use.
        unsafe { core::ptr::write_bytes(stays as *mut u8, 1, 500_000) };
        assert_eq!(alloc(400_000), gone);
    }

    #[test]
    fn the_last_block_grows_where_it_lies() {
        let heap = Heap::new();
        let layout = |size| Layout::from_size_align(size, 16).expect("valid");
        // SAFETY: the layouts are not empty, and blocks are resized and freed with the layout that they have.
        unsafe {
            let first = heap.alloc(layout(100));
            first.write_bytes(7, 100);
            assert_eq!(heap.realloc(first, layout(100), 1000), first);
            let second = heap.alloc(layout(100));
            assert!(second as usize >= first as usize + 1000);
            let moved = heap.realloc(first, layout(1000), 5000);
            assert!(moved != first && (0..100).all(|at| moved.add(at).read() == 7));
            // No more than there is.
            let larger = heap.realloc(moved, layout(5000), FIRST_ARENA);
            assert!(larger != moved && !larger.is_null() && larger.read() == 7);
            heap.dealloc(larger, layout(FIRST_ARENA));
            assert_eq!(heap.alloc(layout(1000)), first);
        }
    }

    #[test]
    fn blocks_are_disjoint_aligned_and_reused() {
        let heap = Heap::new();
        let mut blocks = std::vec::Vec::new();
        for size in [1usize, 16, 17, 100, 4096, 5000, 600_000] {
            let layout = Layout::from_size_align(size, 16).expect("valid");
            // SAFETY: the layout is not empty.
            let p = unsafe { heap.alloc(layout) };
            assert!(!p.is_null() && (p as usize).is_multiple_of(16));
            // SAFETY: the block is `size` bytes long.
            unsafe { core::ptr::write_bytes(p, 0xa5, size) };
            blocks.push((p as usize, size, layout));
        }
        blocks.sort_unstable_by_key(|b| b.0);
        assert!(blocks.windows(2).all(|w| w[0].0 + w[0].1 <= w[1].0));
        let (p, _, layout) = blocks[0];
        // SAFETY: the block came from this heap with this layout.
        unsafe { heap.dealloc(p as *mut u8, layout) };
        // SAFETY: the layout is not empty.
        assert_eq!(unsafe { heap.alloc(layout) } as usize, p);
        let mut arenas = 0;
        heap.take_unsealed_arenas(|_| arenas += 1);
        assert_eq!(arenas, 2);
        heap.take_unsealed_arenas(|_| panic!("taken already"));
    }
}
