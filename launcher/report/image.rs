//! What an ELF file says about the memory it will occupy (gABI, "Program Loading").

use super::model::Kind;
use crate::elf::{Headers, ReadAt};
use goblin::elf::dynamic::{
    DF_1_NODELETE, DF_1_PIE, DT_FLAGS_1, DT_JMPREL, DT_NEEDED, DT_PLTGOT, DT_PLTRELSZ, DT_SONAME, DT_STRSZ, DT_STRTAB,
};
use goblin::elf::header::ET_EXEC;
use goblin::elf::program_header::{ProgramHeader, PF_W, PF_X, PT_DYNAMIC, PT_GNU_RELRO, PT_INTERP, PT_LOAD, PT_NOTE};
use goblin::elf64::reloc::Rela;
use loader::addr::VAddr;
use loader::elf::header::{PT_GNU_MUTABLE, PT_GNU_PROPERTY};
use loader::elf::{note, property};
use loader::got::GotPages;
use std::ops::Range;

/// Bytes of a page.
pub const PAGE: u64 = 4096;

/// The largest dynamic section and string table that are looked at.
const TABLE: u64 = 1 << 24;

/// The image that a file asks for; addresses are those of the file, before any bias.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Image {
    /// The PT_LOADs, in pages.
    pub loads: Vec<Load>,
    /// The pages that PT_GNU_RELRO makes read-only: its end rounded down, as glibc does.
    pub relro: Range<u64>,
    /// The pages on which slots of the PLT lie that RELRO does not protect.
    pub got: Option<GotPages>,
    /// Pages that PT_GNU_MUTABLE keeps open.
    pub mutable: Vec<Range<u64>>,
    /// `e_entry`
    pub entry: u64,
    /// Whether it is a program and not a library: it is ET_EXEC or has DF_1_PIE.
    pub program: bool,
    /// Whether it stays once it is loaded: DF_1_NODELETE.
    pub nodelete: bool,
    /// Whether it names neither an interpreter nor libraries.
    pub is_static: bool,
    /// DT_SONAME
    pub soname: Option<String>,
    /// DT_NEEDED, in order.
    pub needed: Vec<String>,
    /// Whether a note of its own asks that it not be sealed.
    pub opts_out: bool,
    /// Whether it asks to be sealed (GNU_PROPERTY_MEMORY_SEAL).
    pub asks_for_seal: bool,
}

/// A PT_LOAD.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Load {
    /// The pages that it occupies.
    pub pages: Range<u64>,
    /// Where the pages that hold bytes of the file end.
    pub file_end: u64,
    /// Offset of the first page in the file.
    pub offset: u64,
    /// PF_W
    pub write: bool,
    /// PF_X
    pub execute: bool,
}

impl Image {
    /// Reads what a file says; None when it is no ELF file that can be loaded.
    pub fn read(file: &(impl ReadAt + ?Sized)) -> Option<Image> {
        Image::read_copy(file, 0)
    }

    /// The same for what was copied from a file to memory, with this bias, and relocated.
    pub fn read_copy(file: &(impl ReadAt + ?Sized), bias: u64) -> Option<Image> {
        let headers = Headers::read(file)?;
        let of_type = |wanted| headers.segments.iter().filter(move |segment| segment.p_type == wanted);
        let loads = of_type(PT_LOAD).filter(|segment| segment.p_memsz > 0).map(load).collect::<Option<Vec<_>>>()?;
        let mut image = Image { loads, entry: headers.file.e_entry, ..Image::default() };
        image.span()?;
        if let Some(segment) = headers.segment(PT_GNU_RELRO) {
            image.relro = down(segment.p_vaddr)..down(segment.p_vaddr.checked_add(segment.p_memsz)?);
        }
        let notes = |p_type| {
            let of_type = headers.segments.iter().filter(move |segment| segment.p_type == p_type);
            of_type.filter_map(|h| {
                Some((file.read_at(h.p_offset, usize::try_from(h.p_filesz.min(TABLE)).ok()?).ok()?, h.p_align))
            })
        };
        image.opts_out = notes(PT_NOTE).any(|(bytes, align)| note::opts_out(&bytes, align));
        let kind = headers.segment(PT_GNU_PROPERTY).map_or(PT_NOTE, |h| h.p_type);
        let found = notes(kind).find_map(|(bytes, align)| property::properties(&bytes, align));
        image.asks_for_seal = found.is_some_and(|properties| properties.memory_seal);
        image.mutable = of_type(PT_GNU_MUTABLE).filter_map(pages).collect();
        let dynamic = Dynamic::read(file, &headers, bias).unwrap_or_default();
        image.program = headers.file.e_type == ET_EXEC || dynamic.flags_1 & DF_1_PIE != 0;
        image.nodelete = dynamic.flags_1 & DF_1_NODELETE != 0;
        image.is_static = headers.segment(PT_INTERP).is_none() && dynamic.needed.is_empty();
        let relro = VAddr(image.relro.start)..VAddr(image.relro.end);
        image.got = GotPages::find(&dynamic.slots, dynamic.plt_got.map(VAddr), &relro);
        image.soname = dynamic.soname;
        image.needed = dynamic.needed;
        Some(image)
    }

