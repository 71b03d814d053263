//! The program headers of a written file.

use super::describe::{Description, Kind, Room, Segment};
use super::value::{named, Places};
use object::elf::{ProgramFlags, ProgramType};
use object::write::elf::ProgramHeader;

/// The fields of the file header behind its identification: offsets and names.
pub const HEADER_FIELDS: [(u64, &str); 13] = [
    (0x10, "e_type"),
    (0x12, "e_machine"),
    (0x14, "e_version"),
    (0x18, "e_entry"),
    (0x20, "e_phoff"),
    (0x28, "e_shoff"),
    (0x30, "e_flags"),
    (0x34, "e_ehsize"),
    (0x36, "e_phentsize"),
    (0x38, "e_phnum"),
    (0x3a, "e_shentsize"),
    (0x3c, "e_shnum"),
    (0x3e, "e_shstrndx"),
];

/// Types of program headers, without `PT_`.
const TYPES: &[(&str, u64)] = &[
    ("NULL", 0),
    ("LOAD", 1),
    ("DYNAMIC", 2),
    ("INTERP", 3),
    ("NOTE", 4),
    ("SHLIB", 5),
    ("PHDR", 6),
    ("TLS", 7),
    ("GNU_EH_FRAME", 0x6474_e550),
    ("GNU_STACK", 0x6474_e551),
    ("GNU_RELRO", 0x6474_e552),
    ("GNU_PROPERTY", 0x6474_e553),
];

/// The names of the program headers in their order.
pub fn names(description: &Description) -> Vec<String> {
    if let Some(names) = &description.segments {
        return names.clone();
    }
    let program: &[&str] = if description.kind == Kind::Library { &[] } else { &["phdr", "interp"] };
    let usual = program.iter().chain(&["read-only", "text", "data", "dynamic", "stack"]).map(|name| name.to_string());
    let mut names: Vec<String> = usual.collect();
    let new = description.segment.keys().filter(|name| !names.contains(name)).cloned().collect::<Vec<_>>();
    names.extend(new);
    names
}

/// A program header by its name.
///
/// # Errors
/// It names unknown places, or is a new one without a type.
pub fn header(description: &Description, name: &str, places: &Places) -> Result<ProgramHeader, String> {
    let Segment { kind, flags, offset, vaddr, filesz, memsz, align } =
        description.segment.get(name).cloned().unwrap_or_default();
    let value = |value: &Option<_>, default| match value {
        Some(value) => places.value(value).map_err(|e| format!("program header {name}: {e}")),
        None => default,
    };
    let usual = usual(description, name, places)?;
    let usual = usual.as_ref();
    let vaddr = value(&vaddr, Ok(usual.map_or(description.base, |u| u.p_vaddr)))?;
    let filesz = value(&filesz, Ok(usual.map_or(0, |u| u.p_filesz)))?;
    let p_type = match (&kind, usual) {
        (Some(kind), _) => ProgramType(named(kind, TYPES)? as u32),
        (None, Some(usual)) => usual.p_type,
        (None, None) => return Err(format!("program header {name} has no type")),
    };
    Ok(ProgramHeader {
        p_type,
        p_flags: flags.as_ref().map_or(Ok(usual.map_or(ProgramFlags(4), |u| u.p_flags)), |text| letters(text))?,
        p_offset: value(&offset, Ok(usual.map_or(vaddr.wrapping_sub(description.base), |u| u.p_offset)))?,
        p_vaddr: vaddr,
        p_paddr: vaddr,
        p_filesz: filesz,
        p_memsz: value(&memsz, Ok(usual.map_or(filesz, |u| u.p_memsz)))?,
        p_align: value(&align, Ok(usual.map_or(8, |u| u.p_align)))?,
    })
}

/// One that every file has.
fn usual(description: &Description, name: &str, places: &Places) -> Result<Option<ProgramHeader>, String> {
    let dynamic = if description.dynamic_in == Room::Data { "rw" } else { "r" };
    let (kind, flags, place, align) = match name {
        "phdr" => ("PHDR", "r", "", 8),
        "interp" => ("INTERP", "r", ".interp", 1),
        "read-only" => ("LOAD", "r", name, 4096),
        "text" => ("LOAD", "rx", name, 4096),
        "data" => ("LOAD", "rw", name, 4096),
        "dynamic" => ("DYNAMIC", dynamic, ".dynamic", 8),
        "stack" => ("GNU_STACK", "rw", "", 16),
        _ => return Ok(None),
    };
    let (start, end) = match (name, place) {
        ("phdr", _) => {
            let start = description.base + 64;
            (start, start + 56 * names(description).len() as u64)
        }
        (_, "") => (description.base, description.base),
        (_, place) => (places.text(place)?, places.text(&format!("{place}.end"))?),
    };
    let memory = if name == "data" { places.text("end")? - start } else { end - start };
    let address = if name == "stack" { 0 } else { start };
    Ok(Some(ProgramHeader {
        p_type: ProgramType(named(&super::value::Value::Text(kind.into()), TYPES)? as u32),
        p_flags: letters(flags)?,
        p_offset: start - description.base,
        p_vaddr: address,
        p_paddr: address,
        p_filesz: end - start,
        p_memsz: memory,
        p_align: align,
    }))
}

fn letters(text: &str) -> Result<ProgramFlags, String> {
    text.chars().try_fold(ProgramFlags(0), |ProgramFlags(sum), letter| match letter {
        'x' => Ok(ProgramFlags(sum | 1)),
        'w' => Ok(ProgramFlags(sum | 2)),
        'r' => Ok(ProgramFlags(sum | 4)),
        _ => Err(format!("{letter} is none of rwx")),
    })
}
