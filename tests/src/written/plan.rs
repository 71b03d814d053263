//! What will be in the file, before it is known where: symbols in the order of their table, relocations, versions, dynamic entries.

use super::describe::{Description, Hash, Kind, Symbol};
use super::value::{named, Value};
use crate::relocations;
use object::elf::{self, DynamicTag, RelocationType, VersionIndex, VersymIndex};

/// The content of a file.
pub struct Plan<'d> {
    /// What it was made of.
    pub description: &'d Description,
    /// The symbol table without its null symbol; those from `hashed` on are in the hash tables.
    pub symbols: Vec<&'d Symbol>,
    /// The first symbol that the GNU hash table leads to.
    pub hashed: usize,
    /// The relocations with addends.
    pub relocations: Vec<Relocation<'d>>,
    /// The places of relative relocations without addends.
    pub packed: Vec<Place<'d>>,
    /// The dynamic section up to its end.
    pub dynamic: Vec<(DynamicTag, Entry)>,
}

/// A word of a symbol's data.
#[derive(Debug, Clone, Copy)]
pub struct Place<'d> {
    /// The symbol.
    pub symbol: &'d str,
    /// The word's number.
    pub word: u64,
    /// The address that belongs there.
    pub target: &'d str,
}

/// A relocation with addend.
#[derive(Debug, Clone)]
pub struct Relocation<'d> {
    /// Its type.
    pub kind: RelocationType,
    /// What it changes.
    pub place: Place<'d>,
    /// The number of the symbol.
    pub symbol: u32,
    /// Its addend, to be worked out.
    pub addend: String,
}

/// The value of a dynamic entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// A string of the string table.
    String(String),
    /// To be worked out.
    Value(String),
}