    /// From the first to the last page.
    pub fn span(&self) -> Option<Range<u64>> {
        let start = self.loads.iter().map(|load| load.pages.start).min()?;
        let end = self.loads.iter().map(|load| load.pages.end).max()?;
        (start < end).then_some(start..end)
    }

    /// What the page at an address is for.
    pub fn part(&self, address: u64) -> Kind {
        if self.mutable.iter().any(|range| range.contains(&address)) {
            return Kind::Mutable;
        }
        if self.relro.contains(&address) {
            return Kind::Relro;
        }
        match &self.got {
            Some(got) if got.own.contains(&VAddr(address)) => return Kind::Got,
            Some(got) if got.all.contains(&VAddr(address)) => return Kind::GotShared,
            _ => {}
        }
        // Where two share a page, the later one's bytes and protections are what is seen.
        match self.loads.iter().rev().find(|load| load.pages.contains(&address)) {
            None => Kind::Gap,
            Some(load) if load.write && address < load.file_end => Kind::Data,
            Some(load) if load.write => Kind::Bss,
            Some(load) if load.execute => Kind::Text,
            Some(_) => Kind::Rodata,
        }
    }

    /// The addresses at which one part may end and another begin.
    pub fn boundaries(&self) -> Vec<u64> {
        let mut boundaries: Vec<u64> =
            self.loads.iter().flat_map(|load| [load.pages.start, load.file_end, load.pages.end]).collect();
        boundaries.extend(self.mutable.iter().chain([&self.relro]).flat_map(|range| [range.start, range.end]));
        if let Some(GotPages { all, own }) = &self.got {
            boundaries.extend([all.start.0, own.start.0, own.end.0, all.end.0]);
        }
        boundaries.sort_unstable();
        boundaries.dedup();
        boundaries
    }
}

fn down(address: u64) -> u64 {
    address & !(PAGE - 1)
}

fn up(address: u64) -> Option<u64> {
    Some(down(address.checked_add(PAGE - 1)?))
}

fn pages(segment: &ProgramHeader) -> Option<Range<u64>> {
    Some(down(segment.p_vaddr)..up(segment.p_vaddr.checked_add(segment.p_memsz)?)?)
}

fn load(segment: &ProgramHeader) -> Option<Load> {
    let file_end = up(segment.p_vaddr.checked_add(segment.p_filesz.min(segment.p_memsz))?)?;
    let (write, execute) = (segment.p_flags & PF_W != 0, segment.p_flags & PF_X != 0);
    Some(Load { pages: pages(segment)?, file_end, offset: down(segment.p_offset), write, execute })
}

/// What is wanted of the dynamic section.
#[derive(Default)]
struct Dynamic {
    flags_1: u64,
    plt_got: Option<u64>,
    /// The relocations of the PLT.
    slots: Vec<Rela>,
    soname: Option<String>,
    needed: Vec<String>,
}

