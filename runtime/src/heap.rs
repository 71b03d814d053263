//! The interpreter's heap.
//!
//! Memory comes in arenas from the kernel and is never given back: what a committed transaction has allocated stays for good and can be
//! sealed. Freed blocks go to lists by size and are used again first, so that a program that opens and closes the same
//! library for ever does not grow.

use crate::word::WordLock;
use core::alloc::{GlobalAlloc, Layout};
use core::cell::UnsafeCell;
use core::ops::Range;
use core::ptr::null_mut;
use loader::addr::Addr;
use loader::sys::{self, Place, Prot};
use rustix::io::Errno;

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
/// How many arenas are remembered for sealing.
pub const ARENAS: usize = 64;

struct Block {
    next: *mut Block,
}

struct State {
    /// The unused rest of the current arena.
    rest: Range<usize>,
    /// Freed blocks by size class; those of the aligned classes come last.
    free: [*mut Block; CLASSES + 64],
    /// Arenas that no commit has sealed yet.
    arenas: [Range<usize>; ARENAS],
    arena_count: usize,
}

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
        let state =
            State { rest: 0..0, free: [null_mut(); CLASSES + 64], arenas: [const { 0..0 }; ARENAS], arena_count: 0 };
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
            let usual = ARENA.max((bytes + 4095) & !4095);
            state.take_arena(usual).map(|arena| state.rest = arena).is_some()
        })
    }

    /// The arenas that were made since the last call: what a commit seals.
    pub fn take_unsealed_arenas(&self, mut visit: impl FnMut(Range<Addr>)) {
        let (arenas, count) = self.with(|state| {
            let arenas = core::mem::replace(&mut state.arenas, [const { 0..0 }; ARENAS]);
            (arenas, core::mem::take(&mut state.arena_count))
        });
        for arena in &arenas[..count] {
            visit(Addr(arena.start)..Addr(arena.end));
        }
    }
}

/// What is kept of an object: its tables' places, headers, names, link map, its part of a scope. Most need a tenth of it.
const ROOM_OF_OBJECT: usize = 64 * 1024;

/// Makes sure that there is memory for one more object.
///
/// # Errors
/// There is none.
pub fn room_for_object() -> Result<(), Errno> {
    if HEAP.ensure(ROOM_OF_OBJECT) {
        Ok(())
    } else {
        Err(Errno::NOMEM)
    }
}

/// Makes sure that there is memory for linking objects among so many: scopes, and what calls are looked up in.
///
/// # Errors
/// There is none.
pub fn room_for_linking(objects: usize) -> Result<(), Errno> {
    const OF_EACH: usize = 1024;
    if HEAP.ensure(ROOM_OF_OBJECT.saturating_add(objects.saturating_mul(OF_EACH))) {
        Ok(())
    } else {
        Err(Errno::NOMEM)
    }
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
            return block.cast();
        }
        let align = if class >= CLASSES { size.min(4096) } else { ALIGN };
        let start = self.rest.start.wrapping_add(align - 1) & !(align - 1);
        if start.checked_add(size).is_none_or(|end| end > self.rest.end) {
            return self.grow(size);
        }
        self.rest.start = start + size;
        start as *mut u8
    }

    /// New memory of the kernel's.
    fn take_arena(&mut self, len: usize) -> Option<Range<usize>> {
        // SAFETY: new memory at a place of the kernel's choice.
        let Addr(start) = unsafe { sys::map_anonymous(Place::Anywhere, len, Prot::READ_WRITE, false) }.ok()?;
        if let Some(slot) = self.arenas.get_mut(self.arena_count) {
            *slot = start..start + len;
            self.arena_count += 1;
        }
        Some(start..start + len)
    }

    fn grow(&mut self, size: usize) -> *mut u8 {
        let usual = if self.rest.end == 0 { FIRST_ARENA } else { ARENA };
        let len = usual.max((size + 4095) & !4095);
        let Some(Range { start, .. }) = self.take_arena(len) else {
            return null_mut();
        };
        if len - size > self.rest.end - self.rest.start {
            self.rest = start + size..start + len;
        }
        start as *mut u8
    }
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
        self.with(|state| {
            let block: *mut Block = block.cast();
            // SAFETY: the block is the caller's to give back, aligned and large enough for a link.
            unsafe { (*block).next = state.free[class] };
            state.free[class] = block;
        });
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller guarantees that `size` rounded up to the alignment does not overflow.
        let new = unsafe { Layout::from_size_align_unchecked(size, layout.align()) };
        if class_of(&new) == class_of(&layout) {
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
