//! GNU properties: what an object asks of the machine and of its loader (`NT_GNU_PROPERTY_TYPE_0`, x86-64 psABI "Program
//! Property", Linux Extensions to gABI).
//!
//! The properties are one note, aligned to 8 bytes, in PT_GNU_PROPERTY, or among others in a PT_NOTE of that alignment. As in
//! glibc only the first such note counts, and reading stops at the first malformed property.

#![deny(unsafe_code)]

use super::note;
use super::view::u32_at;

const NT_GNU_PROPERTY_TYPE_0: u32 = 5;
const GNU: &[u8] = b"GNU\0";
const PROPERTY_HEADER: usize = 8;
/// Alignment of property notes in 64-bit objects.
const ALIGNMENT: usize = 8;

/// `GNU_PROPERTY_MEMORY_SEAL`: the object asks that its memory be sealed (`ld -z memory-seal`).
const MEMORY_SEAL: u32 = 3;
/// `GNU_PROPERTY_1_NEEDED`
const NEEDED_1: u32 = 0xb000_8000;
/// `GNU_PROPERTY_1_NEEDED_INDIRECT_EXTERN_ACCESS`
const INDIRECT_EXTERN_ACCESS: u32 = 1;
const X86_FEATURE_1_AND: u32 = 0xc000_0002;
const X86_ISA_1_NEEDED: u32 = 0xc000_8002;

/// The properties of an object that a loader acts upon.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Properties {
    /// `GNU_PROPERTY_X86_ISA_1_NEEDED`: psABI levels the CPU must have (baseline 1, v2 2, v3 4, v4 8). `None`: not stated.
    pub isa_1_needed: Option<u32>,
    /// `GNU_PROPERTY_X86_FEATURE_1_AND`: IBT 1, SHSTK 2, LAM_U48 4, LAM_U57 8.
    pub feature_1_and: u32,
    /// `GNU_PROPERTY_MEMORY_SEAL` is present.
    pub memory_seal: bool,
    /// `GNU_PROPERTY_1_NEEDED_INDIRECT_EXTERN_ACCESS`: others may refer to the object's symbols through their GOT only
    /// (`ld -z indirect-extern-access`).
    pub indirect_extern_access: bool,
}

impl Properties {
    /// The ISA levels that are needed and not among `available`, both as in [`Properties::isa_1_needed`].
    #[must_use]
    pub fn missing_isa_levels(&self, available: u32) -> u32 {
        self.isa_1_needed.unwrap_or(0) & !available
    }
}

/// The properties in `notes`, the content of a PT_GNU_PROPERTY or PT_NOTE segment of alignment `align` (`p_align`). `None` if it
/// holds no property note: the next segment may.
#[must_use]
pub fn properties(notes: &[u8], align: u64) -> Option<Properties> {
    if align != ALIGNMENT as u64 {
        return None;
    }
    let description = find_note(notes)?;
    let mut found = Properties::default();
    let mut last_type = 0;
    let mut rest = description;
    while let Some((kind, data, behind)) = next_property(rest) {
        // Types ascend; an older linker's second list is not read.
        if kind < last_type || !found.take(kind, data) {
            break;
        }
        last_type = kind;
        rest = behind;
    }
    Some(found)
}

impl Properties {
    /// Takes up one property. Returns false if it is malformed.
    fn take(&mut self, kind: u32, data: &[u8]) -> bool {
        let word = (data.len() == 4).then(|| u32_at(data, 0)).flatten();
        match kind {
            X86_ISA_1_NEEDED | X86_FEATURE_1_AND | NEEDED_1 if word.is_none() => return false,
            X86_ISA_1_NEEDED => self.isa_1_needed = word,
            X86_FEATURE_1_AND => self.feature_1_and = word.unwrap_or(0),
            NEEDED_1 => self.indirect_extern_access = word.unwrap_or(0) & INDIRECT_EXTERN_ACCESS != 0,
            MEMORY_SEAL if data.is_empty() => self.memory_seal = true,
            MEMORY_SEAL => return false,
            _ => {}
        }
        true
    }
}

/// The description of the first property note; nothing if it is malformed.
fn find_note(notes: &[u8]) -> Option<&[u8]> {
    let mut notes = note::notes(notes, ALIGNMENT as u64);
    let found = notes.find(|n| n.kind == NT_GNU_PROPERTY_TYPE_0 && n.owner == GNU)?.description;
    (found.len() >= PROPERTY_HEADER && found.len().is_multiple_of(ALIGNMENT)).then_some(found)
}

