//! The dynamic section (gABI chapter 5, "Dynamic Section"), read once into named fields.

use crate::addr::VAddr;
use crate::elf::view::u64_at;
use crate::error::Reason;
use crate::memory;
use alloc::vec::Vec;
use goblin::elf64::dynamic as elf;

/// `DT_RELR` and its companions, which goblin does not name.
const DT_RELRSZ: u64 = 35;
const DT_RELR: u64 = 36;
const DT_RELRENT: u64 = 37;

/// Size of one `Elf64_Dyn`.
pub const DYN_SIZE: usize = 16;
/// Size of one `Elf64_Rela`, which `DT_RELAENT` must state.
const RELA_SIZE: u64 = 24;
/// Size of one `Elf64_Sym`, which `DT_SYMENT` must state.
const SYM_SIZE: u64 = 24;

/// A table that the dynamic section names by address and byte size.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Table {
    /// Where it starts.
    pub at: VAddr,
    /// Its size in bytes.
    pub size: u64,
}

/// `DT_AUXILIARY` and `DT_FILTER`, which goblin does not name.
const DT_AUXILIARY: u64 = 0x7fff_fffd;
const DT_FILTER: u64 = 0x7fff_ffff;

/// A name of an object that this one asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Dependency {
    /// Offset of the name in the string table.
    pub name: u64,
    /// In which way.
    pub kind: DependencyKind,
}

/// In which way an object asks for another.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DependencyKind {
    /// `DT_NEEDED`
    Needed,
    /// `DT_AUXILIARY`: the other is asked for symbols before this object, if it can be loaded.
    Auxiliary,
    /// `DT_FILTER`: the other is asked for symbols before this object, and must be there.
    Filter,
}

/// What the dynamic section says.
#[derive(Clone, Default, Debug)]
pub struct Dynamic {
    /// `DT_NEEDED`, `DT_AUXILIARY` and `DT_FILTER` in the order of the section.
    pub needed: Vec<Dependency>,
    /// String table offset of `DT_SONAME`.
    pub soname: Option<u64>,
    /// String table offset of `DT_RPATH`.
    pub rpath: Option<u64>,
    /// String table offset of `DT_RUNPATH`.
    pub runpath: Option<u64>,
    /// `DT_STRTAB`/`DT_STRSZ`.
    pub strings: Option<Table>,
    /// `DT_SYMTAB`; the table's size is known to the hash tables only.
    pub symbols: Option<VAddr>,
    /// `DT_HASH`
    pub sysv_hash: Option<VAddr>,
    /// `DT_GNU_HASH`
    pub gnu_hash: Option<VAddr>,
    /// `DT_VERSYM`
    pub versym: Option<VAddr>,
    /// `DT_VERNEED` and `DT_VERNEEDNUM`.
    pub verneed: Option<(VAddr, u64)>,
    /// `DT_VERDEF` and `DT_VERDEFNUM`.
    pub verdef: Option<(VAddr, u64)>,
    /// `DT_RELA`/`DT_RELASZ`.
    pub rela: Option<Table>,
    /// `DT_RELACOUNT`: how many `R_X86_64_RELATIVE` come first.
    pub relative_count: u64,
    /// `DT_RELR`/`DT_RELRSZ`.
    pub relr: Option<Table>,
    /// `DT_JMPREL`/`DT_PLTRELSZ`.
    pub plt_rela: Option<Table>,
    /// `DT_PLTGOT`
    pub plt_got: Option<VAddr>,
    /// `DT_INIT`
    pub init: Option<VAddr>,
    /// `DT_FINI`
    pub fini: Option<VAddr>,
    /// `DT_PREINIT_ARRAY`
    pub preinit_array: Option<Table>,
    /// `DT_INIT_ARRAY`
    pub init_array: Option<Table>,
    /// `DT_FINI_ARRAY`
    pub fini_array: Option<Table>,
    /// Where the value of the `DT_DEBUG` entry lies.
    pub debug: Option<VAddr>,
    /// `DT_FLAGS`, with the older single tags (`DT_SYMBOLIC`, `DT_TEXTREL`, `DT_BIND_NOW`) folded in.
    pub flags: u64,
    /// `DT_FLAGS_1`
    pub flags_1: u64,
    /// Every entry as `(tag, index)`, in order: other tools want to find the entries themselves in memory.
    pub entries: Vec<(i64, usize)>,
}

impl Dynamic {
    /// Whether a bit of `DT_FLAGS` is set.
    pub fn has_flag(&self, flag: u64) -> bool {
        self.flags & flag != 0
    }

