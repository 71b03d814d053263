//! Carries a [`MapPlan`] out: maps the regions of a file's image. Thin and dumb on purpose; all decisions are in the plan.

use crate::addr::{range_len, Addr, Bias, PAGE_SIZE};
use crate::map::plan::{MapPlan, Region, Source, NO_SEGMENT};
use crate::map::valgrind;
use crate::rule::{holds, Rule};
use crate::sys::{self, Place, Prot};
use alloc::vec::Vec;
use core::mem::MaybeUninit;
use core::ops::Range;
use rustix::fd::BorrowedFd;
use rustix::io::Errno;

/// An image that was mapped; unmapped again when dropped, unless it is kept.
pub struct MappedImage {
    /// Where it lies.
    pub range: Range<Addr>,
    /// Run-time minus link-time addresses.
    pub bias: Bias,
    owned: bool,
}

impl MappedImage {
    /// Keeps the mapping beyond this value's life.
    pub fn keep(mut self) {
        self.owned = false;
    }
}

impl Drop for MappedImage {
    fn drop(&mut self) {
        if self.owned {
            // SAFETY: nothing refers to the image of a transaction that is given up. There is no recourse if this fails.
            let _ = unsafe { sys::unmap(self.range.clone()) };
        }
    }
}

/// What the kernel refuses of an image.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Refused {
    /// glibc's words for the step.
    pub what: &'static str,
    /// Why.
    pub errno: Errno,
}

/// Maps the image of `fd` as planned.
///
/// # Errors
/// The first step that the kernel refuses; nothing stays mapped then.
pub fn map_image(fd: BorrowedFd<'_>, plan: &MapPlan) -> Result<MappedImage, Refused> {
    let no_segment = |errno| Refused { what: NO_SEGMENT, errno };
    let (image, rest) = map_first(fd, plan).map_err(no_segment)?;
    if valgrind::runs_this() {
        show_writable_segment(fd, image.bias, plan).map_err(no_segment)?;
    }
    for region in rest {
        map_region(fd, image.bias, region).map_err(|errno| match region.source {
            Source::Zero => Refused { what: "cannot map zero-fill pages", errno },
            Source::File { .. } | Source::Copy { .. } => no_segment(errno),
        })?;
    }
    Ok(image)
}

/// Maps what claims the span of an image; the regions that are still to be mapped over it.
fn map_first<'p>(fd: BorrowedFd<'_>, plan: &'p MapPlan) -> Result<(MappedImage, &'p [Region]), Errno> {
    let len = usize::try_from(plan.len()).map_err(|_| Errno::NOMEM)?;
    let mut rest = plan.regions.as_slice();
    let range = match plan.regions.first() {
        // As glibc does: the first segment's mapping stretches over the whole span and is then mapped over, which saves a call.
        Some(Region { pages, source: Source::File { offset }, prot, zero_from: None })
            if pages.start == plan.span.start && plan.align == PAGE_SIZE && plan.gaps().next().is_none() =>
        {
            let place = if plan.fixed { Place::Free(Addr(plan.span.start.0 as usize)) } else { Place::Anywhere };
            // SAFETY: the place is free or chosen by the kernel.
            let start = unsafe { sys::map_file(place, len, *prot, fd, *offset)? };
            rest = &rest[1..];
            start..Addr(start.0 + len)
        }
        _ => reserve(plan, len)?,
    };
    Ok((MappedImage { bias: Bias::between(range.start, plan.span.start), range, owned: true }, rest))
}

/// Maps the writable segment from the file, which [`valgrind`] wants to see before its regions are mapped.
fn show_writable_segment(fd: BorrowedFd<'_>, bias: Bias, plan: &MapPlan) -> Result<(), Errno> {
    let Some(at) = plan.regions.iter().position(|r| r.prot.write && matches!(r.source, Source::Copy { .. })) else {
        return Ok(());
    };
    let Region { pages, source: Source::Copy { offset, .. }, prot, .. } = &plan.regions[at] else { return Ok(()) };
    let end = match plan.regions.get(at + 1) {
        Some(Region { pages: more, source: Source::File { .. }, .. }) if more.start == pages.end => more.end,
        _ => pages.end,
    };
    let (start, end) = (bias.run_time(pages.start), bias.run_time(end));
    // SAFETY: the range lies in the span that this transaction mapped, and nothing uses it yet.
    unsafe { sys::map_file(Place::Replace(start), end.0 - start.0, *prot, fd, *offset).map(drop) }
}

