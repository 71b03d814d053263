//! Thread-local storage of the objects, and where it lies relative to the thread pointer.
//!
//! "ELF Handling For Thread-Local Storage", variant II: the static TLS block lies below the thread pointer, and an object's part of it
//! starts at `tp - offset`.

use crate::addr::{Addr, VAddr};
use crate::elf::header::{self, ProgramHeader};
use crate::error::Reason;
use crate::image::Image;
use crate::rule::{holds, Rule};
use goblin::elf64::program_header::PT_TLS;

/// `PT_TLS` of an object.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TlsSegment {
    /// Run-time address of the initialisation image.
    pub image: Addr,
    /// Bytes of the initialisation image; the rest of the block is zero.
    pub image_size: u64,
    /// Bytes of the block.
    pub block_size: u64,
    /// Alignment, a power of two.
    pub align: u64,
    /// What the block's first address is modulo its alignment.
    pub first_byte: u64,
}

/// What an object's TLS is called by others.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TlsState {
    /// It has none.
    None,
    /// It has a module id, and its blocks are allocated when a thread first touches them, unless someone needs them to be static.
    Undecided {
        /// Module id, from 1.
        module: usize,
    },
    /// A part of the static TLS block of every thread.
    Static {
        /// Module id, from 1.
        module: usize,
        /// Distance of its block below the thread pointer.
        offset: u64,
    },
    /// Some thread already has an allocated block, so it can't become static any more.
    Dynamic {
        /// Module id, from 1.
        module: usize,
    },
}

impl TlsState {
    /// The module id, 0 if the object has no TLS.
    pub fn module(self) -> usize {
        match self {
            TlsState::None => 0,
            TlsState::Undecided { module } | TlsState::Static { module, .. } | TlsState::Dynamic { module } => module,
        }
    }

    /// The distance below the thread pointer of a static block.
    pub fn static_offset(self) -> Option<u64> {
        match self {
            TlsState::Static { offset, .. } => Some(offset),
            _ => None,
        }
    }
}

impl TlsSegment {
    /// Reads `PT_TLS`; `None` if there is none or it is empty.
    pub fn find(headers: &[ProgramHeader], image: &Image) -> Result<Option<TlsSegment>, Reason> {
        let Some(h) = header::find(headers, PT_TLS).filter(|h| h.p_memsz > 0) else {
            return Ok(None);
        };
        let bad = |what| Reason::Malformed { what, at: h.p_vaddr };
        let align = h.p_align.max(1);
        if !align.is_power_of_two() || align > 1 << 30 {
            return Err(bad("PT_TLS with an alignment that is not a power of two, or too large"));
        }
        if h.p_filesz > h.p_memsz || h.p_memsz > 1 << 40 {
            return Err(bad("PT_TLS with an impossible size"));
        }
        if h.p_filesz > 0 && image.segment(VAddr(h.p_vaddr), h.p_filesz).is_none_or(|s| !s.prot.read) {
            return Err(bad("PT_TLS outside its segment"));
        }
        Ok(Some(TlsSegment {
            image: image.bias.run_time(VAddr(h.p_vaddr)),
            image_size: h.p_filesz,
            block_size: h.p_memsz,
            align,
            first_byte: h.p_vaddr & (align - 1),
        }))
    }
}

/// The static TLS block as it grows downwards from the thread pointer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct StaticLayout {
    /// Bytes in use below the thread pointer.
    pub used: u64,
    /// The largest alignment so far.
    pub align: u64,
}

impl StaticLayout {
    /// Nothing placed yet; `align` is what the thread control block itself needs.
    pub const fn new(align: u64) -> StaticLayout {
        StaticLayout { used: 0, align }
    }

    /// Places the next block; its distance below the thread pointer. `None` when the numbers overflow.
    ///
    /// The least offset not below what is used such that the block's first byte has its alignment: the formula of variant II, as glibc
    /// applies it (without filling gaps, so that a layout depends on the order of the objects only).
    pub fn place(&mut self, tls: &TlsSegment) -> Option<u64> {
        let first = tls.first_byte.wrapping_neg() & (tls.align - 1);
        let end = self.used.checked_add(tls.block_size)?.checked_sub(first.min(self.used + tls.block_size))?;
        let align = if holds(Rule::TlsAlignment) { tls.align } else { 1 };
        let offset = end.checked_add(align - 1)? & !(align - 1);
        let offset = offset.checked_add(first)?;
        self.used = offset;
        self.align = self.align.max(tls.align);
        Some(offset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tls(block_size: u64, align: u64, first_byte: u64) -> TlsSegment {
        TlsSegment { image: Addr(0), image_size: 0, block_size, align, first_byte }
    }

    #[test]
    fn a_known_layout() {
        // A program with 116 bytes of TLS aligned to 16, then glibc 2.36's libc with 144 aligned to 8: offsets 128 and 272.
        let mut layout = StaticLayout::new(64);
        assert_eq!(layout.place(&tls(116, 16, 0)), Some(128));
        assert_eq!(layout.place(&tls(144, 8, 0)), Some(272));
        assert_eq!(layout.used, 272);
    }

    proptest::proptest! {
        #[test]
        fn blocks_are_aligned_and_disjoint(raw in proptest::collection::vec((1u64..300, 0u32..8, 0u64..300), 1..8)) {
            let mut layout = StaticLayout::new(64);
            let mut before = 0;
            for (size, shift, first) in raw {
                let align = 1 << shift;
                let block = tls(size, align, first & (align - 1));
                let offset = layout.place(&block).expect("fits");
                assert!(offset >= before + size);
                // The thread pointer is aligned to at least `align`.
                assert_eq!(offset.wrapping_neg() & (align - 1), block.first_byte);
                before = offset;
            }
        }
    }
}
