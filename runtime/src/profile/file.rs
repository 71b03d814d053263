//! The format of the file: that of gmon.out(5) with a version for shared objects.

use core::slice;
use core::sync::atomic::{AtomicU16, AtomicU32};
use loader::addr::{Addr, VAddr, PAGE_SIZE};
use loader::object::Object;

/// How many bytes of code a counter of the histogram stands for.
pub const BYTES_PER_BIN: u64 = 4;
/// Header, tag, and header of the histogram.
const HEADER: usize = 64;
/// An arc: caller, function, count.
pub const ARC: usize = 20;
/// `GMON_SHOBJ_VERSION`
const VERSION: u32 = 0x1ffff;
const TAG_HISTOGRAM: u32 = 0;
const TAG_ARCS: u32 = 1;

/// How large the parts of a file are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Geometry {
    /// Where the pages of code begin.
    pub low: VAddr,
    high: VAddr,
    histogram_size: u64,
    arc_limit: u64,
    /// Bytes.
    pub file_size: u64,
}

/// A mapped file.
pub struct Parts {
    /// The histogram.
    pub histogram: &'static [AtomicU16],
    /// The arcs.
    pub arcs: ArcTable,
}

/// The arcs of a mapped file.
#[derive(Clone, Copy)]
pub struct ArcTable {
    /// How many are in use.
    pub used: &'static AtomicU32,
    /// Where the first one is.
    pub first: Addr,
    /// How many there can be.
    pub limit: u32,
}

impl Geometry {
    /// For an object; `None` if it has no code.
    pub fn of(object: &Object) -> Option<Geometry> {
        let code = || object.image.segments.iter().filter(|s| s.prot.exec);
        let low = code().map(|s| s.memory.start.page_floor()).min()?;
        let high = code().map(|s| s.memory.end.0).max()?.checked_next_multiple_of(PAGE_SIZE)?;
        Geometry::between(low, VAddr(high))
    }

    fn between(low: VAddr, high: VAddr) -> Option<Geometry> {
        let text = high.0.checked_sub(low.0)?;
        let histogram_size = text / 2;
        let arc_limit = (text.checked_mul(3)? / 100).clamp(50, 1 << 20);
        // As in glibc there is room for sixteen times as many as are used.
        let file_size = (HEADER as u64 + 8).checked_add(histogram_size)?.checked_add(arc_limit * 16 * ARC as u64)?;
        Some(Geometry { low, high, histogram_size, arc_limit, file_size })
    }

    /// Bytes of code.
    pub fn text_size(&self) -> u64 {
        self.high.0 - self.low.0
    }

    fn header(&self) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        let mut put = |at: usize, part: &[u8]| bytes[at..at + part.len()].copy_from_slice(part);
        put(0, b"gmon");
        put(4, &VERSION.to_ne_bytes());
        put(20, &TAG_HISTOGRAM.to_ne_bytes());
        put(24, &self.low.0.to_ne_bytes());
        put(32, &self.high.0.to_ne_bytes());
        put(40, &((self.histogram_size / 2) as u32).to_ne_bytes());
        put(44, &super::FREQUENCY.to_ne_bytes());
        put(48, b"seconds");
        put(63, b"s");
        bytes
    }

    /// Takes a mapped file apart; writes the headers of a new one, and refuses an old one with others.
    ///
    /// # Safety
    /// `at` must be a mapping of `file_size` bytes that stays for ever, without references into it.
    pub unsafe fn split(&self, at: Addr, is_new: bool) -> Option<Parts> {
        let histogram_size = self.histogram_size as usize;
        let header = at.as_mut_ptr::<[u8; HEADER]>();
        let tag = Addr(at.0 + HEADER + histogram_size).as_mut_ptr::<u32>();
        // SAFETY: all of it lies within the file; other processes write counters only. The tag is aligned, since the code is whole pages.
        unsafe {
            if is_new {
                *header = self.header();
                *tag = TAG_ARCS;
            } else if *header != self.header() || *tag != TAG_ARCS {
                return None;
            }
            let histogram = Addr(at.0 + HEADER).as_mut_ptr::<AtomicU16>();
            let first = Addr(at.0 + HEADER + histogram_size + 8);
            let arcs = ArcTable { used: &*tag.add(1).cast(), first, limit: self.arc_limit as u32 };
            Some(Parts { histogram: slice::from_raw_parts(histogram, histogram_size / 2), arcs })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_those_of_glibc() {
        let geometry = Geometry::between(VAddr(0x1000), VAddr(0x2000)).unwrap();
        assert_eq!(geometry.file_size, 41160);
        assert_eq!(geometry.header()[40..48], [0, 4, 0, 0, 100, 0, 0, 0]);
    }
}
