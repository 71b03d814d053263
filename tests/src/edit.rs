//! Changing a program header of a linked file: what newer linkers write and this machine's may not.

use object::elf::{FileHeader64, ProgramHeader64, ProgramType, PT_DYNAMIC};
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
    let read = |e: object::read::Error| e.to_string();
    let header = FileHeader64::<Endianness>::parse(&*bytes).map_err(read)?;
    let endian = header.endian().map_err(read)?;
    let headers = header.program_headers(endian, &*bytes).map_err(read)?;
    let dynamic = headers.iter().find(|h| h.p_type.get(endian) == PT_DYNAMIC).ok_or("no dynamic section")?;
    let (at, size) = (dynamic.p_offset.get(endian) as usize, dynamic.p_filesz.get(endian) as usize);
    let section = bytes.get_mut(at..at + size).ok_or("a dynamic section outside the file")?;
    let entries = section.chunks_exact_mut(16).filter(|entry| entry[..8] == tag.to_le_bytes());
    let count = entries.map(|entry| entry[8..].copy_from_slice(&value.to_le_bytes())).count();
    if count == 0 {
        Err(format!("no dynamic entry with tag {tag:#x}"))
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use object::elf::PT_NOTE;

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
    fn a_dynamic_entry_is_set() {
        const DT_STRSZ: u64 = 10;
        let mut bytes = std::fs::read("/bin/true").expect("a program");
        let before = bytes.clone();
        set_dynamic(&mut bytes, DT_STRSZ, 1).expect("every object has one");
        assert!(bytes != before && bytes.len() == before.len());
        assert!(set_dynamic(&mut bytes, 0x1234_5678, 1).is_err());
    }
}
