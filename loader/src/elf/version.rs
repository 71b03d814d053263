//! GNU symbol versions: what an object defines (`DT_VERDEF`) and what it needs of others (`DT_VERNEED`).
//!
//! LSB Core, "Symbol Versioning". Both tables are linked lists of variable records; a next-offset is unsigned, so a walk only goes
//! forward and ends with the segment at the latest.

use crate::addr::VAddr;
use crate::elf::dynamic::Dynamic;
use crate::elf::symbols::Symbols;
use crate::elf::view::{u16_at, u32_at, View};
use crate::error::Reason;
use crate::memory;
use alloc::vec::Vec;

/// The version index in a `DT_VERSYM` entry.
pub const VERSYM_VERSION: u16 = 0x7fff;
/// Set in a `DT_VERSYM` entry of a definition that is not its symbol's default.
pub const VERSYM_HIDDEN: u16 = 0x8000;
/// A `Verdef` that names the file, not a version.
const VER_FLG_BASE: u16 = 1;
/// A `Vernaux` whose absence is no error.
const VER_FLG_WEAK: u16 = 2;

/// A version by name and System V hash.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Version<'a> {
    /// Its name, e.g. `GLIBC_2.34`.
    pub name: &'a [u8],
    /// Its hash.
    pub hash: u32,
}

/// The version of a reference, as a lookup uses it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Wanted<'a> {
    /// The version.
    pub version: Version<'a>,
    /// Whether only a definition of exactly this version will do (`dlvsym`), so that the base definition won't.
    pub exact: bool,
}

/// One version that an object needs of another.
#[derive(Clone, Copy, Debug)]
pub struct NeededVersion<'a> {
    /// The version.
    pub version: Version<'a>,
    /// `VER_FLG_WEAK`: its absence is no error.
    pub weak: bool,
    /// By which number symbols refer to it.
    index: u16,
}

/// The versions that an object needs of one file.
#[derive(Clone, Debug)]
pub struct Need<'a> {
    /// The file's `DT_NEEDED` name.
    pub file: &'a [u8],
    /// The versions.
    pub versions: Vec<NeededVersion<'a>>,
}

/// The version tables of one object.
#[derive(Clone, Default, Debug)]
pub struct Versions<'a> {
    /// By `DT_VERSYM` index: the version that the index stands for, of needed and defined ones alike. `None` is no version: the local
    /// and the base index.
    by_index: Vec<Option<Version<'a>>>,
    /// What it needs, in file order.
    pub needs: Vec<Need<'a>>,
    /// What it defines, the base definition left out.
    pub definitions: Vec<Version<'a>>,
    /// Whether it has a `DT_VERDEF` at all.
    pub defines: bool,
}

