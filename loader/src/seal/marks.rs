//! What an object itself says about being sealed.

use crate::addr::VAddr;
use crate::elf::header::{self, ProgramHeader, PT_GNU_PROPERTY};
use crate::elf::note;
use crate::elf::property::{self, Properties};
use crate::image::Image;
use goblin::elf64::program_header::PT_NOTE;

/// Whether a note of the object asks that it not be sealed (owner `ldseal`, written by `ldseal mark --no-seal`).
pub fn opts_out(headers: &[ProgramHeader], image: &Image) -> bool {
    segments(headers, image, PT_NOTE).any(|(bytes, align)| note::opts_out(bytes, align))
}

/// Whether the object asks to be sealed: `GNU_PROPERTY_MEMORY_SEAL`, which `ld -z memory-seal` writes. As in glibc the properties are
/// those of PT_GNU_PROPERTY, and without one those of the first PT_NOTE that has any.
pub fn asks_for_seal(headers: &[ProgramHeader], image: &Image) -> bool {
    let of = |p_type| segments(headers, image, p_type).find_map(|(b, align)| property::properties(b, align));
    let found: Option<Properties> = match header::find(headers, PT_GNU_PROPERTY) {
        Some(_) => of(PT_GNU_PROPERTY),
        None => of(PT_NOTE),
    };
    found.is_some_and(|p| p.memory_seal)
}

/// The mapped contents of the segments of a type, with their alignments.
fn segments<'h>(
    headers: &'h [ProgramHeader],
    image: &Image,
    p_type: u32,
) -> impl Iterator<Item = (&'static [u8], u64)> + 'h {
    let view = image.view();
    headers
        .iter()
        .filter(move |h| h.p_type == p_type)
        .filter_map(move |h| Some((view.bytes(VAddr(h.p_vaddr), h.p_memsz)?, h.p_align)))
}
