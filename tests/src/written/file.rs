//! The file of a plan: where everything lies, and its bytes, both by the `object` crate's writer.

use super::code;
use super::describe::{Description, Hash, Kind, Patch, Room, Symbol};
use super::plan::{is_defined, version, Entry, Plan};
use super::segments;
use super::value::{named, Places, Value};
use crate::loader::SYSTEM;
use crate::{edit, relocations};
use object::elf::{self, SymbolBind, SymbolInfo, SymbolOther, SymbolSection, SymbolType};
use object::write::elf::{FileHeader, Rel, SectionHeader, SectionIndex, Sym, Verdef, Vernaux, Verneed, Writer};
use object::write::StringId;
use object::Endianness;
use std::collections::BTreeMap;

const PAGE: u64 = 4096;

/// The file in the making.
pub struct File<'p> {
    plan: &'p Plan<'p>,
    strings: BTreeMap<&'p str, StringId>,
    /// Those of code and of data.
    sections: [SectionIndex; 2],
    /// Where everything lies.
    pub places: Places,
    /// The end of the image in memory.
    end: u64,
}

/// The bytes of a planned file.
///
/// # Errors
/// It names places that it does not have.
pub fn bytes(plan: &Plan<'_>) -> Result<Vec<u8>, String> {
    let mut content = Vec::new();
    let mut writer = Writer::new(Endianness::Little, true, &mut content);
    let mut file =
        File { plan, strings: BTreeMap::new(), sections: [SectionIndex(0); 2], places: Places::default(), end: 0 };
    file.add_strings(&mut writer);
    let headers = segments::names(plan.description);
    file.reserve(&mut writer, headers.len() as u32)?;
    file.write(&mut writer, &headers)?;
    let patches: Vec<_> = plan.description.patches.iter().map(|patch| file.patch(patch)).collect::<Result<_, _>>()?;
    if !plan.description.sections {
        // The writer wants to know them all the same.
        edit::named(&mut content, "no-sections")?;
    }
    for (at, bytes) in patches {
        let place = content.get_mut(at..).and_then(|rest| rest.get_mut(..bytes.len()));
        place.ok_or_else(|| format!("a patch at {at:#x} is outside the file"))?.copy_from_slice(&bytes);
    }
    Ok(content)
}

fn failed(error: object::write::Error) -> String {
    error.to_string()
}

