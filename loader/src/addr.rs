//! Typed addresses: where a byte lies in a file, in the link-time address space of an object, and in the running process.
//!
//! Mixing these up is the classic bug of a loader, so they are different types and only a [`Bias`] turns one into another.

use core::fmt;
use core::ops::Range;

/// The page size of x86-64, which `AT_PAGESZ` reports too (psABI, "Process Initialization").
pub const PAGE_SIZE: u64 = 4096;

/// A byte offset in an ELF file (`p_offset`).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct FileOffset(pub u64);

/// A link-time virtual address (`p_vaddr`, `st_value`, `r_offset`, `d_ptr`), before the load bias is added.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct VAddr(pub u64);

/// An address in the running process.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Addr(pub usize);

/// The difference between run-time and link-time addresses of one object (glibc's `l_addr`). It wraps, as in glibc: a
/// shared object linked at a high address and loaded at a low one has a "negative" bias.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Bias(pub u64);

impl VAddr {
    /// The start of the page that holds this address.
    pub const fn page_floor(self) -> VAddr {
        VAddr(self.0 & !(PAGE_SIZE - 1))
    }

    /// The first page boundary at or after this address; `None` past the end of the address space.
    pub const fn page_ceil(self) -> Option<VAddr> {
        match self.0.checked_add(PAGE_SIZE - 1) {
            Some(v) => Some(VAddr(v & !(PAGE_SIZE - 1))),
            None => None,
        }
    }

    /// This address plus `len` bytes; `None` on overflow.
    pub const fn checked_add(self, len: u64) -> Option<VAddr> {
        match self.0.checked_add(len) {
            Some(v) => Some(VAddr(v)),
            None => None,
        }
    }
}

impl Addr {
    /// The start of the page that holds this address.
    pub const fn page_floor(self) -> Addr {
        Addr(self.0 & !(PAGE_SIZE as usize - 1))
    }

    /// The first page boundary at or after this address (wraps to 0 at the very end of the address space).
    pub const fn page_ceil(self) -> Addr {
        Addr(self.0.wrapping_add(PAGE_SIZE as usize - 1) & !(PAGE_SIZE as usize - 1))
    }

    /// This address as a pointer.
    pub const fn as_ptr<T>(self) -> *const T {
        self.0 as *const T
    }

    /// This address as a mutable pointer.
    pub const fn as_mut_ptr<T>(self) -> *mut T {
        self.0 as *mut T
    }
}

impl Bias {
    /// The bias of an object whose link-time address `vaddr` is mapped at `addr`.
    pub const fn between(addr: Addr, vaddr: VAddr) -> Bias {
        Bias((addr.0 as u64).wrapping_sub(vaddr.0))
    }

    /// Where `vaddr` lies in the process.
    pub const fn run_time(self, vaddr: VAddr) -> Addr {
        Addr(self.0.wrapping_add(vaddr.0) as usize)
    }

    /// The link-time address of a run-time address of the same object.
    pub const fn link_time(self, addr: Addr) -> VAddr {
        VAddr((addr.0 as u64).wrapping_sub(self.0))
    }
}

impl fmt::Debug for Addr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

impl fmt::LowerHex for Addr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::LowerHex::fmt(&self.0, f)
    }
}

/// The length of an address range in bytes.
pub fn range_len(range: &Range<Addr>) -> usize {
    range.end.0.saturating_sub(range.start.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_round_both_ways() {
        assert_eq!(VAddr(0x1fff).page_floor(), VAddr(0x1000));
        assert_eq!(VAddr(0x1001).page_ceil(), Some(VAddr(0x2000)));
        assert_eq!(VAddr(0x1000).page_ceil(), Some(VAddr(0x1000)));
        assert_eq!(VAddr(u64::MAX).page_ceil(), None);
    }

    #[test]
    fn a_bias_wraps() {
        let bias = Bias::between(Addr(0x1000), VAddr(0x40_0000));
        assert_eq!(bias.run_time(VAddr(0x40_0010)), Addr(0x1010));
        assert_eq!(bias.link_time(Addr(0x1010)), VAddr(0x40_0010));
    }
}
