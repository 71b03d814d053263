//! Headers of ELF files on disk, read piece by piece: a program can be huge, its headers are not.

use goblin::container::{Container, Ctx, Endian};
use goblin::elf::header::{self, Header};
use goblin::elf::program_header::{ProgramHeader, PT_INTERP};
use goblin::elf::Elf;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// The first bytes of an ELF file.
pub const MAGIC: &[u8] = header::ELFMAG;

/// The kernel takes no more program headers than fit here (`load_elf_phdrs`).
const PROGRAM_HEADERS: usize = 65536;
/// PATH_MAX: the longest interpreter the kernel takes.
const INTERPRETER: u64 = 4096;

/// Reads exactly so many bytes at an offset.
pub trait ReadAt {
    /// # Errors
    /// The file's, and `UnexpectedEof` when it is shorter.
    fn read_at(&self, offset: u64, length: usize) -> io::Result<Vec<u8>>;
}

impl ReadAt for File {
    fn read_at(&self, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        // The end is looked at first: a header may claim any length.
        let end = offset.checked_add(length as u64).ok_or(io::ErrorKind::UnexpectedEof)?;
        if end > self.metadata()?.len() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut bytes = vec![0; length];
        self.read_exact_at(&mut bytes, offset)?;
        Ok(bytes)
    }
}

impl ReadAt for [u8] {
    fn read_at(&self, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        let start = usize::try_from(offset).map_err(|_| io::ErrorKind::UnexpectedEof)?;
        let end = start.checked_add(length).ok_or(io::ErrorKind::UnexpectedEof)?;
        Ok(self.get(start..end).ok_or(io::ErrorKind::UnexpectedEof)?.to_vec())
    }
}

/// File header and program headers of an executable or shared object.
pub struct Headers {
    /// The file header.
    pub file: Header,
    /// The program headers.
    pub segments: Vec<ProgramHeader>,
}

impl Headers {
    /// Reads those of a file of 64 bits, little endian; None when the kernel would not load it.
    pub fn read(file: &(impl ReadAt + ?Sized)) -> Option<Headers> {
        let bytes = file.read_at(0, header::header64::SIZEOF_EHDR).ok()?;
        let identified = bytes.starts_with(MAGIC)
            && bytes[header::EI_CLASS] == header::ELFCLASS64
            && bytes[header::EI_DATA] == header::ELFDATA2LSB;
        let head = identified.then(|| Elf::parse_header(&bytes).ok())??;
        let (size, count) = (usize::from(head.e_phentsize), usize::from(head.e_phnum));
        let loadable = head.e_type == header::ET_EXEC || head.e_type == header::ET_DYN;
        if !loadable
            || size != goblin::elf64::program_header::SIZEOF_PHDR
            || !(1..=PROGRAM_HEADERS / size).contains(&count)
        {
            return None;
        }
        let bytes = file.read_at(head.e_phoff, size * count).ok()?;
        let segments = ProgramHeader::parse(&bytes, 0, count, Ctx::new(Container::Big, Endian::Little)).ok()?;
        Some(Headers { file: head, segments })
    }

    /// The first program header of a type.
    pub fn segment(&self, p_type: u32) -> Option<&ProgramHeader> {
        self.segments.iter().find(|segment| segment.p_type == p_type)
    }

    /// PT_INTERP. `Ok(None)` when there is none.
    ///
    /// # Errors
    /// When the kernel would not take it.
    pub fn interpreter(&self, file: &(impl ReadAt + ?Sized)) -> io::Result<Option<String>> {
        let Some(segment) = self.segment(PT_INTERP) else { return Ok(None) };
        if !(2..=INTERPRETER).contains(&segment.p_filesz) {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let mut path = file.read_at(segment.p_offset, segment.p_filesz as usize)?;
        if path.pop() != Some(0) {
            return Err(io::ErrorKind::InvalidData.into());
        }
        path.truncate(path.iter().position(|&byte| byte == 0).unwrap_or(path.len()));
        Ok(Some(String::from_utf8_lossy(&path).into_owned()))
    }
}
