//! What to map for a file, and how: a pure function of its program headers.
//!
//! gABI chapter 5 ("Program Loading"). A [`MapPlan`] lists the page ranges of an image in ascending order, each with where its bytes
//! come from and its protection. RELRO pages come as copies in anonymous memory: the kernel refuses to discard sealed read-only
//! pages only there, while file-backed ones would fall back to their unrelocated bytes.

use crate::addr::{VAddr, PAGE_SIZE};
use crate::elf::header::ProgramHeader;
use crate::error::Reason;
use crate::relro::{self, RelroPages};
use crate::rule::{holds, Rule};
use crate::sys::Prot;
use alloc::vec::Vec;
use core::ops::Range;
use goblin::elf64::header::ET_EXEC;
use goblin::elf64::program_header::{PF_X, PT_LOAD};

/// glibc's words for memory that a segment can't have.
pub const NO_SEGMENT: &str = "failed to map segment from shared object";

/// Where the bytes of a region come from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Source {
    /// A private mapping of the file from this offset.
    File {
        /// Page-aligned file offset.
        offset: u64,
    },
    /// Anonymous memory into which the bytes of the file are copied.
    Copy {
        /// File offset of the region's first byte.
        offset: u64,
        /// How many bytes; the rest of the region is zero.
        len: u64,
    },
    /// Anonymous memory.
    Zero,
}

/// A run of pages of an image that one system call maps.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Region {
    /// Whole pages, in link-time addresses.
    pub pages: Range<VAddr>,
    /// Where the bytes come from.
    pub source: Source,
    /// The protection of the segment; RELRO is taken from it later.
    pub prot: Prot,
    /// First byte of the region's last page that must read as zero though the file has bytes there.
    pub zero_from: Option<VAddr>,
}

/// How a file's image is laid out.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MapPlan {
    /// Whole pages from the first to the last segment, gaps included.
    pub span: Range<VAddr>,
    /// The largest segment alignment, at least a page.
    pub align: u64,
    /// Whether the image must lie at its link-time addresses (`ET_EXEC`).
    pub fixed: bool,
    /// The regions in ascending order.
    pub regions: Vec<Region>,
    /// What RELRO will protect.
    pub relro: Option<RelroPages>,
}

/// Up to how many bytes of `.data` ride along in the anonymous copy of RELRO: they share a page with the GOT's tail and are written at
/// start-up anyway, and one mapping less is cheaper than the page or two that might have stayed clean.
const SMALL_DATA: u64 = 2 * PAGE_SIZE;

/// Plans the image of a file of `file_size` bytes.
pub fn plan(e_type: u16, headers: &[ProgramHeader], file_size: u64) -> Result<MapPlan, Reason> {
    let mut segments = Vec::new();
    for h in headers.iter().filter(|h| h.p_type == PT_LOAD) {
        segments.push(Segment::check(h, file_size)?);
    }
    if segments.is_empty() {
        return Err(Reason::Fault("object file has no loadable segments"));
    }
    segments.retain(|s| s.mem.start < s.mem.end);
    if let [first, .., last] = segments.as_slice() {
        // glibc asks for the memory from the first segment to the last before it looks at what is between.
        if last.mem.end <= first.pages.start {
            return Err(Reason::Fault(NO_SEGMENT));
        }
    }
    for pair in segments.windows(2) {
        if pair[1].pages.start < pair[0].pages.end {
            return Err(disorder(e_type, &segments, pair[1].mem.start));
        }
    }
    let (Some(first), Some(last)) = (segments.first(), segments.last()) else {
        return Err(Reason::Fault("object file has no loadable segments"));
    };
    let span = first.pages.start..last.pages.end;
    let align = segments.iter().map(|s| s.align).max().unwrap_or(PAGE_SIZE);
    let relro = relro::pages(headers)?;
    let mut regions = Vec::with_capacity(segments.len() + 2);
    for segment in &segments {
        segment.lay_out(relro.as_ref(), &mut regions);
    }
    Ok(MapPlan { span, align, fixed: e_type == ET_EXEC, regions, relro })
}

