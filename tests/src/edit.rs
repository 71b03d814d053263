//! Changing a program header of a linked file: what newer linkers write and this machine's may not.

use object::elf::{FileHeader64, ProgramHeader64, ProgramType};
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
}
