//! Changes the bytes of an ELF file so that they hold a note, or no longer do.
//!
//! A note counts when a PT_NOTE leads to it and a PT_LOAD maps it. Room for it is looked for where nothing moves: behind the end of a
//! read-only segment, in the rest of its last page. The header is an unused one (PT_NULL), or a PT_NOTE whose contents are copied in
//! front of the note: the one that repeats PT_GNU_PROPERTY, if there is one, so that the build ID stays in the first page. Where one of
//! the two is missing, a page at the end of the file becomes a segment, with the program headers and the note in it.

use crate::elf::{Headers, ReadAt};
use goblin::elf::program_header::{ProgramHeader, PF_R, PF_W, PF_X, PT_LOAD, PT_NOTE, PT_NULL, PT_PHDR};
use loader::elf::header::PT_GNU_PROPERTY;
use loader::elf::note;
use std::ops::Range;

const PAGE: u64 = 4096;
const HEADER_SIZE: u64 = 56;
/// The type that takes the note's place when it is cleared.
const CLEARED: u32 = 0;
/// How much a file may grow so that its new segment lies at the offset which old kernels (before Linux 5.18) expect.
const CONGRUENT: u64 = 16 << 20;

/// What was done.
#[derive(Debug, PartialEq, Eq)]
pub enum Edited {
    /// It was so already.
    Unchanged,
    /// The word in a note that was there.
    Switched,
    /// The note lies in room that was free.
    InPadding,
    /// The note lies in a segment of its own.
    NewSegment,
}

type Result<T> = std::result::Result<T, String>;

/// Whether a file opts out of sealing.
///
/// # Errors
/// It is no file that could be loaded.
pub fn is_marked(bytes: &[u8]) -> Result<bool> {
    Ok(own_note(bytes, &headers(bytes)?).is_some_and(|(_, kind)| kind == note::NO_SEAL))
}

/// Makes a file opt out.
///
/// # Errors
/// It is no file that could be loaded, or has headers that can't be extended.
pub fn mark(bytes: &mut Vec<u8>) -> Result<Edited> {
    let headers = headers(bytes)?;
    let is_whole = |h: &ProgramHeader| file_range(h).is_some_and(|range| range.end <= bytes.len() as u64);
    if !headers.segments.iter().filter(|h| h.p_type == PT_LOAD).all(is_whole) {
        // A note behind the end would make it long enough to be mapped, with zeros for what it lacks.
        return Err("the file is shorter than its segments".into());
    }
    if let Some((at, kind)) = own_note(bytes, &headers) {
        return Ok(switch(bytes, at, kind, note::NO_SEAL));
    }
    let edited = match in_padding(bytes, &headers) {
        Some(()) => Edited::InPadding,
        None => {
            new_segment(bytes, headers)?;
            Edited::NewSegment
        }
    };
    match is_marked(bytes)? {
        true => Ok(edited),
        false => Err("can't be marked: its headers leave no place for a note".into()),
    }
}

/// Takes a mark away: the note stays and says nothing.
///
/// # Errors
/// It is no file that could be loaded.
pub fn clear(bytes: &mut [u8]) -> Result<Edited> {
    let headers = headers(bytes)?;
    match own_note(bytes, &headers) {
        Some((at, kind)) => Ok(switch(bytes, at, kind, CLEARED)),
        None => Ok(Edited::Unchanged),
    }
}

fn headers(bytes: &[u8]) -> Result<Headers> {
    let machine = bytes.get(18..20);
    let headers = Headers::read(bytes).filter(|_| machine == Some(&[62, 0]));
    headers.ok_or_else(|| "not a program or library for x86-64".into())
}

fn switch(bytes: &mut [u8], at: usize, from: u32, to: u32) -> Edited {
    if from == to {
        return Edited::Unchanged;
    }
    bytes[at..at + 4].copy_from_slice(&to.to_le_bytes());
    Edited::Switched
}

/// Where the type of this project's note lies in the file, and what it is.
fn own_note(bytes: &[u8], headers: &Headers) -> Option<(usize, u32)> {
    let mut segments = headers.segments.iter().filter(|h| h.p_type == PT_NOTE && is_loaded(headers, h));
    segments.find_map(|h| {
        let content = contents(bytes, h)?;
        let own = note::notes(content, h.p_align).find(|n| n.owner == note::OWNER)?;
        // The owner's name follows three words, of which the type is the last.
        let at = own.owner.as_ptr() as usize - bytes.as_ptr() as usize - 4;
        Some((at, own.kind))
    })
}

