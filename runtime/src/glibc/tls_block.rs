//! One module's block of thread-local storage: its contents, and memory for it from the program's allocator.

use super::libc;
use loader::rule::{holds, Rule};
use loader::tls::TlsSegment;

/// Writes the initial contents of a module's block.
///
/// # Safety
/// `block` must be valid for writes of the block's size, and the segment's image be mapped.
pub unsafe fn initialise(block: *mut u8, segment: &TlsSegment) {
    // SAFETY: the image is as long as its size says, and not longer than the block.
    unsafe {
        copy_image(block, segment);
        let rest = (segment.block_size - segment.image_size) as usize;
        core::ptr::write_bytes(block.add(segment.image_size as usize), 0, rest);
    }
}

/// Writes the part of a module's block that is not zero.
///
/// # Safety
/// As for [`initialise`].
pub unsafe fn copy_image(block: *mut u8, segment: &TlsSegment) {
    let size = if holds(Rule::TlsImage) { segment.image_size as usize } else { 0 };
    // SAFETY: the image is as long as its size says, and not longer than the block.
    unsafe { core::ptr::copy_nonoverlapping(segment.image.as_ptr::<u8>(), block, size) };
}

/// A block with its contents, and what is to be freed for it.
pub fn allocate(segment: &TlsSegment) -> (*mut u8, *mut u8) {
    let slack = if segment.align > 16 || segment.first_byte != 0 { segment.align as usize } else { 0 };
    let (mut block, mut to_free) = fitting(segment, slack);
    if is_mistaken(block) {
        // SAFETY: it has just been allocated, and nobody knows of it.
        unsafe { libc::give_back(to_free) };
        let step = (segment.align as usize).max(16);
        (block, to_free) = fitting(segment, slack + step);
        block += if is_mistaken(block) { step } else { 0 };
    }
    // SAFETY: the block lies in what was allocated.
    unsafe { initialise(block as *mut u8, segment) };
    (block as *mut u8, to_free)
}

/// Memory for a block and for `slack` bytes, and where in it the block fits.
fn fitting(segment: &TlsSegment, slack: usize) -> (usize, *mut u8) {
    let to_free = libc::allocate(segment.block_size as usize + slack);
    if to_free.is_null() {
        crate::fatal(format_args!("cannot allocate memory for thread-local data: ABORT"));
    }
    let mut block = to_free as usize;
    if slack != 0 {
        let align = segment.align as usize;
        let misfit = (block.wrapping_sub(segment.first_byte as usize)) & (align - 1);
        block += if misfit == 0 { 0 } else { align - misfit };
    }
    (block, to_free)
}

/// Whether a block lies where the sanitisers' run-time libraries (gcc 12) take what is before it for a header that glibc's own allocator
/// of old put there, and read the block's place and size from it. A program's first `malloc` of a size lies there with
/// AddressSanitizer; glibc's loader has called it often before.
fn is_mistaken(block: usize) -> bool {
    block % 4096 == 16
}