/// What is said of segments that share pages, or do not ascend to the one that starts at `at`: in a shared object whose last starts on a page
/// that bytes of the first lie in, glibc takes the alignment for the cause.
fn disorder(e_type: u16, segments: &[Segment], at: VAddr) -> Reason {
    let all_in_first = match segments {
        [first, .., last] => first.file_end.page_ceil().is_some_and(|end| last.pages.start < end),
        _ => false,
    };
    if all_in_first && e_type != ET_EXEC {
        return Reason::Fault("ELF load command address/offset not page-aligned");
    }
    Reason::Malformed { what: "ELF load commands overlap or are not in ascending order", at: at.0 }
}

/// A `PT_LOAD` whose numbers have been checked.
struct Segment {
    /// Memory: from `p_vaddr` for `p_memsz` bytes.
    mem: Range<VAddr>,
    /// The same, rounded out to pages.
    pages: Range<VAddr>,
    /// End of what the file provides.
    file_end: VAddr,
    /// File offset of the start of the first page.
    offset: u64,
    prot: Prot,
    align: u64,
}

impl Segment {
    fn check(h: &ProgramHeader, file_size: u64) -> Result<Segment, Reason> {
        let bad = |what| Reason::Malformed { what, at: h.p_vaddr };
        // As glibc 2.36: pages are what must fit, an alignment that is no power of two has no effect, and of a greater one only the address
        // that the object is given takes notice.
        let align = if h.p_align.is_power_of_two() { h.p_align.max(PAGE_SIZE) } else { PAGE_SIZE };
        if (h.p_vaddr.wrapping_sub(h.p_offset)) & (PAGE_SIZE - 1) != 0 {
            return Err(Reason::Fault("ELF load command address/offset not page-aligned"));
        }
        if h.p_filesz > h.p_memsz {
            return Err(bad("ELF load command with more bytes in the file than in memory"));
        }
        let start = VAddr(h.p_vaddr);
        // There is no such memory.
        let end = start.checked_add(h.p_memsz).ok_or(Reason::Fault(NO_SEGMENT))?;
        let page_end = end.page_ceil().filter(|end| end.0 <= USER_SPACE_END).ok_or(Reason::Fault(NO_SEGMENT))?;
        if h.p_offset.checked_add(h.p_filesz).is_none_or(|e| h.p_filesz > 0 && e > file_size) {
            return Err(Reason::Fault("file too short"));
        }
        let offset = h.p_offset - (h.p_vaddr & (PAGE_SIZE - 1)).min(h.p_offset);
        Ok(Segment {
            mem: start..end,
            pages: start.page_floor()..page_end,
            file_end: VAddr(h.p_vaddr + h.p_filesz),
            offset,
            prot: Prot::from_segment_flags(if holds(Rule::SegmentProtection) { h.p_flags } else { h.p_flags | PF_X }),
            align,
        })
    }

    /// File offset of a page of this segment.
    fn offset_of(&self, page: VAddr) -> u64 {
        self.offset + (page.0 - self.pages.start.0)
    }

    fn lay_out(&self, relro: Option<&RelroPages>, regions: &mut Vec<Region>) {
        let has_file = self.file_end > self.mem.start;
        // `file_end` is at most the end of memory, whose page end exists.
        let file_pages_end =
            if has_file { self.file_end.page_ceil().unwrap_or(self.pages.end) } else { self.pages.start };
        let copy_end = self.copy_end(relro, file_pages_end);
        if copy_end > self.pages.start {
            let len = self.file_end.0.min(copy_end.0) - self.pages.start.0;
            self.push(regions, self.pages.start..copy_end, Source::Copy { offset: self.offset, len }, None);
        }
        let from = copy_end.max(self.pages.start);
        if from < file_pages_end {
            let partial = self.file_end < file_pages_end && self.mem.end > self.file_end;
            let zero_from = partial.then_some(self.file_end);
            self.push(regions, from..file_pages_end, Source::File { offset: self.offset_of(from) }, zero_from);
        }
        let zero_start = from.max(file_pages_end);
        if zero_start < self.pages.end {
            self.push(regions, zero_start..self.pages.end, Source::Zero, None);
        }
    }

