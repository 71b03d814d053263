//! What the kernel mapped: the interpreter's own image and, as PT_INTERP, the program's. Both get what a mapped file gets from the map plan:
//! RELRO in anonymous memory, and no holes.

use alloc::vec::Vec;
use core::ops::Range;
use goblin::elf64::program_header::PT_LOAD;
use loader::addr::{range_len, Addr, Bias, VAddr};
use loader::elf::header::ProgramHeader;
use loader::error::{LoadError, Lossy};
use loader::file::NO_ANONYMOUS_TEXT;
use loader::image::Image;
use loader::map::apply::{make_anonymous, replace_data};
use loader::program;
use loader::relro;
use loader::seal::tunables::ImageMemory;
use loader::sys::{self, Place, Prot};
use rustix::io::Errno;

/// Moves the interpreter's own RELRO into anonymous memory, unless its entry point has done so, and all the rest of its file too if that is
/// wanted.
///
/// # Errors
/// The kernel gives no memory, or does not let anonymous memory be executable though that is required.
pub fn own(base: Addr, relro_is_anonymous: bool, memory: ImageMemory) -> Result<(), LoadError> {
    if relro_is_anonymous && memory == ImageMemory::File {
        return Ok(());
    }
    // SAFETY: this very code runs from the image at `base`.
    let headers = unsafe { program::headers_at(base) };
    let bias = Bias::between(base, VAddr(0));
    let relro = relro::pages(&headers).ok().flatten();
    if let Some(pages) = relro.as_ref().filter(|_| !relro_is_anonymous) {
        make_anonymous(bias.run_time(pages.start)..bias.run_time(pages.end), Prot::READ_WRITE)
            .map_err(|errno| LoadError::system(b"", "cannot make the interpreter's own data anonymous", errno))?;
    }
    leave_file(b"ld-seal.so", &headers, bias, relro.as_ref(), memory)
}

/// Replaces what is still a mapping of the file by anonymous memory, if that is wanted.
fn leave_file(
    name: &[u8],
    headers: &[ProgramHeader],
    bias: Bias,
    relro: Option<&relro::RelroPages>,
    memory: ImageMemory,
) -> Result<(), LoadError> {
    if memory == ImageMemory::File {
        return Ok(());
    }
    let empty = VAddr(0)..VAddr(0);
    let relro = relro.unwrap_or(&empty);
    for h in headers.iter().filter(|h| h.p_type == PT_LOAD && h.p_filesz > 0) {
        let end = VAddr(h.p_vaddr).checked_add(h.p_filesz).and_then(VAddr::page_ceil);
        let pages = VAddr(h.p_vaddr).page_floor()..end.unwrap_or(VAddr(h.p_vaddr).page_floor());
        let prot = Prot::from_segment_flags(h.p_flags);
        let before = pages.start..pages.end.min(relro.start.max(pages.start));
        let after = pages.start.max(relro.end.min(pages.end))..pages.end;
        let overlaps = relro.start < pages.end && pages.start < relro.end;
        let pieces = if overlaps { [before, after] } else { [pages, empty.clone()] };
        for piece in pieces.into_iter().filter(|p| prot.read && p.start < p.end) {
            match make_anonymous(bias.run_time(piece.start)..bias.run_time(piece.end), prot) {
                Ok(()) => {}
                Err(Errno::ACCESS | Errno::PERM) if memory == ImageMemory::AnonymousIfPossible => {
                    log::debug!(target: "seal", "{}: {NO_ANONYMOUS_TEXT}", Lossy(name));
                }
                Err(errno) => return Err(LoadError::system(name, NO_ANONYMOUS_TEXT, errno)),
            }
        }
    }
    Ok(())
}

/// Gives the kernel-mapped image of the program what a mapped file's has.
///
/// # Errors
/// As for [`own`].
pub fn complete(
    name: &[u8],
    headers: &[ProgramHeader],
    image: &mut Image,
    relro: Option<&relro::RelroPages>,
    memory: ImageMemory,
) -> Result<(), LoadError> {
    if let Some(pages) = relro {
        // SAFETY: if it fails the program is not started.
        unsafe { replace_data(image.run_time(pages)) }
            .map_err(|e| LoadError::system(name, "cannot map zero-fill pages", e))?;
    }
    leave_file(name, headers, image.bias, relro, memory)?;
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
