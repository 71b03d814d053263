//! Which kinds of dynamic relocations a file holds.

use object::elf::{self, RelocationType, SHT_RELR};
use object::read::elf::{ElfFile64, SectionHeader};
use object::{Endianness, Object, RelocationFlags};

/// The types of dynamic relocations of x86-64, by their names in the psABI without `R_X86_64_`.
const NAMES: [(&str, RelocationType); 16] = [
    ("NONE", elf::R_X86_64_NONE),
    ("64", elf::R_X86_64_64),
    ("PC32", elf::R_X86_64_PC32),
    ("COPY", elf::R_X86_64_COPY),
    ("GLOB_DAT", elf::R_X86_64_GLOB_DAT),
    ("JUMP_SLOT", elf::R_X86_64_JUMP_SLOT),
    ("RELATIVE", elf::R_X86_64_RELATIVE),
    ("32", elf::R_X86_64_32),
    ("DTPMOD64", elf::R_X86_64_DTPMOD64),
    ("DTPOFF64", elf::R_X86_64_DTPOFF64),
    ("TPOFF64", elf::R_X86_64_TPOFF64),
    ("PC64", elf::R_X86_64_PC64),
    ("SIZE32", elf::R_X86_64_SIZE32),
    ("SIZE64", elf::R_X86_64_SIZE64),
    ("TLSDESC", elf::R_X86_64_TLSDESC),
    ("IRELATIVE", elf::R_X86_64_IRELATIVE),
];

/// The type of dynamic relocations with this name.
pub fn number(name: &str) -> Option<RelocationType> {
    NAMES.iter().find(|(known, _)| *known == name).map(|(_, number)| *number)
}

/// The first of `wanted` that the ELF file `bytes` holds none of.
///
/// # Errors
/// It is not an ELF file, or a name of `wanted` is unknown.
pub fn missing<'w>(bytes: &[u8], wanted: &'w [String]) -> Result<Option<&'w str>, String> {
    if wanted.is_empty() {
        return Ok(None);
    }
    let file = ElfFile64::<Endianness>::parse(bytes).map_err(|e| e.to_string())?;
    let relocations = file.dynamic_relocations().into_iter().flatten();
    let types: Vec<RelocationType> = relocations
        .filter_map(|(_, relocation)| match relocation.flags() {
            RelocationFlags::Elf { r_type } => Some(r_type),
            _ => None,
        })
        .collect();
    let packed = file.elf_section_table().iter().any(|s| s.sh_type(Endianness::Little) == SHT_RELR);
    for name in wanted {
        let found = match number(name) {
            Some(number) => types.contains(&number),
            None if name == "RELR" => packed,
            None => return Err(format!("{name}: unknown name of a relocation")),
        };
        if !found {
            return Ok(Some(name));
        }
    }
    Ok(None)
}