    /// Up to where this segment's file pages are copied into anonymous memory, the start of the segment if not at all.
    fn copy_end(&self, relro: Option<&RelroPages>, file_pages_end: VAddr) -> VAddr {
        let none = self.pages.start;
        if file_pages_end <= none {
            return none;
        }
        if !self.prot.write {
            // The file's bytes after p_filesz must read as zero, and a read-only page of the file can't be cleared.
            let cleared = self.mem.end > self.file_end && self.file_end < file_pages_end;
            return if cleared { file_pages_end } else { none };
        }
        match relro {
            Some(relro) if relro.start < self.pages.end && relro.end > self.pages.start => {
                let data = file_pages_end.0.saturating_sub(relro.end.0);
                if data <= SMALL_DATA {
                    file_pages_end
                } else {
                    relro.end.min(file_pages_end)
                }
            }
            _ => none,
        }
    }

    fn push(&self, regions: &mut Vec<Region>, pages: Range<VAddr>, source: Source, zero_from: Option<VAddr>) {
        regions.push(Region { pages, source, prot: self.prot, zero_from });
    }
}

impl MapPlan {
    /// The same image with nothing of the file mapped: its bytes are copied into anonymous memory. `file_size` is the file's.
    #[must_use]
    pub fn copied(mut self, file_size: u64) -> MapPlan {
        for region in &mut self.regions {
            if let Source::File { offset } = region.source {
                let pages = region.pages.end.0 - region.pages.start.0;
                region.source = Source::Copy { offset, len: pages.min(file_size.saturating_sub(offset)) };
            }
        }
        self
    }
}

/// The end of user space with four-level page tables.
const USER_SPACE_END: u64 = 0x7fff_ffff_f000;

impl MapPlan {
    /// Length of the image in bytes.
    pub fn len(&self) -> u64 {
        self.span.end.0 - self.span.start.0
    }

    /// Whether the image is empty, which no valid file's is.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The page ranges between regions, which nothing of the file occupies.
    pub fn gaps(&self) -> impl Iterator<Item = Range<VAddr>> + '_ {
        self.regions.windows(2).filter(|w| w[0].pages.end < w[1].pages.start).map(|w| w[0].pages.end..w[1].pages.start)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use goblin::elf64::program_header::PT_GNU_RELRO;

    fn load(p_flags: u32, p_offset: u64, p_vaddr: u64, p_filesz: u64, p_memsz: u64) -> ProgramHeader {
        ProgramHeader { p_type: PT_LOAD, p_flags, p_offset, p_vaddr, p_paddr: 0, p_filesz, p_memsz, p_align: 0x1000 }
    }

    fn relro(p_vaddr: u64, p_memsz: u64) -> ProgramHeader {
        ProgramHeader { p_type: PT_GNU_RELRO, p_vaddr, p_memsz, ..ProgramHeader::default() }
    }

    #[test]
    fn a_usual_library() {
        let headers = [
            load(4, 0, 0, 0x800, 0x800),
            load(5, 0x1000, 0x1000, 0x1800, 0x1800),
            load(6, 0x2d00, 0x3d00, 0x5300, 0x7000),
            relro(0x3d00, 0x300),
        ];
        let plan = plan(3, &headers, 0x9000).expect("valid");
        assert_eq!(plan.span, VAddr(0)..VAddr(0xb000));
        let kinds: Vec<_> = plan.regions.iter().map(|r| (r.pages.start.0, r.pages.end.0, r.source)).collect();
        assert_eq!(
            kinds,
            [
                (0, 0x1000, Source::File { offset: 0 }),
                (0x1000, 0x3000, Source::File { offset: 0x1000 }),
                (0x3000, 0x4000, Source::Copy { offset: 0x2000, len: 0x1000 }),
                (0x4000, 0x9000, Source::File { offset: 0x3000 }),
                (0x9000, 0xb000, Source::Zero),
            ]
        );
        // The file's bytes end exactly on a page, so nothing of it needs clearing.
        assert_eq!(plan.regions[3].zero_from, None);
    }

