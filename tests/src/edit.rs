//! Changing a program header of a linked file: what newer linkers write and this machine's may not.

use object::elf::{FileHeader64, ProgramHeader64, ProgramType, PT_DYNAMIC, PT_LOAD, PT_NOTE, SHN_UNDEF};
use object::read::elf::{FileHeader, SectionHeader};
use object::{pod, Endianness, LittleEndian as LE};

/// `PT_GNU_MUTABLE`
pub const PT_GNU_MUTABLE: ProgramType = ProgramType(0x6474_f555);

/// Turns a program header, the first whose type is among `from`, into one of type `to` for the section of this name.
///
/// # Errors
/// There is no such header or section, or it is no ELF file.
pub fn point(bytes: &mut [u8], from: &[ProgramType], to: ProgramType, section: &str) -> Result<(), String> {
    let read = |e: object::read::Error| e.to_string();
    let (place, table, count) = {
        let header = FileHeader64::<Endianness>::parse(&*bytes).map_err(read)?;
        let endian = header.endian().map_err(read)?;
        let sections = header.sections(endian, &*bytes).map_err(read)?;
        let (_, found) = sections.section_by_name(endian, section.as_bytes()).ok_or(format!("no section {section}"))?;
        let place = [found.sh_offset(endian), found.sh_addr(endian), found.sh_size(endian), found.sh_addralign(endian)];
        (place, header.e_phoff.get(endian) as usize, usize::from(header.e_phnum.get(endian)))
    };
    let table = bytes.get_mut(table..).ok_or("no program headers")?;
    let (headers, _) = pod::slice_from_bytes_mut::<ProgramHeader64<LE>>(table, count)
        .map_err(|()| "no program headers".to_string())?;
    let wanted = |p_type: &ProgramType| headers.iter().position(|h| h.p_type.get(LE) == *p_type);
    let index = from.iter().find_map(wanted).ok_or(format!("no header of the types {from:x?}"))?;
    let header = &mut headers[index];
    let [offset, address, size, align] = place;
    header.p_type.set(LE, to);
    header.p_offset.set(LE, offset);
    header.p_vaddr.set(LE, address);
    header.p_paddr.set(LE, address);
    header.p_filesz.set(LE, size);
    header.p_memsz.set(LE, size);
    header.p_align.set(LE, align);
    Ok(())
}

/// Sets the value of the entries of the dynamic section with this tag.
///
/// # Errors
/// There is no such entry, or it is no ELF file.
pub fn set_dynamic(bytes: &mut [u8], tag: u64, value: u64) -> Result<(), String> {
    change_dynamic(bytes, tag, tag, value)
}

/// Says by DT_BIND_NOW alone, as linkers did once, that functions are bound at start-up.
fn old_bind_now(bytes: &mut [u8]) -> Result<(), String> {
    const DT_BIND_NOW: u64 = 24;
    const DT_FLAGS: u64 = 30;
    const DT_FLAGS_1: u64 = 0x6fff_fffb;
    // There may be none.
    let _ = set_dynamic(bytes, DT_FLAGS, 0);
    change_dynamic(bytes, DT_FLAGS_1, DT_BIND_NOW, 0)
}

/// Sets the tag and the value of the entries of the dynamic section with a tag.
fn change_dynamic(bytes: &mut [u8], tag: u64, new: u64, value: u64) -> Result<(), String> {
    let read = |e: object::read::Error| e.to_string();
    let header = FileHeader64::<Endianness>::parse(&*bytes).map_err(read)?;
    let endian = header.endian().map_err(read)?;
    let headers = header.program_headers(endian, &*bytes).map_err(read)?;
    let dynamic = headers.iter().find(|h| h.p_type.get(endian) == PT_DYNAMIC).ok_or("no dynamic section")?;
    let (at, size) = (dynamic.p_offset.get(endian) as usize, dynamic.p_filesz.get(endian) as usize);
    let section = bytes.get_mut(at..at + size).ok_or("a dynamic section outside the file")?;
    let entries = section.chunks_exact_mut(16).filter(|entry| entry[..8] == tag.to_le_bytes());
    let mut count = 0;
    for entry in entries {
        entry[..8].copy_from_slice(&new.to_le_bytes());
        entry[8..].copy_from_slice(&value.to_le_bytes());
        count += 1;
    }
    if count == 0 {
        Err(format!("no dynamic entry with tag {tag:#x}"))
    } else {
        Ok(())
    }
}

/// Does what a manifest's `edits` names.
///
/// # Errors
/// There is no such edit, or the file has not what it needs.
pub fn named(bytes: &mut [u8], name: &str) -> Result<(), String> {
    match name {
        "no-sections" => no_sections(bytes),
        "empty-segments" => empty_segment(bytes),
        "prelinked" => prelinked(bytes),
        "old-bind-now" => old_bind_now(bytes),
        _ => {
            let align = name.strip_prefix("align=").and_then(|number| number.parse().ok());
            segment_alignment(bytes, align.ok_or(format!("no edit {name}"))?)
        }
    }
}

/// The program headers of a file.
fn headers(bytes: &mut [u8]) -> Result<&mut [ProgramHeader64<LE>], String> {
    let header = FileHeader64::<Endianness>::parse(&*bytes).map_err(|e| e.to_string())?;
    let table = header.e_phoff.get(Endianness::Little) as usize;
    let count = usize::from(header.e_phnum.get(Endianness::Little));
    let table = bytes.get_mut(table..).ok_or("no program headers")?;
    pod::slice_from_bytes_mut(table, count).map(|(headers, _)| headers).map_err(|()| "no program headers".to_string())
}