impl<'d> Plan<'d> {
    /// What a description says.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn new(description: &'d Description) -> Result<Plan<'d>, String> {
        let mut symbols: Vec<&Symbol> = description.symbols.iter().filter(|s| !s.place).collect();
        let buckets = description.gnu_hash.buckets.max(1);
        // Those that the GNU hash table leads to come last, in the order of its buckets.
        symbols.sort_by_key(|s| (is_hashed(s), if is_hashed(s) { gnu_hash(s) % buckets } else { 0 }));
        let hashed = symbols.iter().position(|s| is_hashed(s)).unwrap_or(symbols.len());
        let mut plan =
            Plan { description, symbols, hashed, relocations: Vec::new(), packed: Vec::new(), dynamic: Vec::new() };
        plan.read_words()?;
        plan.dynamic = plan.dynamic_section()?;
        Ok(plan)
    }

    fn read_words(&mut self) -> Result<(), String> {
        for symbol in &self.description.symbols {
            for (word, value) in symbol.words.iter().flatten().enumerate() {
                let Value::Text(text) = value else { continue };
                let Some((name, target)) = text.split_once(' ') else { continue };
                let place = Place { symbol: &symbol.name, word: word as u64, target };
                if name == "RELR" {
                    self.packed.push(place);
                } else if let Some(kind) = relocations::number(name) {
                    let relocation = self.relocation(kind, place)?;
                    self.relocations.push(relocation);
                }
            }
        }
        Ok(())
    }

    fn relocation(&self, kind: RelocationType, place: Place<'d>) -> Result<Relocation<'d>, String> {
        if [elf::R_X86_64_RELATIVE, elf::R_X86_64_IRELATIVE].contains(&kind) {
            return Ok(Relocation { kind, place, symbol: 0, addend: place.target.into() });
        }
        let (name, addend) = place.target.split_once(' ').unwrap_or((place.target, ""));
        let symbol = match name.strip_prefix('#') {
            Some(number) => number.parse().map_err(|_| format!("{name} is no number of a symbol"))?,
            None => self.number_of(name)?,
        };
        Ok(Relocation { kind, place, symbol, addend: format!("0 {addend}") })
    }

    /// The number of a symbol.
    fn number_of(&self, name: &str) -> Result<u32, String> {
        let found = self.symbols.iter().position(|s| s.name == name);
        found.map(|n| n as u32 + 1).ok_or_else(|| format!("{name}: no such symbol"))
    }

    /// The hash of the symbol `number`, if the table of DT_HASH leads to it.
    pub fn sysv_hash(&self, number: u32) -> Option<u32> {
        let symbol = (number as usize).checked_sub(1).and_then(|n| self.symbols.get(n));
        symbol.filter(|s| is_hashed(s)).map(|s| elf::hash(s.name.as_bytes()))
    }

    /// The hash of a symbol of the GNU hash table, by its number behind the first of them.
    pub fn gnu_hash(&self, number: u32) -> u32 {
        gnu_hash(self.symbols[self.hashed + number as usize])
    }

    /// Whether there is a DT_VERSYM.
    pub fn has_versions(&self) -> bool {
        let Description { versions, needs, symbols, .. } = self.description;
        !versions.is_empty() || !needs.is_empty() || symbols.iter().any(|s| s.version_index.is_some())
    }

    /// The index of the first version that is needed: 1 is the base version, or no version.
    pub fn first_needed(&self) -> u16 {
        self.description.versions.len() as u16 + 2
    }

    /// The entry of a symbol in DT_VERSYM.
    ///
    /// # Errors
    /// It wants an unknown version.
    pub fn version_index(&self, symbol: &Symbol) -> Result<VersymIndex, String> {
        let Description { versions, needs, .. } = self.description;
        let index = match (&symbol.version_index, &symbol.version) {
            (Some(index), _) => *index,
            (None, None) => 1,
            (None, Some(name)) => {
                let mut all = versions.iter().chain(needs.iter().flat_map(|n| &n.versions));
                all.position(|v| v == name).ok_or_else(|| format!("{name}: no such version"))? as u16 + 2
            }
        };
        Ok(VersymIndex(index))
    }

    /// The name of the base version: that of the file.
    pub fn base_version(&self) -> &str {
        let name = |(tag, entry): &'_ (DynamicTag, Entry)| *tag == elf::DT_SONAME && matches!(entry, Entry::String(_));
        match self.dynamic.iter().find(|e| name(e)) {
            Some((_, Entry::String(name))) => name,
            _ => "base",
        }
    }

    fn dynamic_section(&self) -> Result<Vec<(DynamicTag, Entry)>, String> {
        let mut entries = Vec::new();
        for line in &self.description.dynamic {
            match line.strip_prefix("...") {
                None => entries.push(entry(line)?),
                Some(rest) => {
                    let without: Vec<&str> = rest.split_whitespace().skip_while(|w| *w == "without").collect();
                    for line in self.usual_entries() {
                        if !without.iter().any(|tag| line.starts_with(&format!("{tag} "))) {
                            entries.push(entry(&line)?);
                        }
                    }
                }
            }
        }
        Ok(entries)
    }

    /// What the rest of the description implies.
    fn usual_entries(&self) -> Vec<String> {
        let Description { hash, versions, needs, kind, .. } = self.description;
        let packed = !self.packed.is_empty() || self.description.relr.is_some();
        let parts: [(bool, &[&str]); 8] = [
            (hash.contains(&Hash::Sysv), &["HASH .hash"]),
            (hash.contains(&Hash::Gnu), &["GNU_HASH .gnu.hash"]),
            (true, &["STRTAB .dynstr", "SYMTAB .dynsym", "STRSZ .dynstr.end - .dynstr", "SYMENT 24"]),
            (*kind != Kind::Library, &["DEBUG 0"]),
            (!self.relocations.is_empty(), &["RELA .rela", "RELASZ .rela.end - .rela", "RELAENT 24"]),
            (packed, &["RELR .relr", "RELRSZ .relr.end - .relr", "RELRENT 8"]),
            (!versions.is_empty(), &["VERDEF .verdef"]),
            (!needs.is_empty(), &["VERNEED .verneed"]),
        ];
        let mut lines: Vec<String> =
            parts.iter().filter(|part| part.0).flat_map(|part| part.1).map(|line| line.to_string()).collect();
        if !versions.is_empty() {
            lines.push(format!("VERDEFNUM {}", versions.len() + 1));
        }
        if !needs.is_empty() {
            lines.push(format!("VERNEEDNUM {}", needs.len()));
        }
        if self.has_versions() {
            lines.push("VERSYM .versym".into());
        }
        lines
    }
}