    /// Whether a bit of `DT_FLAGS_1` is set.
    pub fn has_flag_1(&self, flag: u64) -> bool {
        self.flags_1 & flag != 0
    }

    /// Whether the object asks that nothing of it is bound lazily.
    pub fn binds_now(&self) -> bool {
        self.has_flag(elf::DF_BIND_NOW) || self.has_flag_1(elf::DF_1_NOW)
    }
}

#[derive(Default)]
struct Sizes {
    strings: Option<u64>,
    rela: Option<u64>,
    relr: Option<u64>,
    plt: Option<u64>,
    verneed: Option<u64>,
    verdef: Option<u64>,
    preinit: Option<u64>,
    init: Option<u64>,
    fini: Option<u64>,
}

#[derive(Default)]
struct Starts {
    strings: Option<VAddr>,
    rela: Option<VAddr>,
    relr: Option<VAddr>,
    plt: Option<VAddr>,
    verneed: Option<VAddr>,
    verdef: Option<VAddr>,
    preinit: Option<VAddr>,
    init: Option<VAddr>,
    fini: Option<VAddr>,
}

/// Parses the bytes of `PT_DYNAMIC`, which starts at `at`, up to `DT_NULL`.
pub fn parse(bytes: &[u8], at: VAddr) -> Result<Dynamic, Reason> {
    let entries = memory::with_capacity((bytes.len() / DYN_SIZE).min(40))?;
    let mut dynamic = Dynamic { entries, ..Dynamic::default() };
    let (mut starts, mut sizes) = (Starts::default(), Sizes::default());
    for index in 0..bytes.len() / DYN_SIZE {
        let (Some(tag), Some(value)) = (u64_at(bytes, index * DYN_SIZE), u64_at(bytes, index * DYN_SIZE + 8)) else {
            break;
        };
        if tag == 0 {
            break;
        }
        memory::push(&mut dynamic.entries, (tag as i64, index))?;
        let value_at = VAddr(at.0.wrapping_add((index * DYN_SIZE + 8) as u64));
        entry(&mut dynamic, &mut starts, &mut sizes, tag, value, value_at)?;
    }
    join(&mut dynamic, starts, sizes)?;
    Ok(dynamic)
}

fn entry(
    d: &mut Dynamic,
    starts: &mut Starts,
    sizes: &mut Sizes,
    tag: u64,
    value: u64,
    at: VAddr,
) -> Result<(), Reason> {
    let address = Some(VAddr(value));
    match tag {
        elf::DT_NEEDED => memory::push(&mut d.needed, Dependency { name: value, kind: DependencyKind::Needed })?,
        DT_AUXILIARY => memory::push(&mut d.needed, Dependency { name: value, kind: DependencyKind::Auxiliary })?,
        DT_FILTER => memory::push(&mut d.needed, Dependency { name: value, kind: DependencyKind::Filter })?,
        elf::DT_SONAME => d.soname = Some(value),
        elf::DT_RPATH => d.rpath = Some(value),
        elf::DT_RUNPATH => d.runpath = Some(value),
        elf::DT_STRTAB => starts.strings = address,
        elf::DT_STRSZ => sizes.strings = Some(value),
        elf::DT_SYMTAB => d.symbols = address,
        elf::DT_SYMENT if value != SYM_SIZE => {
            return Err(Reason::Malformed { what: "unexpected DT_SYMENT", at: value })
        }
        elf::DT_HASH => d.sysv_hash = address,
        elf::DT_GNU_HASH => d.gnu_hash = address,
        elf::DT_VERSYM => d.versym = address,
        elf::DT_VERNEED => starts.verneed = address,
        elf::DT_VERNEEDNUM => sizes.verneed = Some(value),
        elf::DT_VERDEF => starts.verdef = address,
        elf::DT_VERDEFNUM => sizes.verdef = Some(value),
        elf::DT_RELA => starts.rela = address,
        elf::DT_RELASZ => sizes.rela = Some(value),
        elf::DT_RELAENT if value != RELA_SIZE => {
            return Err(Reason::Malformed { what: "unexpected DT_RELAENT", at: value })
        }
        elf::DT_RELACOUNT => d.relative_count = value,
        DT_RELR => starts.relr = address,
        DT_RELRSZ => sizes.relr = Some(value),
        DT_RELRENT if value != 8 => return Err(Reason::Malformed { what: "unexpected DT_RELRENT", at: value }),
        elf::DT_JMPREL => starts.plt = address,
        elf::DT_PLTRELSZ => sizes.plt = Some(value),
        elf::DT_PLTREL if value != elf::DT_RELA => {
            return Err(Reason::Malformed { what: "unexpected DT_PLTREL", at: value })
        }
        elf::DT_PLTGOT => d.plt_got = address,
        elf::DT_INIT => d.init = address,
        elf::DT_FINI => d.fini = address,
        elf::DT_PREINIT_ARRAY => starts.preinit = address,
        elf::DT_PREINIT_ARRAYSZ => sizes.preinit = Some(value),
        elf::DT_INIT_ARRAY => starts.init = address,
        elf::DT_INIT_ARRAYSZ => sizes.init = Some(value),
        elf::DT_FINI_ARRAY => starts.fini = address,
        elf::DT_FINI_ARRAYSZ => sizes.fini = Some(value),
        elf::DT_DEBUG => d.debug = Some(at),
        elf::DT_SYMBOLIC => d.flags |= elf::DF_SYMBOLIC,
        elf::DT_TEXTREL => d.flags |= elf::DF_TEXTREL,
        elf::DT_BIND_NOW => d.flags |= elf::DF_BIND_NOW,
        elf::DT_FLAGS => d.flags |= value,
        elf::DT_FLAGS_1 => d.flags_1 = value,
        _ => {}
    }
    Ok(())
}