impl<'a> Versions<'a> {
    /// Whether the object needs versions of the C library but not the one that says that the library knows `DT_RELR`, of a file that
    /// `is_there`.
    pub fn lacks_relr_marker(&self, is_there: impl Fn(&[u8]) -> bool) -> bool {
        // Only of objects that use the C library; the library itself can know nothing of its own marker.
        let uses_libc = |need: &Need<'_>| need.file.starts_with(b"libc.so.");
        let names_relr = |need: &Need<'_>| {
            need.versions.iter().any(|v| v.version.name == b"GLIBC_ABI_DT_RELR") && is_there(need.file)
        };
        self.needs.iter().any(uses_libc) && !self.needs.iter().any(names_relr)
    }

    /// Parses both tables.
    pub fn parse(view: &View<'a>, dynamic: &Dynamic, symbols: &Symbols<'a>) -> Result<Versions<'a>, Reason> {
        let mut versions = Versions::default();
        if let Some((at, count)) = dynamic.verneed {
            versions.parse_needs(view, symbols, at, count)?;
        }
        if let Some((at, count)) = dynamic.verdef {
            versions.defines = true;
            versions.parse_definitions(view, symbols, at, count)?;
        }
        Ok(versions)
    }

    /// The version that a `DT_VERSYM` entry names.
    pub fn get(&self, versym: u16) -> Option<Version<'a>> {
        self.by_index.get(usize::from(versym & VERSYM_VERSION)).copied().flatten()
    }

    /// For a listing, where files may be missing: forgets the versions behind the last one that the object defines or needs of a file that
    /// `is_there`. As in glibc, references to what is left out have no version.
    pub fn forget_behind_known(&mut self, is_there: impl Fn(&[u8]) -> bool) {
        let missing: Vec<u16> =
            self.needs.iter().filter(|need| !is_there(need.file)).flat_map(|n| &n.versions).map(|v| v.index).collect();
        let is_known = |(index, version): (usize, &Option<Version<'a>>)| {
            version.is_some() && !missing.iter().any(|&known| usize::from(known) == index)
        };
        let known = self.by_index.iter().enumerate().rposition(is_known).map_or(0, |last| last + 1);
        self.by_index.truncate(known);
    }

    fn set(&mut self, versym: u16, version: Version<'a>) -> Result<(), Reason> {
        let index = usize::from(versym & VERSYM_VERSION);
        if let Some(more) = (index + 1).checked_sub(self.by_index.len()) {
            self.by_index.try_reserve(more).map_err(|_| Reason::NoMemory)?;
            self.by_index.resize(index + 1, None);
        }
        self.by_index[index] = Some(version);
        Ok(())
    }

    fn parse_needs(&mut self, view: &View<'a>, symbols: &Symbols<'a>, at: VAddr, count: u64) -> Result<(), Reason> {
        let bad = || Reason::Malformed { what: "version needs outside the object or malformed", at: at.0 };
        let table = view.tail(at).ok_or_else(bad)?;
        let mut need_at = 0usize;
        for _ in 0..count {
            let record = u16_at(table, need_at).ok_or_else(bad)?;
            if record != 1 {
                return Err(Reason::RecordVersion { version: record, record: "Verneed" });
            }
            let aux_count = u16_at(table, need_at + 2).ok_or_else(bad)?;
            let file = u32_at(table, need_at + 4).and_then(|o| symbols.string(u64::from(o))).ok_or_else(bad)?;
            let mut need = Need { file, versions: Vec::new() };
            let mut aux_at =
                need_at.checked_add(u32_at(table, need_at + 8).ok_or_else(bad)? as usize).ok_or_else(bad)?;
            for _ in 0..aux_count {
                let flags = u16_at(table, aux_at + 4).ok_or_else(bad)?;
                let hash = u32_at(table, aux_at).ok_or_else(bad)?;
                let name = u32_at(table, aux_at + 8).and_then(|o| symbols.string(u64::from(o))).ok_or_else(bad)?;
                let version = Version { name, hash };
                let index = u16_at(table, aux_at + 6).ok_or_else(bad)? & VERSYM_VERSION;
                self.set(index, version)?;
                memory::push(&mut need.versions, NeededVersion { version, weak: flags & VER_FLG_WEAK != 0, index })?;
                match u32_at(table, aux_at + 12).ok_or_else(bad)? {
                    0 => break,
                    next => aux_at = aux_at.checked_add(next as usize).ok_or_else(bad)?,
                }
            }
            memory::push(&mut self.needs, need)?;
            match u32_at(table, need_at + 12).ok_or_else(bad)? {
                0 => break,
                next => need_at = need_at.checked_add(next as usize).ok_or_else(bad)?,
            }
        }
        Ok(())
    }

    fn parse_definitions(
        &mut self,
        view: &View<'a>,
        symbols: &Symbols<'a>,
        at: VAddr,
        count: u64,
    ) -> Result<(), Reason> {
        let bad = || Reason::Malformed { what: "version definitions outside the object or malformed", at: at.0 };
        let table = view.tail(at).ok_or_else(bad)?;
        let mut def_at = 0usize;
        for _ in 0..count {
            let record = u16_at(table, def_at).ok_or_else(bad)?;
            if record != 1 {
                return Err(Reason::RecordVersion { version: record, record: "Verdef" });
            }
            let flags = u16_at(table, def_at + 2).ok_or_else(bad)?;
            let index = u16_at(table, def_at + 4).ok_or_else(bad)?;
            let hash = u32_at(table, def_at + 8).ok_or_else(bad)?;
            let aux_at = def_at.checked_add(u32_at(table, def_at + 12).ok_or_else(bad)? as usize).ok_or_else(bad)?;
            if flags & VER_FLG_BASE == 0 {
                let name = u32_at(table, aux_at).and_then(|o| symbols.string(u64::from(o))).ok_or_else(bad)?;
                let version = Version { name, hash };
                self.set(index, version)?;
                memory::push(&mut self.definitions, version)?;
            }
            match u32_at(table, def_at + 16).ok_or_else(bad)? {
                0 => break,
                next => def_at = def_at.checked_add(next as usize).ok_or_else(bad)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::elf::dynamic::Table;

    const STRINGS: &[u8] = b"\0libc.so.6\0GLIBC_2.34\0";

    fn need_record(next: u32) -> Vec<u8> {
        let mut bytes = Vec::new();
        for v in [1u16, 1] {
            bytes.extend(v.to_le_bytes());
        }
        for v in [1u32, 16, next] {
            bytes.extend(v.to_le_bytes());
        }
        bytes.extend(0x0696_91b4u32.to_le_bytes());
        for v in [0u16, 2] {
            bytes.extend(v.to_le_bytes());
        }
        for v in [11u32, 0] {
            bytes.extend(v.to_le_bytes());
        }
        bytes
    }

    fn parse(needs: &[u8], count: u64) -> Result<Versions<'_>, Reason> {
        let mut view = View::new();
        view.push(VAddr(0), STRINGS);
        view.push(VAddr(0x1000), needs);
        let dynamic = Dynamic {
            strings: Some(Table { at: VAddr(0), size: STRINGS.len() as u64 }),
            verneed: Some((VAddr(0x1000), count)),
            ..Dynamic::default()
        };
        let symbols = Symbols::parse(&view, &dynamic)?;
        Versions::parse(&view, &dynamic, &symbols)
    }

    #[test]
    fn needs_are_read() {
        let record = need_record(0);
        let versions = parse(&record, 1).expect("parses");
        assert_eq!(versions.needs[0].file, b"libc.so.6");
        assert_eq!(versions.needs[0].versions[0].version.name, b"GLIBC_2.34");
        assert_eq!(versions.get(0x8002).map(|v| v.name), Some(&b"GLIBC_2.34"[..]));
        assert_eq!(versions.get(7), None);
    }

    #[test]
    fn what_missing_files_have_is_forgotten_behind_what_is_known() {
        let record = need_record(0);
        let mut versions = parse(&record, 1).expect("parses");
        versions.forget_behind_known(|_| true);
        assert!(versions.get(2).is_some());
        versions.forget_behind_known(|_| false);
        assert_eq!(versions.get(2), None);
        // Not if there is something behind it.
        let mut versions = parse(&record, 1).expect("parses");
        versions.set(3, Version { name: b"ONE", hash: 1 }).expect("memory");
        versions.forget_behind_known(|_| false);
        assert!(versions.get(2).is_some());
    }

    #[test]
    fn a_chain_that_leaves_the_table_is_refused() {
        assert!(parse(&need_record(0x4000), 2).is_err());
        assert!(parse(&need_record(u32::MAX), 2).is_err());
    }

    proptest::proptest! {
        #[test]
        fn damaged_tables_never_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
            let mut view = View::new();
            view.push(VAddr(0), &bytes);
            let dynamic = Dynamic { verneed: Some((VAddr(0), 9)), verdef: Some((VAddr(4), 9)), ..Dynamic::default() };
            let _ = Versions::parse(&view, &dynamic, &Symbols::default());
        }
    }
}