impl Dynamic {
    /// Loaders may have added the bias to addresses in the section, or not.
    fn read(file: &(impl ReadAt + ?Sized), headers: &Headers, bias: u64) -> Option<Dynamic> {
        let segment = headers.segment(PT_DYNAMIC)?;
        let bytes = file.read_at(segment.p_offset, usize::try_from(segment.p_filesz.min(TABLE)).ok()?).ok()?;
        let entries: Vec<(u64, u64)> = bytes.chunks_exact(16).map(entry).take_while(|&(tag, _)| tag != 0).collect();
        let value = |wanted| entries.iter().find(|&&(tag, _)| tag == wanted).map(|&(_, value)| value);
        let address = |tag| value(tag).map(|address| if address >= bias { address - bias } else { address });
        let table = |at: u64, size: u64| {
            let address = address(at)?;
            let holder = headers.segments.iter().find(|segment| {
                segment.p_type == PT_LOAD && address >= segment.p_vaddr && address - segment.p_vaddr < segment.p_filesz
            })?;
            let offset = holder.p_offset.checked_add(address - holder.p_vaddr)?;
            file.read_at(offset, usize::try_from(value(size)?.min(TABLE)).ok()?).ok()
        };
        let strings = table(DT_STRTAB, DT_STRSZ)?;
        let string = |at: u64| {
            let bytes = strings.get(usize::try_from(at).ok()?..)?;
            let length = bytes.iter().position(|&byte| byte == 0)?;
            Some(String::from_utf8_lossy(&bytes[..length]).into_owned())
        };
        let needed = entries.iter().filter(|&&(tag, _)| tag == DT_NEEDED).filter_map(|&(_, at)| string(at)).collect();
        let soname = value(DT_SONAME).and_then(string);
        let slots = table(DT_JMPREL, DT_PLTRELSZ).unwrap_or_default().chunks_exact(24).map(rela).collect();
        let flags_1 = value(DT_FLAGS_1).unwrap_or_default();
        Some(Dynamic { flags_1, plt_got: address(DT_PLTGOT), slots, soname, needed })
    }
}

fn word(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |word, &byte| word << 8 | u64::from(byte))
}

/// `d_tag` and `d_val` of an entry of 16 bytes.
fn entry(bytes: &[u8]) -> (u64, u64) {
    (word(&bytes[..8]), word(&bytes[8..]))
}

/// A relocation record of 24 bytes.
fn rela(bytes: &[u8]) -> Rela {
    Rela { r_offset: word(&bytes[..8]), r_info: word(&bytes[8..16]), r_addend: word(&bytes[16..]) as i64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program() {
        let file = std::fs::File::open("/bin/sh").expect("a shell");
        let image = Image::read(&file).expect("an ELF file");
        assert!(image.program);
        assert!(image.needed.iter().any(|name| name == "libc.so.6"), "{:?}", image.needed);
        assert_eq!(image.part(image.entry), Kind::Text);
        assert_eq!(image.part(image.relro.start), Kind::Relro);
        let span = image.span().expect("PT_LOADs");
        assert!(image.boundaries().iter().all(|&at| (span.start..=span.end).contains(&at)));
    }

    #[test]
    fn parts() {
        let load = |pages: Range<u64>, file_end, write, execute| Load { pages, file_end, offset: 0, write, execute };
        let mut image = Image {
            loads: vec![
                load(0..0x1000, 0x1000, false, false),
                load(0x1000..0x3000, 0x3000, false, true),
                load(0x5000..0x9000, 0x7000, true, false),
            ],
            relro: 0x5000..0x6000,
            ..Image::default()
        };
        image.mutable.push(0x8000..0x9000);
        image.got = Some(GotPages { all: VAddr(0x6000)..VAddr(0x7000), own: VAddr(0x7000)..VAddr(0x7000) });
        let parts: Vec<Kind> = (0..10).map(|page| image.part(page * PAGE)).collect();
        use Kind::*;
        assert_eq!(parts, [Rodata, Text, Text, Gap, Gap, Relro, GotShared, Bss, Mutable, Gap]);
    }

    #[test]
    fn other_files_have_no_image() {
        assert_eq!(Image::read(&b"#!/bin/sh\n"[..]), None);
        assert_eq!(Image::read(&[0x7f][..]), None);
    }

    proptest::proptest! {
        #[test]
        fn any_damage_is_survived(damage in proptest::collection::vec((0usize..4096, proptest::prelude::any::<u8>()), 1..40)) {
            let file = std::fs::File::open("/proc/self/exe").expect("own executable");
            let mut file = file.read_at(0, 1 << 16).expect("a file of some size");
            for (at, value) in damage {
                file[at] = value;
            }
            if let Some(image) = Image::read(&file[..]) {
                for at in image.boundaries() {
                    let _ = image.part(at);
                }
            }
        }
    }
}