/// Takes the section headers away: `e_shoff`, `e_shnum` and `e_shstrndx` become 0, and the table itself is overwritten.
fn no_sections(bytes: &mut [u8]) -> Result<(), String> {
    let (header, _) = pod::from_bytes_mut::<FileHeader64<LE>>(bytes).map_err(|()| "no ELF header")?;
    let at = header.e_shoff.get(LE) as usize;
    let size = usize::from(header.e_shnum.get(LE)) * usize::from(header.e_shentsize.get(LE));
    header.e_shoff.set(LE, 0);
    header.e_shnum.set(LE, 0);
    header.e_shentsize.set(LE, 0);
    header.e_shstrndx.set(LE, SHN_UNDEF);
    bytes.get_mut(at..at + size).ok_or("a section table outside the file")?.fill(0xee);
    Ok(())
}

/// Makes an empty PT_LOAD, on the page behind the last segment, of the first PT_NOTE.
fn empty_segment(bytes: &mut [u8]) -> Result<(), String> {
    let headers = headers(bytes)?;
    let note = headers.iter().position(|h| h.p_type.get(LE) == PT_NOTE).ok_or("no PT_NOTE to make it of")?;
    let last = headers.iter().rposition(|h| h.p_type.get(LE) == PT_LOAD).ok_or("no PT_LOAD")?;
    let end = (headers[last].p_vaddr.get(LE) + headers[last].p_memsz.get(LE)).next_multiple_of(4096);
    if note < last {
        // It must come behind the last one: PT_LOAD headers are in the order of their addresses.
        headers[note..=last].rotate_left(1);
    }
    let empty = &mut headers[note.max(last)];
    empty.p_type.set(LE, PT_LOAD);
    for (field, value) in [
        (&mut empty.p_offset, 0),
        (&mut empty.p_vaddr, end),
        (&mut empty.p_paddr, end),
        (&mut empty.p_filesz, 0),
        (&mut empty.p_memsz, 0),
        (&mut empty.p_align, 4096),
    ] {
        field.set(LE, value);
    }
    Ok(())
}

/// Sets the alignment of all PT_LOAD.
fn segment_alignment(bytes: &mut [u8], align: u64) -> Result<(), String> {
    for header in headers(bytes)?.iter_mut().filter(|h| h.p_type.get(LE) == PT_LOAD) {
        header.p_align.set(LE, align);
    }
    Ok(())
}

/// Adds what prelink(8) adds to the dynamic section of a library: DT_GNU_PRELINKED, when it was done, and DT_CHECKSUM. The linker leaves
/// room for such entries. (That it is laid out for an address of its own is `-Ttext-segment`.)
fn prelinked(bytes: &mut [u8]) -> Result<(), String> {
    const ENTRIES: [(u64, u64); 2] = [(0x6fff_fdf5, 0x6123_4567), (0x6fff_fdf8, 0x1234_5678)];
    let dynamic = headers(bytes)?.iter().find(|h| h.p_type.get(LE) == PT_DYNAMIC).copied().ok_or("no PT_DYNAMIC")?;
    let (at, size) = (dynamic.p_offset.get(LE) as usize, dynamic.p_filesz.get(LE) as usize);
    let section = bytes.get_mut(at..at + size).ok_or("a dynamic section outside the file")?;
    let used = section.chunks_exact(16).position(|entry| entry[..8] == [0; 8]).ok_or("no DT_NULL")?;
    // One more stays, the end.
    if size / 16 < used + ENTRIES.len() + 1 {
        return Err("no room for more dynamic entries".into());
    }
    for (entry, (tag, value)) in section.chunks_exact_mut(16).skip(used).zip(ENTRIES) {
        entry[..8].copy_from_slice(&tag.to_le_bytes());
        entry[8..].copy_from_slice(&value.to_le_bytes());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_leads_to_the_section() {
        let mut bytes = std::fs::read("/bin/true").expect("a program");
        point(&mut bytes, &[PT_NOTE], PT_GNU_MUTABLE, ".data").expect("it has both");
        assert!(point(&mut bytes, &[PT_NOTE], PT_GNU_MUTABLE, ".nothing").is_err());
        let header = FileHeader64::<Endianness>::parse(bytes.as_slice()).expect("still an ELF file");
        let headers = header.program_headers(Endianness::Little, bytes.as_slice()).expect("headers");
        assert!(headers.iter().any(|h| h.p_type.get(Endianness::Little) == PT_GNU_MUTABLE));
    }

    #[test]
    fn every_edit_changes_the_file_and_others_are_refused() {
        let before = std::fs::read("/bin/true").expect("a program");
        for name in ["no-sections", "empty-segments", "prelinked", "align=16"] {
            let mut bytes = before.clone();
            named(&mut bytes, name).expect("it can be done");
            assert!(bytes != before, "{name}");
        }
        assert!(named(&mut before.clone(), "nothing").is_err());
        // A position-independent program has DT_FLAGS_1.
        let mut bytes = before.clone();
        named(&mut bytes, "old-bind-now").expect("it can be done");
        assert!(bytes != before && named(&mut bytes, "old-bind-now").is_err());
    }

    #[test]
    fn a_dynamic_entry_is_set() {
        const DT_STRSZ: u64 = 10;
        let mut bytes = std::fs::read("/bin/true").expect("a program");
        let before = bytes.clone();
        set_dynamic(&mut bytes, DT_STRSZ, 1).expect("every object has one");
        assert!(bytes != before && bytes.len() == before.len());
        assert!(set_dynamic(&mut bytes, 0x1234_5678, 1).is_err());
    }
}
