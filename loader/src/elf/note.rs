//! Notes: what a file says to those who know the owner's name (gABI, "Note Section").

#![deny(unsafe_code)]

use super::view::u32_at;

/// Size of the three words before a note's name.
const HEADER: usize = 12;

/// The owner of this project's own notes.
pub const OWNER: &[u8] = b"ldseal\0";

/// Type of the note by which an object opts out of sealing. It has no description.
pub const NO_SEAL: u32 = 1;

/// One note.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Note<'n> {
    /// Whose type it is; with the terminating zero, where there is one.
    pub owner: &'n [u8],
    /// What it says, by the owner's list.
    pub kind: u32,
    /// What it says it about.
    pub description: &'n [u8],
}

/// The notes of a PT_NOTE or PT_GNU_PROPERTY of alignment `align` (`p_align`), up to the first that is malformed. Alignments other than
/// 4 and 8 hold none.
pub fn notes(bytes: &[u8], align: u64) -> Notes<'_> {
    let align = match align {
        8 => 8,
        // Older linkers write 0 and 1 and mean 4.
        0 | 1 | 4 => 4,
        _ => return Notes { rest: b"", align: 4 },
    };
    Notes { rest: bytes, align }
}

/// Iterator of [`notes`].
#[derive(Clone, Debug)]
pub struct Notes<'n> {
    rest: &'n [u8],
    align: usize,
}

impl<'n> Iterator for Notes<'n> {
    type Item = Note<'n>;

    fn next(&mut self) -> Option<Note<'n>> {
        let rest = core::mem::take(&mut self.rest);
        let name_size = usize::try_from(u32_at(rest, 0)?).ok()?;
        let description_size = usize::try_from(u32_at(rest, 4)?).ok()?;
        let kind = u32_at(rest, 8)?;
        let name_end = HEADER.checked_add(name_size)?;
        let owner = rest.get(HEADER..name_end)?;
        let start = name_end.checked_next_multiple_of(self.align)?;
        let end = start.checked_add(description_size)?;
        // A note without description may end where its name does.
        let description = if description_size == 0 { &[][..] } else { rest.get(start..end)? };
        self.rest = end.checked_next_multiple_of(self.align).and_then(|next| rest.get(next..)).unwrap_or_default();
        Some(Note { owner, kind, description })
    }
}

/// Whether the notes hold the one that opts out of sealing.
#[must_use]
pub fn opts_out(bytes: &[u8], align: u64) -> bool {
    notes(bytes, align).any(|note| note.owner == OWNER && note.kind == NO_SEAL)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec::Vec;

    fn note(owner: &[u8], kind: u32, description: &[u8], align: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        for word in [owner.len() as u32, description.len() as u32, kind] {
            bytes.extend_from_slice(&word.to_le_bytes());
        }
        for part in [owner, description] {
            bytes.extend_from_slice(part);
            bytes.resize(bytes.len().next_multiple_of(align), 0);
        }
        bytes
    }

    #[test]
    fn notes_are_read_in_both_alignments() {
        for align in [4, 8] {
            let bytes = [note(b"GNU\0", 3, &[1; 20], align), note(OWNER, NO_SEAL, b"", align)].concat();
            let found: Vec<u32> = notes(&bytes, align as u64).map(|n| n.kind).collect();
            assert_eq!(found, [3, 1]);
            assert!(opts_out(&bytes, align as u64));
            assert!(!opts_out(&bytes[..bytes.len() - align], align as u64));
        }
    }

    #[test]
    fn other_notes_opt_out_of_nothing() {
        for other in [note(b"ldseal", NO_SEAL, b"", 4), note(OWNER, 2, b"", 4), note(b"GNU\0", NO_SEAL, b"", 4)] {
            assert!(!opts_out(&other, 4));
        }
        assert!(!opts_out(&note(OWNER, NO_SEAL, b"", 4), 16));
    }

    proptest! {
        #[test]
        fn any_bytes_give_an_answer(bytes: Vec<u8>, align in 0u64..17) {
            let _ = opts_out(&bytes, align);
            prop_assert!(notes(&bytes, align).count() <= bytes.len());
        }
    }
}
