//! What a `*.elf.toml` says. All that it leaves out is as a linker would write it.

use super::value::Value;
use serde::Deserialize;
use std::collections::BTreeMap;

/// A file.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Description {
    /// `library`, `program` (position-independent), or `fixed` (a program at a fixed address, which is `base`).
    pub kind: Kind,
    /// The address of the first byte of the file.
    pub base: u64,
    /// The symbol at which a program begins.
    pub entry: Option<String>,
    /// The dynamic symbols, and places that get names only for this description.
    #[serde(rename = "symbol")]
    pub symbols: Vec<Symbol>,
    /// Which hash tables are written: `sysv`, `gnu`.
    pub hash: Vec<Hash>,
    /// The shape of the GNU hash table.
    pub gnu_hash: GnuHash,
    /// The shape of the table of DT_HASH.
    pub sysv_hash: SysvHash,
    /// The versions that the file defines, behind the base version, which is the file's own name.
    pub versions: Vec<String>,
    /// The versions that it needs.
    #[serde(rename = "need")]
    pub needs: Vec<Need>,
    /// The words of DT_RELR, in place of those that follow from the relocations.
    pub relr: Option<Vec<Value>>,
    /// The dynamic section: `TAG VALUE` for each entry, and `...` for those that follow from all the rest.
    pub dynamic: Vec<String>,
    /// The program headers by their names, in this order.
    pub segments: Option<Vec<String>>,
    /// Fields of program headers by their names; one with a new name comes behind the others.
    pub segment: BTreeMap<String, Segment>,
    /// Whether there are section headers. Loaders need none, linkers do.
    pub sections: bool,
    /// Where the dynamic section lies.
    pub dynamic_in: Room,
    /// Whether the program headers lie behind everything else, in no segment.
    pub headers_at_the_end: bool,
    /// Bytes that are written over the finished file.
    #[serde(rename = "patch")]
    pub patches: Vec<Patch>,
}

impl Default for Description {
    fn default() -> Self {
        Description {
            kind: Kind::Library,
            base: 0,
            entry: None,
            symbols: Vec::new(),
            hash: vec![Hash::Gnu],
            gnu_hash: GnuHash::default(),
            sysv_hash: SysvHash::default(),
            versions: Vec::new(),
            needs: Vec::new(),
            relr: None,
            dynamic: vec!["...".into()],
            segments: None,
            segment: BTreeMap::new(),
            sections: true,
            dynamic_in: Room::Data,
            headers_at_the_end: false,
            patches: Vec::new(),
        }
    }
}

/// What the file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// ET_DYN without PT_INTERP.
    Library,
    /// ET_DYN with PT_INTERP and PT_PHDR.
    Program,
    /// ET_EXEC.
    Fixed,
}

/// A hash table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Hash {
    /// That of DT_HASH.
    Sysv,
    /// That of DT_GNU_HASH.
    Gnu,
}

/// A PT_LOAD.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Room {
    /// The one with headers and tables.
    ReadOnly,
    /// The one that is writable.
    Data,
}

/// A dynamic symbol: undefined, unless something says what or where it is.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Symbol {
    /// Its name. The description knows its address by it.
    pub name: String,
    /// A function: see [`super::code`].
    pub code: Option<String>,
    /// Data: numbers of 8 bytes, and relocations (`TYPE SYMBOL + ADDEND`; of `RELATIVE`, `IRELATIVE` and `RELR`, `TYPE ADDRESS`).
    pub words: Option<Vec<Value>>,
    /// So many bytes of zeros that are not in the file.
    pub zeros: Option<u64>,
    /// Only a name for the place, not in the symbol table.
    pub place: bool,
    /// `st_value`
    pub value: Option<Value>,
    /// `st_size`
    pub size: Option<Value>,
    /// `STB_`: `local`, `global`, `weak`, `unique`, or a number.
    pub bind: Option<Value>,
    /// `STT_`: `notype`, `object`, `func`, `section`, `file`, `common`, `tls`, `ifunc`, or a number.
    pub kind: Option<Value>,
    /// `STV_`: `default`, `internal`, `hidden`, `protected`, or the number of `st_other`.
    pub visibility: Option<Value>,
    /// `st_shndx`: `undef`, `abs`, `common`, or a number.
    pub section: Option<Value>,
    /// One of `versions`, or of a definition that is needed.
    pub version: Option<String>,
    /// The number in DT_VERSYM as it is.
    pub version_index: Option<u16>,
    /// Whether the hash tables lead to it; by default if it is defined.
    pub hashed: Option<bool>,
}

/// The shape of a GNU hash table.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GnuHash {
    /// Number of buckets.
    pub buckets: u32,
    /// Number of words of the Bloom filter, a power of two.
    pub bloom: u32,
    /// Shift of the second bit of the filter.
    pub shift: u32,
    /// In place of the table: 32-bit words.
    pub words: Option<Vec<Value>>,
}

impl Default for GnuHash {
    fn default() -> Self {
        GnuHash { buckets: 4, bloom: 1, shift: 6, words: None }
    }
}

/// The shape of the table of DT_HASH.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SysvHash {
    /// Number of buckets.
    pub buckets: u32,
    /// In place of the table: 32-bit words.
    pub words: Option<Vec<Value>>,
}

impl Default for SysvHash {
    fn default() -> Self {
        SysvHash { buckets: 3, words: None }
    }
}

/// Versions of another file.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Need {
    /// Its name, as in DT_NEEDED.
    pub file: String,
    /// The versions.
    pub versions: Vec<String>,
    /// Whether these may be missing (`VER_FLG_WEAK`).
    #[serde(default)]
    pub weak: bool,
}

/// Fields of a program header.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Segment {
    /// `LOAD`, `DYNAMIC`, ..., or a number.
    #[serde(rename = "type")]
    pub kind: Option<Value>,
    /// Letters of `rwx`.
    pub flags: Option<String>,
    /// `p_offset`
    pub offset: Option<Value>,
    /// `p_vaddr` and `p_paddr`
    pub vaddr: Option<Value>,
    /// `p_filesz`
    pub filesz: Option<Value>,
    /// `p_memsz`
    pub memsz: Option<Value>,
    /// `p_align`
    pub align: Option<Value>,
}

/// Bytes over the finished file.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Patch {
    /// The address of the first of them.
    pub at: Value,
    /// How many bytes each number has: 1, 2, 4 or 8.
    #[serde(default = "whole")]
    pub size: usize,
    /// The numbers.
    pub with: Vec<Value>,
}

fn whole() -> usize {
    8
}
