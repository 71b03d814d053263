//! Static programs: mapped and sealed, and left to themselves. They relocate themselves, and protect what they relocate.

use crate::addr::{Addr, VAddr};
use crate::elf::dynamic;
use crate::elf::header::{self, ProgramHeader};
use crate::elf::view::u64_at;
use crate::error::{LoadError, Reason};
use crate::file::{self, Opened};
use crate::image::Image;
use crate::map::plan;
use crate::object;
use crate::relro::{self, RelroPages};
use crate::seal::tunables::ImageMemory;
use crate::sys;
use alloc::vec;
use alloc::vec::Vec;
use goblin::elf64::dynamic::DF_TEXTREL;
use goblin::elf64::program_header::{PF_X, PT_DYNAMIC, PT_GNU_STACK, PT_INTERP};
use rustix::fd::AsFd;

/// A static program in memory.
pub struct StaticProgram {
    /// Its memory.
    pub image: Image,
    /// Its program headers.
    pub headers: Vec<ProgramHeader>,
    /// Where they lie in memory; 0 if no segment holds them.
    pub headers_at: Addr,
    /// Where it begins.
    pub entry: Addr,
    /// The pages that it will make read-only itself.
    pub relro: Option<RelroPages>,
    /// Whether it relocates its own text.
    pub relocates_text: bool,
    /// Whether it asks for an executable stack. As in the kernel, and other than for libraries, no word about it means no.
    pub executable_stack: bool,
}

/// Whether a file is a static program: one that can be mapped, and names neither an interpreter nor a library that it needs.
pub fn is_static(opened: &Opened) -> bool {
    let can_be_mapped = || plan::plan(opened.header.e_type, &opened.headers, opened.status.size).is_ok();
    header::find(&opened.headers, PT_INTERP).is_none() && can_be_mapped() && !needs_libraries(opened)
}

fn needs_libraries(opened: &Opened) -> bool {
    let Some(h) = header::find(&opened.headers, PT_DYNAMIC) else {
        return false;
    };
    let mut section = vec![0u8; h.p_filesz.min(64 * 1024) as usize];
    let read = sys::read_at(opened.fd.as_fd(), &mut section, h.p_offset).unwrap_or(0);
    const DT_NEEDED: u64 = 1;
    section[..read]
        .chunks_exact(16)
        .map(|e| u64_at(e, 0))
        .take_while(|tag| *tag != Some(0))
        .any(|tag| tag == Some(DT_NEEDED))
}

/// Maps a static program, for good. `asked` is the name by which complaints call it.
///
/// # Errors
/// It can't be mapped.
pub fn load(opened: Opened, asked: &[u8], memory: ImageMemory) -> Result<StaticProgram, LoadError> {
    let Opened { fd, status, header, headers, .. } = opened;
    let complain = |reason| LoadError::new(asked, reason);
    let plan = plan::plan(header.e_type, &headers, status.size).map_err(complain)?;
    let mapped = file::map(&fd, plan, status.size, asked, memory)?;
    // SAFETY: the image was mapped from these program headers just now; it is kept below, or nobody has seen it.
    let image = unsafe { Image::adopt(&headers, mapped.bias) }
        .ok_or_else(|| complain(Reason::Fault("object file has no loadable segments")))?;
    let relro = relro::pages(&headers).map_err(complain)?;
    let flags = header::find(&headers, PT_DYNAMIC).and_then(|h| {
        let view = image.view();
        dynamic::parse(view.bytes(VAddr(h.p_vaddr), h.p_memsz)?, VAddr(h.p_vaddr)).ok()
    });
    let program = StaticProgram {
        headers_at: object::headers_in_memory(&headers, &image),
        entry: image.bias.run_time(VAddr(header.entry)),
        relocates_text: flags.is_some_and(|dynamic| dynamic.has_flag(DF_TEXTREL)),
        executable_stack: header::find(&headers, PT_GNU_STACK).is_some_and(|h| h.p_flags & PF_X != 0),
        image,
        headers,
        relro,
    };
    mapped.keep();
    Ok(program)
}
