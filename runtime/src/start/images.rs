//! What the kernel mapped: the interpreter's own image and, as PT_INTERP, the program's. Both get what a mapped file gets from the map plan:
//! RELRO in anonymous memory, and no holes.

use alloc::vec::Vec;
use core::ops::Range;
use loader::addr::{range_len, Addr, Bias, VAddr};
use loader::elf::header::{self, ProgramHeader};
use loader::image::Image;
use loader::relro;
use loader::sys::{self, Place, Prot};
use rustix::io::Errno;

/// The program headers of an image whose ELF header is at `base`. The kernel has mapped it, so it is one.
pub fn headers_at(base: Addr) -> Vec<ProgramHeader> {
    // SAFETY: an ELF header is mapped at `base`.
    let file_header = unsafe { core::slice::from_raw_parts(base.as_ptr::<u8>(), 64) };
    match header::parse(file_header) {
        Ok(h) => table_at(Addr(base.0 + h.phoff as usize), h.phnum),
        Err(_) => Vec::new(),
    }
}

/// The program headers that lie at `at`.
pub fn table_at(at: Addr, count: usize) -> Vec<ProgramHeader> {
    // SAFETY: the kernel (AT_PHDR, AT_PHNUM) or an ELF header says that they are there.
    let table = unsafe { core::slice::from_raw_parts(at.as_ptr::<u8>(), count * header::PHDR_SIZE) };
    (0..count).filter_map(|i| header::program_header(table, i)).collect()
}

/// Moves the interpreter's own RELRO into anonymous memory.
///
/// # Errors
/// The kernel gives no memory.
pub fn own_relro(base: Addr) -> Result<(), Errno> {
    let headers = headers_at(base);
    match relro::pages(&headers) {
        Ok(Some(pages)) => {
            let bias = Bias::between(base, VAddr(0));
            make_anonymous(bias.run_time(pages.start)..bias.run_time(pages.end))
        }
        _ => Ok(()),
    }
}

/// Replaces pages by anonymous memory with the same contents, readable and writable.
///
/// # Errors
/// The kernel gives no memory; the pages are then as before.
pub fn make_anonymous(pages: Range<Addr>) -> Result<(), Errno> {
    let len = range_len(&pages);
    // SAFETY: new memory at a place of the kernel's choice.
    let copy = unsafe { sys::map_anonymous(Place::Anywhere, len, Prot::READ_WRITE, true)? };
    // SAFETY: both ranges are mapped and as long. The contents stay the same, so whoever uses the pages sees no change.
    unsafe {
        core::ptr::copy_nonoverlapping(pages.start.as_ptr::<u8>(), copy.as_mut_ptr::<u8>(), len);
        sys::move_mapping(copy..Addr(copy.0 + len), pages.start)
    }
}

/// Gives the kernel-mapped image of the program what a mapped file's has.
///
/// # Errors
/// The kernel gives no memory.
pub fn complete(image: &mut Image, relro: Option<&relro::RelroPages>) -> Result<(), Errno> {
    if let Some(pages) = relro {
        make_anonymous(image.run_time(pages))?;
    }
    let gaps: Vec<Range<Addr>> = image.gaps().collect();
    for gap in gaps {
        // SAFETY: the range must be free, or the kernel refuses.
        let claimed = unsafe { sys::map_anonymous(Place::Free(gap.start), range_len(&gap), Prot::NONE, false) };
        if claimed.is_err() {
            // Somebody else's memory lies there: it is not part of the image.
            image.holes.push(gap);
        }
    }
    Ok(())
}
