//! The ELF header and the program headers of a file that is to be loaded.
//!
//! gABI chapters 4 ("ELF Header") and 5 ("Program Header"). The checks and their texts are those of ld.so, in its order; what
//! glibc does not check and would crash on has a text of its own.

use crate::error::Reason;
use crate::rule::{holds, Rule};
use core::mem::size_of;
use goblin::elf64::header::Header;
pub use goblin::elf64::program_header::ProgramHeader;
use goblin::elf64::{header, program_header as ph};

/// Size of one program header, which `e_phentsize` must state.
pub const PHDR_SIZE: usize = size_of::<ProgramHeader>();

/// How many program headers a file may have before it is taken for damaged; the kernel's limit is 64 KiB of them too.
pub const MAX_PHDRS: usize = 65536 / PHDR_SIZE;

/// What the ELF header says about a loadable file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FileHeader {
    /// `ET_EXEC` or `ET_DYN`.
    pub e_type: u16,
    /// `e_entry`, 0 if there is none.
    pub entry: u64,
    /// File offset of the program headers.
    pub phoff: u64,
    /// Number of program headers.
    pub phnum: usize,
}

impl FileHeader {
    /// The byte range of the program headers in the file.
    pub fn program_headers(&self) -> Option<core::ops::Range<u64>> {
        Some(self.phoff..self.phoff.checked_add((self.phnum * PHDR_SIZE) as u64)?)
    }
}

/// Parses the ELF header at the start of `bytes` (the first bytes of a file, more than the header or not).
pub fn parse(bytes: &[u8]) -> Result<FileHeader, Reason> {
    let Some(raw) = bytes.get(..header::SIZEOF_EHDR) else {
        return Err(Reason::Fault("file too short"));
    };
    check_ident(raw)?;
    let mut copy = [0u8; header::SIZEOF_EHDR];
    copy.copy_from_slice(raw);
    let h = Header::from_bytes(&copy);
    if h.e_version != 1 {
        return Err(Reason::Fault("ELF file version does not match current one"));
    }
    if h.e_machine != header::EM_X86_64 {
        return Err(Reason::Fault("cannot open shared object file"));
    }
    if h.e_type != header::ET_DYN && h.e_type != header::ET_EXEC {
        return Err(Reason::Fault("only ET_DYN and ET_EXEC can be loaded"));
    }
    if usize::from(h.e_phentsize) != PHDR_SIZE {
        return Err(Reason::Fault("ELF file's phentsize not the expected size"));
    }
    if usize::from(h.e_phnum) > MAX_PHDRS {
        return Err(Reason::Fault("too many program headers"));
    }
    Ok(FileHeader { e_type: h.e_type, entry: h.e_entry, phoff: h.e_phoff, phnum: usize::from(h.e_phnum) })
}

fn check_ident(raw: &[u8]) -> Result<(), Reason> {
    if !holds(Rule::ElfHeaderChecked) {
        return Ok(());
    }
    if !raw.starts_with(header::ELFMAG) {
        return Err(Reason::Fault("invalid ELF header"));
    }
    // As in glibc, which knows of two.
    if raw[header::EI_CLASS] != header::ELFCLASS64 {
        return Err(Reason::Fault("wrong ELF class: ELFCLASS32"));
    }
    if raw[header::EI_DATA] != header::ELFDATA2LSB {
        return Err(Reason::Fault("ELF file data encoding not little-endian"));
    }
    if raw[header::EI_VERSION] != 1 {
        return Err(Reason::Fault("ELF file version ident does not match current one"));
    }
    // System V and GNU, as in glibc.
    let (abi, abi_version) = (raw[header::EI_OSABI], raw[header::EI_ABIVERSION]);
    if abi != header::ELFOSABI_NONE && abi != header::ELFOSABI_GNU {
        return Err(Reason::Fault("ELF file OS ABI invalid"));
    }
    if abi_version != 0 && !(abi == header::ELFOSABI_GNU && abi_version < 4) {
        return Err(Reason::Fault("ELF file ABI version invalid"));
    }
    if raw[header::EI_ABIVERSION + 1..header::SIZEOF_IDENT].iter().any(|&b| b != 0) {
        return Err(Reason::Fault("nonzero padding in e_ident"));
    }
    Ok(())
}