    #[test]
    fn small_data_rides_along_with_relro() {
        let headers = [load(6, 0, 0, 0x1800, 0x3000), relro(0, 0x1000)];
        let plan = plan(3, &headers, 0x1800).expect("valid");
        assert_eq!(plan.regions[0].source, Source::Copy { offset: 0, len: 0x1800 });
        assert_eq!(plan.regions[0].pages, VAddr(0)..VAddr(0x2000));
        assert_eq!(plan.regions[1].source, Source::Zero);
    }

    #[test]
    fn what_cannot_be_mapped_is_refused() {
        let over = |h: &[ProgramHeader]| plan(3, h, 0x10000).expect_err("refused");
        assert_eq!(over(&[]), Reason::Fault("object file has no loadable segments"));
        over(&[load(4, 0, 0x1000, 0x1000, 0x1000), load(4, 0, 0, 0x1000, 0x1000)]);
        over(&[load(4, 0, 0, 0x1001, 0x1001), load(4, 0x1000, 0x1000, 0x1000, 0x1000)]);
        let fault = Reason::Fault("failed to map segment from shared object");
        assert_eq!(over(&[load(4, 0, 0, 0x800, 0x800), load(4, 0, u64::MAX - 0x1fff, 0x800, 0x800)]), fault);
        assert_eq!(
            over(&[load(4, 0, 0x3000, 0x800, 0x800), load(6, 0, 0x8000, 8, 8), load(4, 0, 0, 0x800, 0x800)]),
            fault
        );
        over(&[load(4, 0, 0, 0x2000, 0x1000)]);
        over(&[load(4, 0, 0, 0x20000, 0x20000)]);
        over(&[load(4, 0, u64::MAX - 0xfff, 0, 0x2000)]);
        over(&[load(4, 0x10, 0, 0x10, 0x10)]);
    }

    #[test]
    fn real_libraries_agree_with_goblin() {
        for path in ["/lib/x86_64-linux-gnu/libc.so.6", "/lib/x86_64-linux-gnu/libm.so.6", "/proc/self/exe"] {
            let bytes = std::fs::read(path).expect("readable");
            let elf = goblin::elf::Elf::parse(&bytes).expect("parses");
            let headers: Vec<ProgramHeader> = elf.program_headers.iter().map(|p| p.clone().into()).collect();
            let plan = plan(elf.header.e_type, &headers, bytes.len() as u64).expect("valid");
            for p in elf.program_headers.iter().filter(|p| p.p_type == PT_LOAD) {
                for at in [p.p_vaddr, p.p_vaddr + p.p_memsz - 1] {
                    let region = plan.regions.iter().find(|r| r.pages.contains(&VAddr(at))).expect("covered");
                    assert_eq!(region.prot, Prot::from_segment_flags(p.p_flags));
                    let want = at - p.p_vaddr + p.p_offset;
                    match region.source {
                        Source::File { offset } if at < p.p_vaddr + p.p_filesz => {
                            assert_eq!(offset + at - region.pages.start.0, want);
                        }
                        Source::Copy { offset, len } if at < p.p_vaddr + p.p_filesz => {
                            assert!(at - region.pages.start.0 < len);
                            assert_eq!(offset + at - region.pages.start.0, want);
                        }
                        _ => assert!(at >= p.p_vaddr + p.p_filesz),
                    }
                }
            }
        }
    }

    proptest::proptest! {
        #[test]
        fn a_plan_is_ascending_and_inside_its_span(
            raw in proptest::collection::vec((0u32..8, 0u64..8, 0u64..16, 0u64..0x3000, 0u64..0x3000), 0..5),
            ro in (0u64..0x10000, 0u64..0x8000)
        ) {
            let mut headers: Vec<ProgramHeader> = raw.iter()
                .map(|&(f, o, v, fs, ms)| load(f, o * 0x1000 + 0x10, v * 0x1000 + 0x10, fs, ms)).collect();
            headers.push(relro(ro.0, ro.1));
            if let Ok(plan) = plan(3, &headers, 0x10000) {
                let mut at = plan.span.start;
                for r in &plan.regions {
                    assert!(at <= r.pages.start && r.pages.start < r.pages.end && r.pages.end <= plan.span.end);
                    at = r.pages.end;
                }
            }
        }
    }
}