fn contents<'b>(bytes: &'b [u8], h: &ProgramHeader) -> Option<&'b [u8]> {
    let range = file_range(h)?;
    bytes.get(usize::try_from(range.start).ok()?..usize::try_from(range.end).ok()?)
}

fn file_range(h: &ProgramHeader) -> Option<Range<u64>> {
    Some(h.p_offset..h.p_offset.checked_add(h.p_filesz)?)
}

/// Whether the bytes of a segment are mapped where it says.
fn is_loaded(headers: &Headers, h: &ProgramHeader) -> bool {
    headers.segments.iter().filter(|l| l.p_type == PT_LOAD).any(|l| {
        let inside = h.p_offset >= l.p_offset && h.p_offset - l.p_offset <= l.p_filesz.saturating_sub(h.p_filesz);
        inside && h.p_vaddr.wrapping_sub(l.p_vaddr) == h.p_offset - l.p_offset && h.p_filesz <= l.p_filesz
    })
}

/// The header that is to lead to the note, and what it leads to already.
fn slot<'b>(bytes: &'b [u8], headers: &Headers) -> Option<(usize, &'b [u8], u64)> {
    let segments = &headers.segments;
    if let Some(index) = segments.iter().position(|h| h.p_type == PT_NULL) {
        return Some((index, &[], 4));
    }
    let place = |h: &ProgramHeader| (h.p_offset, h.p_filesz);
    let property = headers.segment(PT_GNU_PROPERTY).map(place);
    let is_note = |h: &&ProgramHeader| h.p_type == PT_NOTE && matches!(h.p_align, 4 | 8) && is_loaded(headers, h);
    let repeats = segments.iter().position(|h| is_note(&h) && Some(place(h)) == property);
    let index = repeats.or_else(|| segments.iter().rposition(|h| is_note(&h)))?;
    Some((index, contents(bytes, &segments[index])?, segments[index].p_align))
}

/// Notes followed by this project's.
fn with_note(before: &[u8], align: u64) -> Vec<u8> {
    let align = align as usize;
    let mut notes = before.to_vec();
    notes.resize(notes.len().next_multiple_of(align), 0);
    for word in [note::OWNER.len() as u32, 0, note::NO_SEAL] {
        notes.extend(word.to_le_bytes());
    }
    notes.extend(note::OWNER);
    notes.resize(notes.len().next_multiple_of(align), 0);
    notes
}

fn in_padding(bytes: &mut [u8], headers: &Headers) -> Option<()> {
    let (index, before, align) = slot(bytes, headers)?;
    let notes = with_note(before, align);
    let load = |execute| {
        headers.segments.iter().position(|h| {
            let fits = h.p_type == PT_LOAD && h.p_flags & (PF_R | PF_W | PF_X) == PF_R | execute;
            fits && room(bytes, headers, h, align, notes.len() as u64).is_some()
        })
    };
    let load = load(0).or_else(|| load(PF_X))?;
    let at = room(bytes, headers, &headers.segments[load], align, notes.len() as u64)?;
    let mut host = headers.segments[load].clone();
    let vaddr = host.p_vaddr + (at - host.p_offset);
    host.p_filesz = at - host.p_offset + notes.len() as u64;
    host.p_memsz = host.p_filesz;
    let note = note_header(at, vaddr, notes.len() as u64, align);
    bytes[at as usize..][..notes.len()].copy_from_slice(&notes);
    put(bytes, headers.file.e_phoff, load, &host);
    put(bytes, headers.file.e_phoff, index, &note);
    Some(())
}

fn note_header(offset: u64, vaddr: u64, size: u64, align: u64) -> ProgramHeader {
    ProgramHeader {
        p_type: PT_NOTE,
        p_flags: PF_R,
        p_offset: offset,
        p_vaddr: vaddr,
        p_paddr: vaddr,
        p_filesz: size,
        p_memsz: size,
        p_align: align,
    }
}

