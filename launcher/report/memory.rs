//! Objects without a file behind them: copies in anonymous memory (`ldseal.anonymous=all`), known by the ELF header in their first page.

use super::image::Image;
use super::objects::Object;
use super::process::Process;
use super::smaps::Mapping;
use crate::elf::{Headers, ReadAt};
use goblin::elf::program_header::PT_LOAD;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::rc::Rc;

/// The memory of a process, read as the file that an image was copied from.
struct Copied {
    memory: File,
    /// For each PT_LOAD the file offsets that it holds, and the address of the first.
    pieces: Vec<(Range<u64>, u64)>,
}

impl ReadAt for Copied {
    fn read_at(&self, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        let end = offset.checked_add(length as u64).ok_or(io::ErrorKind::UnexpectedEof)?;
        let holds = |(range, _): &&(Range<u64>, u64)| range.start <= offset && end <= range.end;
        let (range, address) = self.pieces.iter().find(holds).ok_or(io::ErrorKind::UnexpectedEof)?;
        let mut bytes = vec![0; length];
        self.memory.read_exact_at(&mut bytes, address + (offset - range.start))?;
        Ok(bytes)
    }
}

/// Finds the objects in memory that belongs to none of `known`. Without the right to read the memory there are none.
pub fn find(process: &Process, mappings: &[Mapping], known: &[Object]) -> Vec<Object> {
    let mut found: Vec<Object> = Vec::new();
    let Ok(memory) = process.memory() else { return found };
    for mapping in mappings.iter().filter(|m| m.inode == 0 && m.name.is_empty() && m.permissions.read) {
        let start = mapping.range.start;
        if known.iter().chain(&found).any(|object| object.span().contains(&start)) {
            continue;
        }
        let Some((image, bias)) = memory.try_clone().ok().and_then(|memory| read(memory, mapping)) else { continue };
        let path = image.soname.clone().unwrap_or_else(|| process.called());
        found.push(Object { path, bias, image: Rc::new(image) });
    }
    found
}

fn read(memory: File, mapping: &Mapping) -> Option<(Image, u64)> {
    let size = mapping.range.end - mapping.range.start;
    let mut copied = Copied { memory, pieces: vec![(0..size, mapping.range.start)] };
    let headers = Headers::read(&copied)?;
    let mut loads = headers.segments.iter().filter(|h| h.p_type == PT_LOAD);
    let first = loads.clone().next().filter(|h| h.p_offset == 0)?;
    let bias = mapping.range.start.wrapping_sub(first.p_vaddr);
    copied.pieces = loads
        .by_ref()
        .filter_map(|h| Some((h.p_offset..h.p_offset.checked_add(h.p_filesz)?, h.p_vaddr.wrapping_add(bias))))
        .collect();
    Some((Image::read_copy(&copied, bias)?, bias))
}
