//! ELF files that no linker would write, made from nothing by the `object` crate's writer: of a description that says what is unusual,
//! and leaves to this module what is not (`fixtures/README.md`, "Files that no linker would write").
//!
//! * [`describe`]: what a `*.elf.toml` says.
//! * [`value`]: its numbers, which may be distances from places of the file.
//! * [`code`]: its functions, in a few words each.
//! * [`plan`]: what will be in the file; [`segments`]: its program headers; [`mod@file`]: where everything lies, and the bytes.

pub mod code;
pub mod describe;
pub mod file;
pub mod plan;
pub mod segments;
pub mod value;

use std::path::Path;

/// What a file of this description contains.
///
/// # Errors
/// What is wrong with the description.
pub fn bytes(text: &str) -> Result<Vec<u8>, String> {
    let description = toml::from_str(text).map_err(|e| e.to_string())?;
    file::bytes(&plan::Plan::new(&description)?)
}

/// What the file of the description at `path` contains.
///
/// # Errors
/// It can't be read, or what is wrong with it.
pub fn read(path: &Path) -> Result<Vec<u8>, String> {
    let text = std::fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))?;
    bytes(&text).map_err(|e| format!("{}: {e}", path.display()))
}

/// Whether a source is such a description.
pub fn is_description(source: &str) -> bool {
    source.ends_with(".elf.toml")
}

#[cfg(test)]
mod tests {
    use super::*;
    use object::read::elf::ElfFile64;
    use object::{Endianness, Object, ObjectSegment, ObjectSymbol};

    const SOUND: &str = r#"
        hash = ["sysv", "gnu"]
        versions = ["V1"]
        dynamic = ["SONAME libodd.so", "NEEDED libc.so.6", "..."]
        [[need]]
        file = "libc.so.6"
        versions = ["GLIBC_2.2.5"]
        [[symbol]]
        name = "answer"
        code = "return 42"
        version = "V1"
        [[symbol]]
        name = "table"
        words = [7, "RELATIVE answer", "64 puts + 1", "RELR table + 8"]
        [[symbol]]
        name = "puts"
        version = "GLIBC_2.2.5"
        [[symbol]]
        name = "room"
        zeros = 5000
    "#;

    #[test]
    fn a_description_becomes_a_file_that_others_can_read() {
        let bytes = bytes(SOUND).expect("it is sound");
        let file = ElfFile64::<Endianness>::parse(bytes.as_slice()).expect("an ELF file");
        let names: Vec<&str> = file.dynamic_symbols().filter_map(|s| s.name().ok()).collect();
        assert_eq!(names.len(), 4);
        assert!(["answer", "table", "puts", "room"].iter().all(|name| names.contains(name)), "{names:?}");
        let relocations = file.dynamic_relocations().expect("it has some").count();
        assert_eq!((relocations, file.segments().count()), (2, 3));
        let table = file.dynamic_symbols().find(|s| s.name() == Ok("table")).expect("it is there").address();
        let data = file.segments().find(|s| (s.address()..s.address() + s.size()).contains(&table)).expect("loaded");
        let at = (table - data.address()) as usize;
        let word = &data.data().expect("in the file")[at..at + 8];
        assert_eq!(word, 7u64.to_le_bytes());
    }

    #[test]
    fn fields_are_changed_by_their_names() {
        let changed = [
            SOUND,
            "[segment.data]\nfilesz = \"data.end - data + 16\"\n[[patch]]\nat = \"e_phentsize\"\nsize = 2\nwith = [55]",
        ];
        let (before, after) = (bytes(SOUND).expect("sound"), bytes(&changed.join("\n")).expect("it can be written"));
        assert_eq!(before.len(), after.len());
        let different: Vec<usize> = (0..before.len()).filter(|&n| before[n] != after[n]).collect();
        // p_filesz is the fifth field of the third header.
        assert_eq!(different, [0x36, 64 + 2 * 56 + 32]);
    }

    #[test]
    fn nonsense_is_refused() {
        for wrong in [
            "kind = \"object\"",
            "dynamic = [\"UNKNOWN 3\"]",
            "dynamic = [\"HASH .nowhere\"]",
            "segments = [\"nothing\"]",
            "[[symbol]]\nname = \"a\"\ncode = \"jump\"",
            "[[symbol]]\nname = \"a\"\nwords = [\"64 b\"]",
            "[[patch]]\nat = -1\nwith = [1]",
        ] {
            assert!(bytes(wrong).is_err(), "{wrong}");
        }
    }
}
