//! The memory of one loaded object, and checked access to it by link-time address.
//!
//! This is the island where the loader reads and writes memory that it knows only by number. The invariant behind every `unsafe` block
//! here: the `PT_LOAD` ranges recorded in an [`Image`] are mapped with the recorded protections for as long as the image exists.
//! Whoever makes one (mapping a file, or adopting what the kernel mapped) vouches for that, and whoever unmaps it drops it first.

use crate::addr::{Addr, Bias, VAddr};
use crate::elf::header::ProgramHeader;
use crate::elf::view::View;
use crate::sys::{self, Prot};
use alloc::vec::Vec;
use core::ops::Range;
use goblin::elf64::program_header::PT_LOAD;
use rustix::io::Errno;

/// One `PT_LOAD`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Segment {
    /// Its memory, `p_vaddr` to `p_vaddr + p_memsz`.
    pub memory: Range<VAddr>,
    /// Its whole pages.
    pub pages: Range<VAddr>,
    /// The protection that it is mapped with.
    pub prot: Prot,
}

/// The mapped image of an object.
#[derive(Debug)]
pub struct Image {
    /// From its first to its last page, gaps included.
    pub range: Range<Addr>,
    /// Run-time minus link-time addresses.
    pub bias: Bias,
    /// Its segments in ascending order.
    pub segments: Vec<Segment>,
    /// Gaps between segments that are not the image's own: something else is mapped there.
    pub holes: Vec<Range<Addr>>,
    /// Whether the read-only segments are writable for the time being (`DT_TEXTREL`).
    text_is_writable: bool,
}

impl Image {
    /// The image of an object whose program headers are `headers` and whose segments are mapped with `bias`.
    ///
    /// # Safety
    /// The `PT_LOAD` ranges must be mapped with their protections, and stay so until the value is dropped.
    pub unsafe fn adopt(headers: &[ProgramHeader], bias: Bias) -> Option<Image> {
        let mut segments = Vec::new();
        for h in headers.iter().filter(|h| h.p_type == PT_LOAD && h.p_memsz > 0) {
            let memory = VAddr(h.p_vaddr)..VAddr(h.p_vaddr).checked_add(h.p_memsz)?;
            let pages = memory.start.page_floor()..memory.end.page_ceil()?;
            segments.push(Segment { memory, pages, prot: Prot::from_segment_flags(h.p_flags) });
        }
        let range = bias.run_time(segments.first()?.pages.start)..bias.run_time(segments.last()?.pages.end);
        (range.start < range.end).then_some(Image { range, bias, segments, holes: Vec::new(), text_is_writable: false })
    }

    /// All readable memory, for the parsers. The bytes of writable segments change while relocations are applied; the tables that
    /// parsers look for are not among them.
    pub fn view(&self) -> View<'static> {
        let mut view = View::new();
        for s in self.segments.iter().filter(|s| s.prot.read) {
            let len = (s.memory.end.0 - s.memory.start.0) as usize;
            // SAFETY: the segment is mapped readable while the image exists (the type's invariant).
            let bytes = unsafe { core::slice::from_raw_parts(self.bias.run_time(s.memory.start).as_ptr::<u8>(), len) };
            view.push(s.memory.start, bytes);
        }
        view
    }

    /// The segment that holds all of `len` bytes at `at`.
    pub fn segment(&self, at: VAddr, len: u64) -> Option<&Segment> {
        let end = at.checked_add(len)?;
        self.segments.iter().find(|s| s.memory.start <= at && end <= s.memory.end)
    }

    /// The `u64` at `at`, which must lie in a readable segment. It need not be aligned.
    pub fn read_u64(&self, at: VAddr) -> Option<u64> {
        self.segment(at, 8).filter(|s| s.prot.read)?;
        // SAFETY: the eight bytes lie in a mapped readable segment.
        Some(unsafe { self.bias.run_time(at).as_ptr::<u64>().read_unaligned() })
    }

    /// Stores `value` at `at`, which must lie in a writable segment. It need not be aligned.
    #[inline]
    pub fn write_u64(&self, at: VAddr, value: u64) -> Option<()> {
        self.writable(at, 8)?;
        // SAFETY: the eight bytes lie in a mapped writable segment, and no reference to them is live while relocations are applied.
        unsafe { self.bias.run_time(at).as_mut_ptr::<u64>().write_unaligned(value) };
        Some(())
    }

    /// Stores `value` at `at`, which must lie in a writable segment.
    pub fn write_u32(&self, at: VAddr, value: u32) -> Option<()> {
        self.writable(at, 4)?;
        // SAFETY: as for `write_u64`.
        unsafe { self.bias.run_time(at).as_mut_ptr::<u32>().write_unaligned(value) };
        Some(())
    }

    /// Copies `len` bytes from run-time memory to `at`, which must lie in a writable segment.
    ///
    /// # Safety
    /// `from` must be readable for `len` bytes.
    pub unsafe fn copy_in(&self, at: VAddr, from: Addr, len: u64) -> Option<()> {
        self.writable(at, len)?;
        // SAFETY: the target was just checked, the source is the caller's word; `copy` allows them to overlap.
        unsafe { core::ptr::copy(from.as_ptr::<u8>(), self.bias.run_time(at).as_mut_ptr::<u8>(), len as usize) };
        Some(())
    }

    /// The segment to which `len` bytes at `at` may be written now.
    #[inline]
    pub fn writable(&self, at: VAddr, len: u64) -> Option<&Segment> {
        self.segment(at, len).filter(|s| s.prot.write || self.text_is_writable)
    }

    /// Whether an address lies in one of the segments.
    pub fn contains(&self, addr: Addr) -> bool {
        self.range.contains(&addr) && self.segments.iter().any(|s| s.memory.contains(&self.bias.link_time(addr)))
    }

    /// The page ranges between the segments.
    pub fn gaps(&self) -> impl Iterator<Item = Range<Addr>> + '_ {
        let run_time = |v| self.bias.run_time(v);
        self.segments
            .windows(2)
            .filter(|w| w[0].pages.end < w[1].pages.start)
            .map(move |w| run_time(w[0].pages.end)..run_time(w[1].pages.start))
    }

    /// A range of link-time addresses in the process.
    pub fn run_time(&self, range: &Range<VAddr>) -> Range<Addr> {
        self.bias.run_time(range.start)..self.bias.run_time(range.end)
    }

    /// Makes the read-only segments writable, for `DT_TEXTREL`, or restores their protections.
    pub fn set_text_writable(&mut self, writable: bool) -> Result<(), Errno> {
        for s in self.segments.iter().filter(|s| !s.prot.write) {
            let prot = if writable { Prot { exec: false, ..s.prot.writable() } } else { s.prot };
            // SAFETY: while relocations are applied no code of this object runs, and the protection of the segment is the right one
            // afterwards.
            unsafe { sys::protect(self.run_time(&s.pages), prot)? };
        }
        self.text_is_writable = writable;
        Ok(())
    }
}