fn join(d: &mut Dynamic, starts: Starts, sizes: Sizes) -> Result<(), Reason> {
    let table = |start: Option<VAddr>, size: Option<u64>, what| match (start, size) {
        (Some(at), Some(size)) if size > 0 => match at.checked_add(size) {
            Some(_) => Ok(Some(Table { at, size })),
            None => Err(Reason::Malformed { what, at: at.0 }),
        },
        (None, Some(size)) if size > 0 => Err(Reason::Malformed { what, at: 0 }),
        _ => Ok(None),
    };
    d.strings = table(starts.strings, sizes.strings, "string table outside the object")?;
    d.rela = table(starts.rela, sizes.rela, "relocation table outside the object")?;
    d.relr = table(starts.relr, sizes.relr, "DT_RELR table outside the object")?;
    d.plt_rela = table(starts.plt, sizes.plt, "PLT relocation table outside the object")?;
    d.preinit_array = table(starts.preinit, sizes.preinit, "DT_PREINIT_ARRAY outside the object")?;
    d.init_array = table(starts.init, sizes.init, "DT_INIT_ARRAY outside the object")?;
    d.fini_array = table(starts.fini, sizes.fini, "DT_FINI_ARRAY outside the object")?;
    d.verneed = starts.verneed.map(|at| (at, sizes.verneed.unwrap_or(u64::MAX)));
    d.verdef = starts.verdef.map(|at| (at, sizes.verdef.unwrap_or(u64::MAX)));
    if d.strings.is_none() && !d.needed.is_empty() {
        return Err(Reason::Fault("object file has no dynamic string table"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn section(entries: &[(u64, u64)]) -> Vec<u8> {
        entries.iter().flat_map(|(t, v)| t.to_le_bytes().into_iter().chain(v.to_le_bytes())).collect()
    }

    #[test]
    fn fields_are_found_and_parsing_stops_at_null() {
        let bytes = section(&[
            (elf::DT_NEEDED, 1),
            (elf::DT_STRTAB, 0x200),
            (elf::DT_STRSZ, 0x20),
            (DT_FILTER, 2),
            (elf::DT_DEBUG, 0),
            (elf::DT_SYMBOLIC, 0),
            (0, 0),
            (elf::DT_NEEDED, 9),
        ]);
        let d = parse(&bytes, VAddr(0x3000)).expect("parses");
        let needed = |name, kind| Dependency { name, kind };
        assert_eq!(d.needed, [needed(1, DependencyKind::Needed), needed(2, DependencyKind::Filter)]);
        assert_eq!(d.strings, Some(Table { at: VAddr(0x200), size: 0x20 }));
        assert_eq!(d.debug, Some(VAddr(0x3048)));
        assert!(d.has_flag(elf::DF_SYMBOLIC) && !d.binds_now());
    }

    #[test]
    fn sizes_that_cannot_be_are_refused() {
        let bytes = section(&[(elf::DT_RELA, u64::MAX), (elf::DT_RELASZ, 24)]);
        assert!(parse(&bytes, VAddr(0)).is_err());
        assert!(parse(&section(&[(elf::DT_RELAENT, 8)]), VAddr(0)).is_err());
        assert!(parse(&section(&[(elf::DT_RELASZ, 24)]), VAddr(0)).is_err());
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_refused_or_parsed(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..400)) {
            let _ = parse(&bytes, VAddr(0));
        }
    }
}
