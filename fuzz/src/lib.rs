//! What several fuzz targets need: reading choices off the front of the input, and an ELF file laid out as its segments say.

use loader::addr::VAddr;
use loader::elf::header::{self, ProgramHeader};
use loader::elf::view::View;

/// Splits the input at its first NUL: two texts out of one input.
pub fn two_texts(input: &[u8]) -> (&[u8], &[u8]) {
    let mut parts = input.splitn(2, |&byte| byte == 0);
    (parts.next().unwrap_or_default(), parts.next().unwrap_or_default())
}

/// Whether `part` is a piece of `whole`, by address.
pub fn lies_in(part: &[u8], whole: &[u8]) -> bool {
    let whole = whole.as_ptr_range();
    let part = part.as_ptr_range();
    whole.start <= part.start && part.end <= whole.end
}

/// The input as a file in memory, aligned as a mapping would be.
pub struct File {
    words: Vec<u64>,
    len: usize,
}

impl File {
    /// Copies the input.
    pub fn new(input: &[u8]) -> File {
        let word = |chunk: &[u8]| {
            let mut bytes = [0; 8];
            bytes[..chunk.len()].copy_from_slice(chunk);
            u64::from_ne_bytes(bytes)
        };
        File { words: input.chunks(8).map(word).collect(), len: input.len() }
    }

    /// Its bytes.
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: the words are initialised, bytes have no alignment, and `len` is at most eight per word.
        unsafe { core::slice::from_raw_parts(self.words.as_ptr().cast(), self.len) }
    }

    /// Its program headers, if the ELF header is good and they lie in the file.
    pub fn program_headers(&self) -> Option<Vec<ProgramHeader>> {
        let parsed = header::parse(self.bytes()).ok()?;
        let range = parsed.program_headers()?;
        let table = self.bytes().get(usize::try_from(range.start).ok()?..usize::try_from(range.end).ok()?)?;
        (0..parsed.phnum).map(|index| header::program_header(table, index)).collect()
    }

    /// The bytes of a segment, as far as the file has them.
    pub fn segment(&self, segment: &ProgramHeader) -> &[u8] {
        let range = usize::try_from(segment.p_offset).ok().and_then(|start| {
            let size = usize::try_from(segment.p_filesz).ok()?;
            Some(start..start.checked_add(size)?)
        });
        range.and_then(|range| self.bytes().get(range)).unwrap_or_default()
    }

    /// A view of the file's PT_LOAD segments at their link-time addresses.
    pub fn view(&self, headers: &[ProgramHeader]) -> View<'_> {
        let mut view = View::new();
        for segment in headers.iter().filter(|h| h.p_type == 1) {
            view.push(VAddr(segment.p_vaddr), self.segment(segment));
        }
        view
    }
}