/// Claims the span of an image as inaccessible memory, aligned as its segments ask.
fn reserve(plan: &MapPlan, len: usize) -> Result<Range<Addr>, Errno> {
    if plan.fixed {
        let at = Addr(plan.span.start.0 as usize);
        // SAFETY: the range must be free, or the kernel refuses.
        let start = unsafe { sys::map_anonymous(Place::Free(at), len, Prot::NONE, false)? };
        return Ok(start..Addr(start.0 + len));
    }
    let align = if holds(Rule::SegmentAlignment) { plan.align } else { PAGE_SIZE };
    let align = usize::try_from(align).map_err(|_| Errno::NOMEM)?;
    let slack = align - PAGE_SIZE as usize;
    let total = len.checked_add(slack).ok_or(Errno::NOMEM)?;
    // SAFETY: the kernel chooses the place.
    let start = unsafe { sys::map_anonymous(Place::Anywhere, total, Prot::NONE, false)? };
    let misfit = plan.span.start.0 as usize & (align - 1);
    let aligned = Addr((start.0.wrapping_sub(misfit).wrapping_add(align - 1) & !(align - 1)).wrapping_add(misfit));
    let (end, total_end) = (Addr(aligned.0 + len), Addr(start.0 + total));
    for slack in [start..aligned, end..total_end] {
        if slack.start < slack.end {
            // SAFETY: the slack was mapped just now and nothing uses it.
            if let Err(errno) = unsafe { sys::unmap(slack) } {
                // SAFETY: nothing uses any of it, and a part that is unmapped already makes no difference.
                let _ = unsafe { sys::unmap(start..total_end) };
                return Err(errno);
            }
        }
    }
    Ok(aligned..end)
}

fn map_region(fd: BorrowedFd<'_>, bias: Bias, region: &Region) -> Result<(), Errno> {
    let (start, end) = (bias.run_time(region.pages.start), bias.run_time(region.pages.end));
    let len = end.0 - start.0;
    let place = Place::Replace(start);
    match region.source {
        Source::File { offset } => {
            // SAFETY: the range lies in the span that this transaction mapped, and nothing uses it yet.
            unsafe { sys::map_file(place, len, region.prot, fd, offset)? };
        }
        Source::Copy { offset, len: bytes } => {
            // SAFETY: as above.
            unsafe { sys::map_anonymous(place, len, Prot::READ_WRITE, true)? };
            // SAFETY: these pages are mapped writable, and nothing else refers to them yet.
            let target = unsafe { core::slice::from_raw_parts_mut(start.as_mut_ptr::<u8>(), bytes as usize) };
            if sys::read_at(fd, target, offset)? != target.len() {
                return Err(Errno::IO);
            }
            if !region.prot.write || region.prot.exec {
                // SAFETY: nothing writes these pages before their final protection is wanted.
                unsafe { sys::protect(start..end, region.prot)? };
            }
        }
        Source::Zero => {
            // SAFETY: as above.
            unsafe { sys::map_anonymous(place, len, region.prot, false)? };
        }
    }
    if let Some(from) = region.zero_from {
        let at = bias.run_time(from);
        // SAFETY: `from` lies in the last page of a writable region, which is mapped now.
        unsafe { core::ptr::write_bytes(at.as_mut_ptr::<u8>(), 0, end.0 - at.0) };
    }
    Ok(())
}

/// Replaces readable pages by anonymous memory with the same contents and this protection.
///
/// # Errors
/// The kernel refuses; the pages are then as before.
pub fn make_anonymous(pages: Range<Addr>, prot: Prot) -> Result<(), Errno> {
    let len = range_len(&pages);
    // SAFETY: new memory at a place of the kernel's choice.
    let start = unsafe { sys::map_anonymous(Place::Anywhere, len, Prot::READ_WRITE, true)? };
    let copy = start..Addr(start.0 + len);
    // SAFETY: both ranges are mapped and as long.
    unsafe { core::ptr::copy_nonoverlapping(pages.start.as_ptr::<u8>(), start.as_mut_ptr::<u8>(), len) };
    // SAFETY: the pages get the protection that they have now. Their contents stay the same, so whoever uses them sees no change: not even
    // this code, where they are its own.
    let moved = unsafe {
        if prot == Prot::READ_WRITE { Ok(()) } else { sys::protect(copy.clone(), prot) }
            .and_then(|()| sys::move_mapping(copy.clone(), pages.start))
    };
    moved.inspect_err(|_| {
        // SAFETY: nobody knows the copy.
        let _ = unsafe { sys::unmap(copy) };
    })
}