/// The offset behind a segment from which so many bytes are free: zero, in the segment's last page, and in no section, segment or table.
fn room(bytes: &[u8], headers: &Headers, host: &ProgramHeader, align: u64, size: u64) -> Option<u64> {
    if host.p_filesz != host.p_memsz || host.p_filesz == 0 || host.p_vaddr % PAGE != host.p_offset % PAGE {
        return None;
    }
    let behind = file_range(host)?.end;
    let start = behind.checked_next_multiple_of(align)?;
    let wanted = start..start.checked_add(size)?;
    let page_end = behind.checked_next_multiple_of(PAGE)?;
    let whole = behind..wanted.end;
    let free = bytes.get(usize::try_from(behind).ok()?..usize::try_from(wanted.end).ok()?)?.iter().all(|&b| b == 0);
    let last_page = (host.p_vaddr.checked_add(host.p_filesz)? - 1) / PAGE;
    let shares_page = |h: &ProgramHeader| {
        let end = h.p_vaddr.saturating_add(h.p_memsz.max(1)) - 1;
        h.p_type == PT_LOAD && !std::ptr::eq(h, host) && (h.p_vaddr / PAGE..=end / PAGE).contains(&last_page)
    };
    let other = |h: &ProgramHeader| !std::ptr::eq(h, host) && file_range(h).is_none_or(|range| overlap(&range, &whole));
    let taken = headers.segments.iter().any(|h| h.p_type != PT_NULL && (shares_page(h) || other(h)))
        || used_by_sections(bytes, headers)?.iter().any(|range| overlap(range, &whole));
    (wanted.end <= page_end && free && !taken).then_some(start)
}

fn overlap(a: &Range<u64>, b: &Range<u64>) -> bool {
    a.start < b.end && b.start < a.end
}

/// The bytes of the file that belong to sections, and to the tables of headers.
fn used_by_sections(bytes: &[u8], headers: &Headers) -> Option<Vec<Range<u64>>> {
    use goblin::container::{Container, Ctx, Endian};
    use goblin::elf::section_header::{SectionHeader, SHT_NOBITS};
    let file = &headers.file;
    let table = |start: u64, size: u16, count: usize| Some(start..start.checked_add(u64::from(size) * count as u64)?);
    let mut used = vec![table(file.e_phoff, file.e_phentsize, usize::from(file.e_phnum))?, 0..64];
    let count = usize::from(file.e_shnum);
    if file.e_shoff == 0 || count == 0 {
        return Some(used);
    }
    used.push(table(file.e_shoff, file.e_shentsize, count)?);
    let content = bytes.read_at(file.e_shoff, usize::from(file.e_shentsize) * count).ok()?;
    let sections = SectionHeader::parse(&content, 0, count, Ctx::new(Container::Big, Endian::Little)).ok()?;
    let held = sections.iter().filter(|s| s.sh_type != SHT_NOBITS);
    used.extend(held.map(|s| s.sh_offset..s.sh_offset.saturating_add(s.sh_size)));
    Some(used)
}

/// Gives the file a segment at its end, with the program headers and the note.
fn new_segment(bytes: &mut Vec<u8>, mut headers: Headers) -> Result<()> {
    let unfit = || String::from("can't be marked: its segments leave no room");
    let loads = || headers.segments.iter().enumerate().filter(|(_, h)| h.p_type == PT_LOAD);
    let (first, last) = loads().next().zip(loads().next_back()).ok_or_else(unfit)?;
    let ends = loads().map(|(_, h)| h.p_vaddr.checked_add(h.p_memsz)).collect::<Option<Vec<u64>>>();
    let vaddr = ends.and_then(|e| e.into_iter().max()?.checked_next_multiple_of(PAGE)).ok_or_else(unfit)?;
    let end = (bytes.len() as u64).next_multiple_of(PAGE);
    let congruent = vaddr.wrapping_sub(first.1.p_vaddr).wrapping_add(first.1.p_offset);
    let offset = if congruent >= end && congruent - end <= CONGRUENT { congruent } else { end };
    let load_at = last.0 + 1;
    let align = 4;
    let count = headers.segments.len() as u64 + 2;
    if count > 0xfffe / HEADER_SIZE {
        return Err(unfit());
    }
    let table_size = count * HEADER_SIZE;
    let note_at = table_size.next_multiple_of(align);
    let notes = with_note(&[], align);
    let size = note_at + notes.len() as u64;
    let mut load = note_header(offset, vaddr, size, PAGE);
    load.p_type = PT_LOAD;
    headers.segments.insert(load_at, load);
    headers.segments.push(note_header(offset + note_at, vaddr + note_at, notes.len() as u64, align));
    for h in headers.segments.iter_mut().filter(|h| h.p_type == PT_PHDR) {
        (h.p_offset, h.p_vaddr, h.p_paddr) = (offset, vaddr, vaddr);
        (h.p_filesz, h.p_memsz) = (table_size, table_size);
    }
    bytes.resize(offset as usize, 0);
    bytes.resize((offset + size) as usize, 0);
    bytes[(offset + note_at) as usize..].copy_from_slice(&notes);
    for (index, h) in headers.segments.iter().enumerate() {
        put(bytes, offset, index, h);
    }
    bytes[32..40].copy_from_slice(&offset.to_le_bytes());
    bytes[56..58].copy_from_slice(&(count as u16).to_le_bytes());
    Ok(())
}