/// `TAG VALUE`: a string where the gABI has one, unless the value begins with `=`.
fn entry(line: &str) -> Result<(DynamicTag, Entry), String> {
    let (name, value) = line.split_once(' ').unwrap_or((line, "0"));
    let tag = named(&Value::Text(name.into()), TAGS)? as i64;
    let is_string = ["NEEDED", "SONAME", "RPATH", "RUNPATH", "AUXILIARY", "FILTER"].contains(&name);
    let entry = match value.strip_prefix('=') {
        Some(value) => Entry::Value(value.into()),
        None if is_string => Entry::String(value.trim_matches('"').into()),
        None => Entry::Value(value.into()),
    };
    Ok((DynamicTag(tag), entry))
}

/// Whether the hash tables lead to a symbol.
fn is_hashed(symbol: &Symbol) -> bool {
    symbol.hashed.unwrap_or(is_defined(symbol))
}

/// Whether something says where or what a symbol is.
pub fn is_defined(symbol: &Symbol) -> bool {
    let Symbol { code, words, zeros, value, section, .. } = symbol;
    code.is_some() || words.is_some() || zeros.is_some() || value.is_some() || section.is_some()
}

fn gnu_hash(symbol: &Symbol) -> u32 {
    elf::gnu_hash(symbol.name.as_bytes())
}

/// The index of a version as the writer wants it.
pub fn version(index: u16) -> VersionIndex {
    VersionIndex(index)
}

/// The tags of the dynamic section, without `DT_`.
const TAGS: &[(&str, u64)] = &[
    ("NULL", 0),
    ("NEEDED", 1),
    ("PLTRELSZ", 2),
    ("PLTGOT", 3),
    ("HASH", 4),
    ("STRTAB", 5),
    ("SYMTAB", 6),
    ("RELA", 7),
    ("RELASZ", 8),
    ("RELAENT", 9),
    ("STRSZ", 10),
    ("SYMENT", 11),
    ("INIT", 12),
    ("FINI", 13),
    ("SONAME", 14),
    ("RPATH", 15),
    ("SYMBOLIC", 16),
    ("REL", 17),
    ("RELSZ", 18),
    ("RELENT", 19),
    ("PLTREL", 20),
    ("DEBUG", 21),
    ("TEXTREL", 22),
    ("JMPREL", 23),
    ("BIND_NOW", 24),
    ("INIT_ARRAY", 25),
    ("FINI_ARRAY", 26),
    ("INIT_ARRAYSZ", 27),
    ("FINI_ARRAYSZ", 28),
    ("RUNPATH", 29),
    ("FLAGS", 30),
    ("PREINIT_ARRAY", 32),
    ("PREINIT_ARRAYSZ", 33),
    ("RELRSZ", 35),
    ("RELR", 36),
    ("RELRENT", 37),
    ("GNU_HASH", 0x6fff_fef5),
    ("VERSYM", 0x6fff_fff0),
    ("RELACOUNT", 0x6fff_fff9),
    ("FLAGS_1", 0x6fff_fffb),
    ("VERDEF", 0x6fff_fffc),
    ("VERDEFNUM", 0x6fff_fffd),
    ("VERNEED", 0x6fff_fffe),
    ("VERNEEDNUM", 0x6fff_ffff),
    ("AUXILIARY", 0x7fff_fffd),
    ("FILTER", 0x7fff_ffff),
];
