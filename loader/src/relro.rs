//! Which pages `PT_GNU_RELRO` makes read-only.
//!
//! The rule is glibc's: both ends are rounded *down*, so a page that RELRO shares with what follows it stays writable, and one that it
//! shares with what precedes it becomes read-only. The linker aligns the start, so in practice nothing precedes it. When a file
//! has several such headers the last one counts.

use crate::addr::VAddr;
use crate::elf::header::ProgramHeader;
use crate::error::Reason;
use core::ops::Range;
use goblin::elf64::program_header::{PF_W, PF_X, PT_GNU_RELRO, PT_LOAD};

/// Whole pages, in link-time addresses, that are read-only once the object is relocated.
pub type RelroPages = Range<VAddr>;

/// The pages that RELRO protects; `None` when there is no such header or it covers no whole page.
///
/// # Errors
/// A header that does not lie in one writable `PT_LOAD` of the file.
pub fn pages(headers: &[ProgramHeader]) -> Result<Option<RelroPages>, Reason> {
    let Some(relro) = headers.iter().rev().find(|h| h.p_type == PT_GNU_RELRO) else {
        return Ok(None);
    };
    if relro.p_memsz == 0 {
        return Ok(None);
    }
    let bad = || Reason::Malformed { what: "PT_GNU_RELRO outside its segment", at: relro.p_vaddr };
    let end = relro.p_vaddr.checked_add(relro.p_memsz).ok_or_else(bad)?;
    // ld rounds the size of the header up to a page, which can pass the end of the segment's memory but not of its last page.
    let covers = |h: &&ProgramHeader| {
        let Some(load_end) = h.p_vaddr.checked_add(h.p_memsz).and_then(|e| VAddr(e).page_ceil()) else {
            return false;
        };
        h.p_type == PT_LOAD && h.p_memsz > 0 && h.p_vaddr <= relro.p_vaddr && end <= load_end.0
    };
    let segment = headers.iter().find(covers).ok_or_else(bad)?;
    if segment.p_flags & PF_X != 0 && segment.p_flags & PF_W == 0 {
        return Err(bad());
    }
    if segment.p_flags & PF_W == 0 {
        // Nothing to take away.
        return Ok(None);
    }
    let pages = VAddr(relro.p_vaddr).page_floor()..VAddr(end).page_floor();
    Ok((pages.start < pages.end).then_some(pages))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(p_type: u32, p_flags: u32, p_vaddr: u64, p_memsz: u64) -> ProgramHeader {
        ProgramHeader { p_type, p_flags, p_vaddr, p_memsz, ..ProgramHeader::default() }
    }

    #[test]
    fn both_ends_round_down() {
        let headers = [header(PT_LOAD, 6, 0x3d00, 0x1400), header(PT_GNU_RELRO, 4, 0x3d00, 0x300)];
        assert_eq!(pages(&headers), Ok(Some(VAddr(0x3000)..VAddr(0x4000))));
        let short = [header(PT_LOAD, 6, 0x3d00, 0x1400), header(PT_GNU_RELRO, 4, 0x3d00, 0x200)];
        assert_eq!(pages(&short), Ok(None));
    }

    #[test]
    fn the_last_of_several_counts() {
        let headers = [
            header(PT_LOAD, 6, 0x3000, 0x3000),
            header(PT_GNU_RELRO, 4, 0x3000, 0x1000),
            header(PT_GNU_RELRO, 4, 0x4000, 0x1000),
        ];
        assert_eq!(pages(&headers), Ok(Some(VAddr(0x4000)..VAddr(0x5000))));
    }

    #[test]
    fn a_segment_without_memory_holds_nothing() {
        let headers = [header(PT_LOAD, 6, 0x3db8, 0), header(PT_GNU_RELRO, 4, 0x3db8, 0x248)];
        assert!(pages(&headers).is_err());
    }

    #[test]
    fn outside_the_segment_is_refused() {
        let load = header(PT_LOAD, 6, 0x3000, 0x1000);
        assert!(pages(&[load, header(PT_GNU_RELRO, 4, 0x2000, 0x1000)]).is_err());
        assert!(pages(&[load, header(PT_GNU_RELRO, 4, 0x3000, 0x2000)]).is_err());
        assert!(pages(&[load, header(PT_GNU_RELRO, 4, 0x3000, u64::MAX)]).is_err());
    }
}