/// As [`make_anonymous`] for writable data that nobody needs any more where the kernel refuses: what is short is mapped over, which takes
/// half as long as moving a copy there.
///
/// # Errors
/// The kernel refuses; the contents may be lost.
///
/// # Safety
/// If it fails nothing may use the pages.
#[inline(never)]
pub unsafe fn replace_data(pages: Range<Addr>) -> Result<(), Errno> {
    const SHORT: usize = 2 * PAGE_SIZE as usize;
    let mut buffer = MaybeUninit::<[u8; SHORT]>::uninit();
    if range_len(&pages) > SHORT {
        return make_anonymous(pages, Prot::READ_WRITE);
    }
    // SAFETY: the buffer is as long, and the rest is the caller's contract.
    unsafe { map_over(pages, buffer.as_mut_ptr().cast()) }
}

/// As [`replace_data`], without mremap(2): glibc's loader does not call it once the program runs, and a filter of the program's may forbid it.
///
/// # Errors
/// The kernel refuses, or there is no memory for a copy; the contents may be lost.
///
/// # Safety
/// If it fails nothing may use the pages.
pub unsafe fn replace_data_at_run_time(pages: Range<Addr>) -> Result<(), Errno> {
    let mut copy: Vec<u8> = Vec::new();
    copy.try_reserve_exact(range_len(&pages)).map_err(|_| Errno::NOMEM)?;
    // SAFETY: the copy has room for as much, and the rest is the caller's contract.
    unsafe { map_over(pages, copy.as_mut_ptr()) }
}

/// Maps anonymous memory over pages, with the contents that they have.
///
/// # Safety
/// The pages are mapped readable, and `copy` has room for what is in them. If it fails nothing may use the pages.
unsafe fn map_over(pages: Range<Addr>, copy: *mut u8) -> Result<(), Errno> {
    let len = range_len(&pages);
    // SAFETY: the caller's contract.
    unsafe { core::ptr::copy_nonoverlapping(pages.start.as_ptr::<u8>(), copy, len) };
    // SAFETY: the contents are the same in the end, and if there is none the caller gives the pages up.
    unsafe { sys::map_anonymous(Place::Replace(pages.start), len, Prot::READ_WRITE, true)? };
    // SAFETY: the pages are mapped writable now, and the copy holds so many bytes.
    unsafe { core::ptr::copy_nonoverlapping(copy, pages.start.as_mut_ptr::<u8>(), len) };
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::elf::header::{self, ProgramHeader};
    use crate::map::plan;
    use rustix::fd::AsFd;

    #[test]
    fn data_that_is_replaced_stays_the_same() {
        for pages in [1, 2, 3] {
            let len = pages * PAGE_SIZE as usize;
            // SAFETY: new memory, of that length, which nobody else knows.
            unsafe {
                let start = sys::map_anonymous(Place::Anywhere, len, Prot::READ_WRITE, false).expect("memory");
                let bytes = |at: usize| start.as_mut_ptr::<u8>().add(at);
                (0..len).for_each(|at| bytes(at).write((at % 251) as u8));
                for replace in [replace_data, replace_data_at_run_time] {
                    replace(start..Addr(start.0 + len)).expect("memory");
                    assert!((0..len).all(|at| bytes(at).read() == (at % 251) as u8));
                }
                bytes(len - 1).write(1);
                sys::unmap(start..Addr(start.0 + len)).expect("mapped");
            }
        }
    }

    #[test]
    fn libm_is_mapped_byte_for_byte() {
        let path = "/lib/x86_64-linux-gnu/libm.so.6";
        let bytes = std::fs::read(path).expect("readable");
        let file = sys::open_read(c"/lib/x86_64-linux-gnu/libm.so.6").expect("opens");
        let h = header::parse(&bytes).expect("parses");
        let table = &bytes[h.phoff as usize..];
        let headers: Vec<ProgramHeader> = (0..h.phnum).filter_map(|i| header::program_header(table, i)).collect();
        let plan = plan::plan(h.e_type, &headers, bytes.len() as u64).expect("valid");
        let image = map_image(file.as_fd(), &plan).expect("maps");
        for p in headers.iter().filter(|p| p.p_type == 1) {
            let at = image.bias.run_time(crate::addr::VAddr(p.p_vaddr));
            // SAFETY: the segment is mapped readable.
            let mapped = unsafe { core::slice::from_raw_parts(at.as_ptr::<u8>(), p.p_memsz as usize) };
            let (file_part, zero_part) = mapped.split_at(p.p_filesz as usize);
            assert_eq!(file_part, &bytes[p.p_offset as usize..][..file_part.len()]);
            assert!(zero_part.iter().all(|&b| b == 0));
        }
    }
}