impl<'p> File<'p> {
    fn description(&self) -> &'p Description {
        self.plan.description
    }

    /// The empty string is the first byte of every string table.
    fn add_strings(&mut self, writer: &mut Writer<'p>) {
        let plan = self.plan;
        let strings = plan.dynamic.iter().filter_map(|(_, entry)| match entry {
            Entry::String(text) => Some(text.as_str()),
            Entry::Value(_) => None,
        });
        let Description { versions, needs, .. } = plan.description;
        let defined = versions.iter().map(String::as_str).chain((!versions.is_empty()).then(|| plan.base_version()));
        let needed = needs.iter().flat_map(|n| n.versions.iter().chain([&n.file])).map(String::as_str);
        let symbols = plan.symbols.iter().map(|s| s.name.as_str());
        for text in strings.chain(defined).chain(needed).chain(symbols).filter(|text| !text.is_empty()) {
            self.strings.insert(text, writer.add_dynamic_string(text.as_bytes()));
        }
        writer.require_dynstr();
    }

    fn string(&self, writer: &Writer<'p>, text: &str) -> u32 {
        self.strings.get(text).map_or(0, |id| writer.dynamic_string_offset(Some(*id)))
    }

    /// Gives everything its place.
    fn reserve(&mut self, writer: &mut Writer<'p>, headers: u32) -> Result<(), String> {
        let description = self.description();
        self.reserve_sections(writer);
        writer.reserve_file_header();
        if !description.headers_at_the_end {
            writer.reserve_program_headers(headers);
        }
        self.places.set("header", description.base)?;
        for (at, name) in segments::HEADER_FIELDS {
            self.places.set(name, description.base + at)?;
        }
        self.reserve_tables(writer)?;
        if description.dynamic_in == Room::ReadOnly {
            self.reserve_dynamic(writer)?;
        }
        self.places.range("read-only", description.base, writer.reserved_len())?;
        self.reserve_code(writer)?;
        self.reserve_data(writer)?;
        writer.reserve_shstrtab().map_err(failed)?;
        writer.reserve_section_headers();
        if description.headers_at_the_end {
            writer.reserve_program_headers(headers);
        }
        Ok(())
    }

    fn reserve_sections(&mut self, writer: &mut Writer<'p>) {
        let Description { hash, gnu_hash, sysv_hash, versions, needs, .. } = self.description();
        writer.reserve_null_section_index();
        writer.reserve_dynsym_section_index();
        writer.reserve_dynstr_section_index();
        if hash.contains(&Hash::Sysv) && sysv_hash.words.is_none() {
            writer.reserve_hash_section_index();
        }
        if hash.contains(&Hash::Gnu) && gnu_hash.words.is_none() {
            writer.reserve_gnu_hash_section_index();
        }
        if self.plan.has_versions() {
            writer.reserve_gnu_versym_section_index();
        }
        if !versions.is_empty() {
            writer.reserve_gnu_verdef_section_index();
        }
        if !needs.is_empty() {
            writer.reserve_gnu_verneed_section_index();
        }
        if !self.plan.relocations.is_empty() {
            writer.reserve_section_index();
        }
        writer.reserve_dynamic_section_index();
        self.sections = [writer.reserve_section_index(), writer.reserve_section_index()];
        writer.reserve_shstrtab_section_index();
    }

    /// Names what was just reserved: from an offset up to the end.
    fn name(&mut self, writer: &Writer<'p>, name: &str, offset: u64) -> Result<(), String> {
        self.places.range(name, self.description().base + offset, writer.reserved_len() - offset)
    }

    fn reserve_tables(&mut self, writer: &mut Writer<'p>) -> Result<(), String> {
        let Description { kind, hash, gnu_hash, sysv_hash, versions, needs, relr, .. } = self.description();
        let count = self.plan.symbols.len() as u32 + 1;
        if *kind != Kind::Library {
            let at = writer.reserve(SYSTEM.len() as u64 + 1, 1);
            self.name(writer, ".interp", at)?;
        }
        if hash.contains(&Hash::Sysv) {
            let at = match &sysv_hash.words {
                Some(words) => writer.reserve(4 * words.len() as u64, 8),
                None => writer.reserve_hash(sysv_hash.buckets, count),
            };
            self.name(writer, ".hash", at)?;
        }
        if hash.contains(&Hash::Gnu) {
            let hashed = self.plan.symbols.len() - self.plan.hashed;
            let at = match &gnu_hash.words {
                Some(words) => writer.reserve(4 * words.len() as u64, 8),
                None => writer.reserve_gnu_hash(gnu_hash.bloom, gnu_hash.buckets, hashed as u32),
            };
            self.name(writer, ".gnu.hash", at)?;
        }
        writer.reserve_null_dynamic_symbol_index();
        for _ in &self.plan.symbols {
            writer.reserve_dynamic_symbol_index();
        }
        let at = writer.reserve_dynsym();
        self.name(writer, ".dynsym", at)?;
        let at = writer.reserve_dynstr().map_err(failed)?;
        self.name(writer, ".dynstr", at)?;
        if self.plan.has_versions() {
            let at = writer.reserve_gnu_versym();
            self.name(writer, ".versym", at)?;
        }
        if !versions.is_empty() {
            let at = writer.reserve_gnu_verdef(versions.len() as u16 + 1, versions.len() + 1);
            self.name(writer, ".verdef", at)?;
        }
        if !needs.is_empty() {
            let at = writer.reserve_gnu_verneed(needs.len() as u16, needs.iter().map(|n| n.versions.len()).sum());
            self.name(writer, ".verneed", at)?;
        }
        let at = writer.reserve_relocations(self.plan.relocations.len(), true);
        self.name(writer, ".rela", at)?;
        let words = relr.as_ref().map_or(self.plan.packed.len(), Vec::len);
        let at = writer.reserve(8 * words as u64, 8);
        self.name(writer, ".relr", at)
    }

    fn reserve_dynamic(&mut self, writer: &mut Writer<'p>) -> Result<(), String> {
        let at = writer.reserve_dynamic(self.plan.dynamic.len() + 1);
        self.name(writer, ".dynamic", at)
    }

    fn reserve_code(&mut self, writer: &mut Writer<'p>) -> Result<(), String> {
        let start = writer.reserve(0, PAGE);
        for symbol in &self.description().symbols {
            if let Some(code) = &symbol.code {
                let length = code::length(code).map_err(|e| format!("{}: {e}", symbol.name))?;
                let at = writer.reserve(length, 16);
                self.name(writer, &symbol.name, at)?;
            }
        }
        self.name(writer, "text", start)
    }

    fn reserve_data(&mut self, writer: &mut Writer<'p>) -> Result<(), String> {
        let description = self.description();
        let start = writer.reserve(0, PAGE);
        if description.dynamic_in == Room::Data {
            self.reserve_dynamic(writer)?;
        }
        for symbol in &description.symbols {
            if let Some(words) = &symbol.words {
                let at = writer.reserve(8 * words.len() as u64, 8);
                self.name(writer, &symbol.name, at)?;
            }
        }
        self.name(writer, "data", start)?;
        self.end = description.base + writer.reserved_len();
        for symbol in &description.symbols {
            if let Some(zeros) = symbol.zeros {
                let start = self.end.next_multiple_of(16);
                self.places.range(&symbol.name, start, zeros)?;
                self.end = start + zeros;
            }
        }
        self.places.set("end", self.end)
    }

    fn write(&self, writer: &mut Writer<'p>, headers: &[String]) -> Result<(), String> {
        let description = self.description();
        let entry = description.entry.as_ref().map_or(Ok(0), |name| self.places.text(name))?;
        writer
            .write_file_header(&FileHeader {
                os_abi: elf::ELFOSABI_NONE,
                abi_version: 0,
                e_type: if description.kind == Kind::Fixed { elf::ET_EXEC } else { elf::ET_DYN },
                e_machine: elf::EM_X86_64,
                e_entry: entry,
                e_flags: elf::FileFlags(0),
            })
            .map_err(failed)?;
        let program_headers = |writer: &mut Writer<'p>| -> Result<(), String> {
            writer.write_align_program_headers();
            for name in headers {
                writer.write_program_header(&segments::header(description, name, &self.places)?);
            }
            Ok(())
        };
        if !description.headers_at_the_end {
            program_headers(writer)?;
        }
        self.write_tables(writer)?;
        if description.dynamic_in == Room::ReadOnly {
            self.write_dynamic(writer)?;
        }
        self.write_code(writer)?;
        self.write_data(writer)?;
        writer.write_shstrtab();
        self.write_section_headers(writer)?;
        if description.headers_at_the_end {
            program_headers(writer)?;
        }
        Ok(())
    }

    fn write_tables(&self, writer: &mut Writer<'p>) -> Result<(), String> {
        let Description { kind, hash, gnu_hash, sysv_hash, .. } = self.description();
        if *kind != Kind::Library {
            writer.write(SYSTEM.as_bytes());
            writer.write(&[0]);
        }
        if hash.contains(&Hash::Sysv) {
            match &sysv_hash.words {
                Some(words) => self.write_words(writer, words, 4)?,
                None => {
                    let count = self.plan.symbols.len() as u32 + 1;
                    writer.write_hash(sysv_hash.buckets, count, |n| self.plan.sysv_hash(n));
                }
            }
        }
        if hash.contains(&Hash::Gnu) {
            match &gnu_hash.words {
                Some(words) => self.write_words(writer, words, 4)?,
                None => {
                    let (first, count) = (self.plan.hashed, self.plan.symbols.len() - self.plan.hashed);
                    let (first, count) = (first as u32 + 1, count as u32);
                    let hash = |n| self.plan.gnu_hash(n);
                    writer.write_gnu_hash(first, gnu_hash.shift, gnu_hash.bloom, gnu_hash.buckets, count, hash);
                }
            }
        }
        writer.write_null_dynamic_symbol();
        for symbol in &self.plan.symbols {
            let entry = self.symbol(writer, symbol).map_err(|e| format!("{}: {e}", symbol.name))?;
            writer.write_dynamic_symbol(&entry);
        }
        writer.write_dynstr();
        self.write_versions(writer)?;
        self.write_relocations(writer)
    }

    fn write_words(&self, writer: &mut Writer<'p>, words: &[Value], size: usize) -> Result<(), String> {
        writer.write_align(8);
        for word in words {
            writer.write(&self.places.value(word)?.to_le_bytes()[..size]);
        }
        Ok(())
    }

    fn symbol(&self, writer: &Writer<'p>, symbol: &Symbol) -> Result<Sym, String> {
        const BINDS: &[(&str, u64)] = &[("local", 0), ("global", 1), ("weak", 2), ("unique", 10)];
        const KINDS: &[(&str, u64)] = &[
            ("notype", 0),
            ("object", 1),
            ("func", 2),
            ("section", 3),
            ("file", 4),
            ("common", 5),
            ("tls", 6),
            ("ifunc", 10),
        ];
        const VISIBILITIES: &[(&str, u64)] = &[("default", 0), ("internal", 1), ("hidden", 2), ("protected", 3)];
        const SECTIONS: &[(&str, u64)] = &[("undef", 0), ("abs", 0xfff1), ("common", 0xfff2)];
        let Symbol { code, words, name, .. } = symbol;
        let or = |value: &Option<Value>, table, default| value.as_ref().map_or(Ok(default), |v| named(v, table));
        let own = is_defined(symbol) && (code.is_some() || words.is_some() || symbol.zeros.is_some());
        let (start, end) = match own {
            true => (self.places.text(name)?, self.places.text(&format!("{name}.end"))?),
            false => (0, 0),
        };
        let value = |value: &Option<Value>, default| value.as_ref().map_or(Ok(default), |v| self.places.value(v));
        let usual = if code.is_some() { 2 } else { u64::from(own) };
        let [text, data] = self.sections;
        let home = if code.is_some() { text } else { data };
        let home = if is_defined(symbol) { u64::from(home.0) } else { 0 };
        let bind = SymbolBind(or(&symbol.bind, BINDS, 1)? as u8);
        let kind = SymbolType(or(&symbol.kind, KINDS, usual)? as u8);
        Ok(Sym {
            section: None,
            st_name: self.string(writer, name),
            st_info: SymbolInfo::new(bind, kind),
            st_other: SymbolOther(or(&symbol.visibility, VISIBILITIES, 0)? as u8),
            st_shndx: SymbolSection(or(&symbol.section, SECTIONS, home)? as u16),
            st_value: value(&symbol.value, start)?,
            st_size: value(&symbol.size, end - start)?,
        })
    }

    fn write_versions(&self, writer: &mut Writer<'p>) -> Result<(), String> {
        let Description { versions, needs, .. } = self.description();
        if self.plan.has_versions() {
            writer.write_null_gnu_versym();
            for symbol in &self.plan.symbols {
                writer.write_gnu_versym(self.plan.version_index(symbol)?);
            }
        }
        if !versions.is_empty() {
            writer.write_align_gnu_verdef();
            let all = [self.plan.base_version()].into_iter().chain(versions.iter().map(String::as_str));
            for (at, name) in all.enumerate() {
                writer.write_gnu_verdef(&Verdef {
                    version: elf::VER_DEF_CURRENT,
                    flags: if at == 0 { elf::VER_FLG_BASE } else { elf::VersionFlags(0) },
                    index: version(at as u16 + 1),
                    aux_count: 1,
                    name: self.string(writer, name),
                    hash: elf::hash(name.as_bytes()),
                });
            }
        }
        if !needs.is_empty() {
            writer.write_align_gnu_verneed();
            let mut index = self.plan.first_needed();
            for need in needs {
                let (version_count, file) = (need.versions.len() as u16, self.string(writer, &need.file));
                writer.write_gnu_verneed(&Verneed { version: elf::VER_NEED_CURRENT, aux_count: version_count, file });
                for name in &need.versions {
                    writer.write_gnu_vernaux(&Vernaux {
                        flags: if need.weak { elf::VER_FLG_WEAK } else { elf::VersionFlags(0) },
                        index: version(index),
                        name: self.string(writer, name),
                        hash: elf::hash(name.as_bytes()),
                    });
                    index += 1;
                }
            }
        }
        Ok(())
    }

    fn write_relocations(&self, writer: &mut Writer<'p>) -> Result<(), String> {
        writer.write_align(8);
        for relocation in &self.plan.relocations {
            let place = &relocation.place;
            writer.write_relocation(
                true,
                &Rel {
                    r_offset: self.places.text(place.symbol)? + 8 * place.word,
                    r_sym: relocation.symbol,
                    r_type: relocation.kind,
                    r_addend: self.places.text(&relocation.addend)? as i64,
                },
            );
        }
        match &self.description().relr {
            Some(words) => self.write_words(writer, words, 8),
            None => {
                writer.write_align(8);
                for place in &self.plan.packed {
                    writer.write(&(self.places.text(place.symbol)? + 8 * place.word).to_le_bytes());
                }
                Ok(())
            }
        }
    }

    fn write_dynamic(&self, writer: &mut Writer<'p>) -> Result<(), String> {
        writer.write_align_dynamic();
        for (tag, entry) in &self.plan.dynamic {
            let value = match entry {
                Entry::String(text) => u64::from(self.string(writer, text)),
                Entry::Value(text) => self.places.text(text)?,
            };
            writer.write_dynamic(*tag, value).map_err(failed)?;
        }
        writer.write_dynamic(elf::DT_NULL, 0).map_err(failed)
    }

    fn write_code(&self, writer: &mut Writer<'p>) -> Result<(), String> {
        writer.write_align(PAGE);
        for symbol in &self.description().symbols {
            if let Some(code) = &symbol.code {
                writer.write_align(16);
                let address = self.places.text(&symbol.name)?;
                let bytes = code::bytes(code, address, &self.places).map_err(|e| format!("{}: {e}", symbol.name))?;
                writer.write(&bytes);
            }
        }
        Ok(())
    }

    fn write_data(&self, writer: &mut Writer<'p>) -> Result<(), String> {
        writer.write_align(PAGE);
        if self.description().dynamic_in == Room::Data {
            self.write_dynamic(writer)?;
        }
        for symbol in &self.description().symbols {
            for word in symbol.words.iter().flatten() {
                let word = self.word(word).map_err(|e| format!("{}: {e}", symbol.name))?;
                writer.write(&word.to_le_bytes());
            }
        }
        Ok(())
    }

    /// What stands at the place of a word before anything is relocated.
    fn word(&self, word: &Value) -> Result<u64, String> {
        match word {
            Value::Text(text) => match text.split_once(' ') {
                Some(("RELR", target)) => self.places.text(target),
                Some((name, _)) if relocations::number(name).is_some() => Ok(0),
                _ => self.places.text(text),
            },
            Value::Number(_) => self.places.value(word),
        }
    }

    fn write_section_headers(&self, writer: &mut Writer<'p>) -> Result<(), String> {
        let at = |name: &str| self.places.text(name);
        writer.write_null_section_header();
        writer.write_dynsym_section_header(at(".dynsym")?, 1);
        writer.write_dynstr_section_header(at(".dynstr")?);
        writer.write_hash_section_header(at(".hash").unwrap_or(0));
        writer.write_gnu_hash_section_header(at(".gnu.hash").unwrap_or(0));
        writer.write_gnu_versym_section_header(at(".versym").unwrap_or(0));
        writer.write_gnu_verdef_section_header(at(".verdef").unwrap_or(0));
        writer.write_gnu_verneed_section_header(at(".verneed").unwrap_or(0));
        if !self.plan.relocations.is_empty() {
            let (start, symbols) = (at(".rela")?, writer.dynsym_index());
            writer.write_section_header(&SectionHeader {
                sh_type: elf::SHT_RELA,
                sh_flags: elf::SHF_ALLOC,
                sh_addr: start,
                sh_offset: start - self.description().base,
                sh_size: 24 * self.plan.relocations.len() as u64,
                sh_link: symbols.0,
                sh_addralign: 8,
                sh_entsize: 24,
                ..SectionHeader::default()
            });
        }
        writer.write_dynamic_section_header(at(".dynamic")?);
        for (name, flag) in [("text", elf::SHF_EXECINSTR), ("data", elf::SHF_WRITE)] {
            let (start, end) = (at(name)?, at(&format!("{name}.end"))?);
            writer.write_section_header(&SectionHeader {
                sh_type: elf::SHT_PROGBITS,
                sh_flags: elf::SectionFlags(elf::SHF_ALLOC.0 | flag.0),
                sh_addr: start,
                sh_offset: start - self.description().base,
                sh_size: end - start,
                sh_addralign: 16,
                ..SectionHeader::default()
            });
        }
        writer.write_shstrtab_section_header();
        Ok(())
    }

    /// The offset of a patch, and its bytes.
    fn patch(&self, patch: &Patch) -> Result<(usize, Vec<u8>), String> {
        let at = self.places.value(&patch.at)?.wrapping_sub(self.description().base) as usize;
        let mut bytes = Vec::new();
        for value in &patch.with {
            let value = self.places.value(value)?.to_le_bytes();
            bytes.extend_from_slice(value.get(..patch.size).ok_or("a patch of more than 8 bytes")?);
        }
        Ok((at, bytes))
    }
}