/// Writes a program header into the table at `table`, which lies in the file.
fn put(bytes: &mut [u8], table: u64, index: usize, h: &ProgramHeader) {
    let at = (table + index as u64 * HEADER_SIZE) as usize;
    let mut raw = Vec::with_capacity(HEADER_SIZE as usize);
    raw.extend(h.p_type.to_le_bytes());
    raw.extend(h.p_flags.to_le_bytes());
    for value in [h.p_offset, h.p_vaddr, h.p_paddr, h.p_filesz, h.p_memsz, h.p_align] {
        raw.extend(value.to_le_bytes());
    }
    bytes[at..at + raw.len()].copy_from_slice(&raw);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own() -> Vec<u8> {
        std::fs::read("/bin/true").expect("a program")
    }

    #[test]
    fn a_program_is_marked_and_cleared() {
        let original = own();
        let mut bytes = original.clone();
        assert_eq!(is_marked(&bytes), Ok(false));
        assert_eq!(clear(&mut bytes), Ok(Edited::Unchanged));
        assert!(matches!(mark(&mut bytes), Ok(Edited::InPadding | Edited::NewSegment)));
        assert_eq!(is_marked(&bytes), Ok(true));
        let marked = bytes.clone();
        assert_eq!(mark(&mut bytes), Ok(Edited::Unchanged));
        assert_eq!(clear(&mut bytes), Ok(Edited::Switched));
        assert_eq!((is_marked(&bytes), bytes.len()), (Ok(false), marked.len()));
        assert_eq!(mark(&mut bytes), Ok(Edited::Switched));
        assert_eq!(bytes, marked);
    }

    #[test]
    fn other_notes_are_kept() {
        let mut bytes = own();
        let kinds = |bytes: &[u8]| -> Vec<(Vec<u8>, u32)> {
            let headers = headers(bytes).expect("an ELF file");
            let notes = headers.segments.iter().filter(|h| h.p_type == PT_NOTE);
            let all = notes.flat_map(|h| note::notes(contents(bytes, h).expect("inside"), h.p_align));
            all.map(|n| (n.owner.to_vec(), n.kind)).collect()
        };
        let before = kinds(&bytes);
        mark(&mut bytes).expect("marked");
        let mut after = kinds(&bytes);
        let own = after.iter().position(|(owner, _)| owner == note::OWNER).expect("the note");
        after.remove(own);
        assert_eq!(before, after);
    }

    #[test]
    fn a_new_segment_holds_the_headers() {
        let mut bytes = own();
        let before = headers(&bytes).expect("an ELF file");
        let old = headers(&bytes).expect("an ELF file");
        new_segment(&mut bytes, old).expect("room");
        let after = headers(&bytes).expect("still an ELF file");
        assert_eq!(after.segments.len(), before.segments.len() + 2);
        assert_eq!(is_marked(&bytes), Ok(true));
        let table = after.segment(PT_PHDR).expect("PT_PHDR");
        assert_eq!(table.p_offset, after.file.e_phoff);
        assert!(is_loaded(&after, table));
    }

    #[test]
    fn other_files_are_refused() {
        for file in [&b"#!/bin/sh\n"[..], b"\x7fELF", &own()[..100]] {
            assert!(mark(&mut file.to_vec()).is_err());
        }
    }

    #[test]
    fn a_file_without_its_end_is_refused() {
        let whole = own();
        let headers = Headers::read(whole.as_slice()).expect("this very test is an ELF file");
        let loaded = headers.segments.iter().filter(|h| h.p_type == PT_LOAD);
        let end = loaded.map(|h| h.p_offset + h.p_filesz).max().expect("it is loaded") as usize;
        let mut short = whole[..end - 1].to_vec();
        assert!(mark(&mut short).is_err());
        assert_eq!(short, whole[..end - 1]);
        assert!(mark(&mut whole[..end].to_vec()).is_ok());
    }

    proptest::proptest! {
        #[test]
        fn any_damage_is_survived(damage in proptest::collection::vec((0usize..1200, proptest::prelude::any::<u8>()), 1..20)) {
            let mut file = own();
            for (at, value) in damage {
                file[at] = value;
            }
            let _ = clear(&mut file.clone());
            if mark(&mut file).is_ok() {
                assert_eq!(is_marked(&file), Ok(true));
            }
        }
    }
}
