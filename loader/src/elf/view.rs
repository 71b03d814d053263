//! A checked view of the memory of an object by link-time address.
//!
//! All tables of the dynamic section are found by link-time addresses. A [`View`] answers what bytes lie there, and nothing when
//! they would reach outside one loaded segment. Over a plain byte slice it serves tests and fuzzing; over a mapped image it is made
//! by [`crate::image::Image`].

use crate::addr::VAddr;
use alloc::vec::Vec;

/// The readable bytes of an object, as one piece per segment.
#[derive(Clone, Default, Debug)]
pub struct View<'a> {
    pieces: Vec<(u64, &'a [u8])>,
}

impl<'a> View<'a> {
    /// A view with no bytes.
    pub const fn new() -> View<'a> {
        View { pieces: Vec::new() }
    }

    /// Adds a segment whose first byte lies at `start`.
    pub fn push(&mut self, start: VAddr, bytes: &'a [u8]) {
        self.pieces.push((start.0, bytes));
    }

    /// All bytes from `at` to the end of the segment that holds it.
    pub fn tail(&self, at: VAddr) -> Option<&'a [u8]> {
        self.pieces.iter().find_map(|&(start, bytes)| {
            let skip = usize::try_from(at.0.checked_sub(start)?).ok()?;
            bytes.get(skip..).filter(|rest| !rest.is_empty())
        })
    }

    /// Exactly `len` bytes from `at`, if one segment holds them.
    pub fn bytes(&self, at: VAddr, len: u64) -> Option<&'a [u8]> {
        if len == 0 {
            return Some(&[]);
        }
        self.tail(at)?.get(..usize::try_from(len).ok()?)
    }
}

/// A little-endian `u16` at a byte offset.
pub fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(bytes.get(at..at.checked_add(2)?)?.try_into().ok()?))
}

/// A little-endian `u32` at a byte offset.
pub fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

/// A little-endian `u64` at a byte offset.
pub fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at.checked_add(8)?)?.try_into().ok()?))
}

/// The NUL-terminated string at a byte offset, without its NUL.
pub fn string_at(bytes: &[u8], at: usize) -> Option<&[u8]> {
    let rest = bytes.get(at..)?;
    rest.get(..rest.iter().position(|&b| b == 0)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_view_stays_inside_one_segment() {
        let mut view = View::new();
        view.push(VAddr(0x1000), b"abcd");
        view.push(VAddr(0x2000), b"efgh");
        assert_eq!(view.bytes(VAddr(0x1001), 2), Some(&b"bc"[..]));
        assert_eq!(view.bytes(VAddr(0x1003), 2), None);
        assert_eq!(view.tail(VAddr(0x2002)), Some(&b"gh"[..]));
        assert_eq!(view.tail(VAddr(0x1004)), None);
        assert_eq!(view.bytes(VAddr(u64::MAX), u64::MAX), None);
    }
}
