//! What the kernel mapped: the interpreter's own image and, as PT_INTERP, the program's. Both get what a mapped file gets from the map plan:
//! RELRO in anonymous memory, and no holes.

use alloc::vec::Vec;
use core::ops::Range;
use loader::addr::{range_len, Addr, Bias, VAddr};
use loader::image::Image;
use loader::program;
use loader::relro;
use loader::sys::{self, Place, Prot};
use rustix::io::Errno;

/// Moves the interpreter's own RELRO into anonymous memory.
///
/// # Errors
/// The kernel gives no memory.
pub fn own_relro(base: Addr) -> Result<(), Errno> {
    // SAFETY: this very code runs from the image at `base`.
    let headers = unsafe { program::headers_at(base) };
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