/// Reads the program header with index `index` out of the bytes of the program header table.
pub fn program_header(table: &[u8], index: usize) -> Option<ProgramHeader> {
    let start = index.checked_mul(PHDR_SIZE)?;
    let raw = table.get(start..start.checked_add(PHDR_SIZE)?)?;
    let u32_at = |at: usize| -> Option<u32> { Some(u32::from_le_bytes(raw.get(at..at + 4)?.try_into().ok()?)) };
    let u64_at = |at: usize| -> Option<u64> { Some(u64::from_le_bytes(raw.get(at..at + 8)?.try_into().ok()?)) };
    Some(ProgramHeader {
        p_type: u32_at(0)?,
        p_flags: u32_at(4)?,
        p_offset: u64_at(8)?,
        p_vaddr: u64_at(16)?,
        p_paddr: u64_at(24)?,
        p_filesz: u64_at(32)?,
        p_memsz: u64_at(40)?,
        p_align: u64_at(48)?,
    })
}

/// The first program header of a type.
pub fn find(headers: &[ProgramHeader], p_type: u32) -> Option<&ProgramHeader> {
    headers.iter().find(|h| h.p_type == p_type)
}

/// The last program header of a type.
pub fn find_last(headers: &[ProgramHeader], p_type: u32) -> Option<&ProgramHeader> {
    headers.iter().rfind(|h| h.p_type == p_type)
}

/// `PT_GNU_PROPERTY`, which goblin does not name.
pub const PT_GNU_PROPERTY: u32 = 0x6474_e553;
/// `PT_GNU_MUTABLE`: ranges that are never sealed (binutils branch `pt_gnu_mutable`).
pub const PT_GNU_MUTABLE: u32 = 0x6474_f555;

/// Whether the last `PT_GNU_STACK` asks for an executable stack; a file without the header asks for one too (ld.so's default on
/// x86-64).
pub fn wants_executable_stack(headers: &[ProgramHeader]) -> bool {
    headers.iter().rev().find(|h| h.p_type == ph::PT_GNU_STACK).is_none_or(|h| h.p_flags & ph::PF_X != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own_header() -> alloc::vec::Vec<u8> {
        std::fs::read("/proc/self/exe").expect("own executable")
    }

    #[test]
    fn a_real_file_parses() {
        let bytes = own_header();
        let h = parse(&bytes).expect("own header");
        assert_eq!(h.e_type, header::ET_DYN);
        let range = h.program_headers().expect("in range");
        let table = &bytes[range.start as usize..range.end as usize];
        let load = (0..h.phnum).filter_map(|i| program_header(table, i)).filter(|p| p.p_type == ph::PT_LOAD).count();
        assert!(load >= 2);
    }

    #[test]
    fn each_fault_has_its_text() {
        let good = own_header();
        let fault = |at: usize, value: u8| {
            let mut bytes = good[..64].to_vec();
            bytes[at] = value;
            parse(&bytes).expect_err("refused")
        };
        assert_eq!(fault(0, 0), Reason::Fault("invalid ELF header"));
        assert_eq!(fault(4, 1), Reason::Fault("wrong ELF class: ELFCLASS32"));
        assert_eq!(fault(4, 3), Reason::Fault("wrong ELF class: ELFCLASS32"));
        assert_eq!(fault(5, 2), Reason::Fault("ELF file data encoding not little-endian"));
        assert_eq!(fault(7, 9), Reason::Fault("ELF file OS ABI invalid"));
        assert_eq!(fault(15, 1), Reason::Fault("nonzero padding in e_ident"));
        assert_eq!(parse(&good[..63]), Err(Reason::Fault("file too short")));
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_refused_or_parsed(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
            let _ = parse(&bytes);
            let _ = program_header(&bytes, 1);
        }
    }
}