/// The type and data of the first property, and what follows its padding.
fn next_property(properties: &[u8]) -> Option<(u32, &[u8], &[u8])> {
    let kind = u32_at(properties, 0)?;
    let size = usize::try_from(u32_at(properties, 4)?).ok()?;
    let end = PROPERTY_HEADER.checked_add(size)?;
    let data = properties.get(PROPERTY_HEADER..end)?;
    let behind = properties.get(end.checked_next_multiple_of(ALIGNMENT)?..).unwrap_or_default();
    Some((kind, data, behind))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec::Vec;

    fn note(kind: u32, name: &[u8], description: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for word in [name.len() as u32, description.len() as u32, kind] {
            bytes.extend_from_slice(&word.to_le_bytes());
        }
        bytes.extend_from_slice(name);
        bytes.resize(bytes.len().next_multiple_of(ALIGNMENT), 0);
        bytes.extend_from_slice(description);
        bytes.resize(bytes.len().next_multiple_of(ALIGNMENT), 0);
        bytes
    }

    fn property(kind: u32, data: &[u8]) -> Vec<u8> {
        let mut bytes = [kind.to_le_bytes(), (data.len() as u32).to_le_bytes()].concat();
        bytes.extend_from_slice(data);
        bytes.resize(bytes.len().next_multiple_of(ALIGNMENT), 0);
        bytes
    }

    fn parse(list: &[Vec<u8>]) -> Option<Properties> {
        properties(&note(NT_GNU_PROPERTY_TYPE_0, GNU, &list.concat()), 8)
    }

    #[test]
    fn each_known_property_is_read() {
        let all = [
            property(3, b""),
            property(0xb000_8000, &[1, 0, 0, 0]),
            property(0xc000_0002, &[3, 0, 0, 0]),
            property(0xc000_8002, &[6, 0, 0, 0]),
        ];
        let expected =
            Properties { isa_1_needed: Some(6), feature_1_and: 3, memory_seal: true, indirect_extern_access: true };
        assert_eq!(parse(&all), Some(expected));
        assert_eq!(expected.missing_isa_levels(3), 4);
        assert_eq!(parse(&[property(0xb000_0000, b"other")]), Some(Properties::default()));
    }

    #[test]
    fn other_notes_before_it_are_passed_over() {
        let bytes = [note(3, GNU, &[1; 20]), note(5, b"Xen\0", &[0; 16]), note(5, GNU, &property(3, b""))].concat();
        assert!(properties(&bytes, 8).unwrap().memory_seal);
    }

    #[test]
    fn malformed_notes_say_nothing() {
        let good = note(5, GNU, &property(3, b""));
        assert_eq!(properties(&good, 4), None);
        assert_eq!(properties(&good[..good.len() - 1], 8), None);
        assert_eq!(properties(&note(5, GNU, &[0; 4]), 8), None);
        assert_eq!(properties(&note(5, GNU, &[0; 12]), 8), None);
        assert_eq!(properties(b"", 8), None);
        assert_eq!(properties(&[0xff; 40], 8), None);
    }

    #[test]
    fn reading_stops_at_a_malformed_property() {
        let seal = property(3, b"");
        let wrong_size = property(0xc000_0002, &[3]);
        let isa = property(0xc000_8002, &[1, 0, 0, 0]);
        assert_eq!(
            parse(&[seal.clone(), wrong_size, isa.clone()]),
            Some(Properties { memory_seal: true, ..Properties::default() })
        );
        assert_eq!(parse(&[isa, seal]), Some(Properties { isa_1_needed: Some(1), ..Properties::default() }));
        let mut beyond = property(3, b"");
        beyond[4] = 200;
        assert_eq!(parse(&[beyond]), Some(Properties::default()));
    }

    #[test]
    fn this_machines_libc_states_what_readelf_shows() {
        let path = "/lib/x86_64-linux-gnu/libc.so.6";
        let (Ok(file), Ok(shown)) =
            (std::fs::read(path), std::process::Command::new("readelf").args(["-n", path]).env("LC_ALL", "C").output())
        else {
            std::eprintln!("SKIPPED: no {path} or no readelf here");
            return;
        };
        let header = crate::elf::header::parse(&file).unwrap();
        let table = &file[header.phoff as usize..];
        let headers = (0..header.phnum).filter_map(|index| crate::elf::header::program_header(table, index));
        let segment = headers.into_iter().find(|h| h.p_type == crate::elf::header::PT_GNU_PROPERTY);
        let bytes = |h: &crate::elf::header::ProgramHeader| file[h.p_offset as usize..][..h.p_filesz as usize].to_vec();
        let found = segment.and_then(|h| properties(&bytes(&h), h.p_align)).unwrap_or_default();
        let shown = std::string::String::from_utf8_lossy(&shown.stdout).into_owned();
        assert_eq!(found.feature_1_and & 1 != 0, shown.contains("IBT"), "{shown}");
        assert_eq!(found.feature_1_and & 2 != 0, shown.contains("SHSTK"), "{shown}");
        assert_eq!(
            found.isa_1_needed.is_some_and(|levels| levels & 1 != 0),
            shown.contains("x86 ISA needed: x86-64-baseline")
        );
    }

    proptest! {
        #[test]
        fn any_bytes_give_an_answer(bytes: Vec<u8>, kind in 0..7u32) {
            let _ = properties(&bytes, 8);
            let _ = properties(&note(kind, GNU, &bytes), 8);
        }
    }
}
