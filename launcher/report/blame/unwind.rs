//! The callers of a thread, by the unwind tables in its process's memory.

use crate::elf::{Headers, ReadAt};
use crate::report::objects::Object;
use framehop::x86_64::{CacheX86_64, UnwindRegsX86_64, UnwinderX86_64};
use framehop::{ExplicitModuleSectionInfo, FrameAddress, MayAllocateDuringUnwind, Module, Unwinder as _};
use goblin::elf::program_header::{PF_X, PT_GNU_EH_FRAME, PT_LOAD};
use nix::libc::user_regs_struct;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::rc::Rc;

/// How many callers are looked for.
const DEPTH: usize = 24;
/// The largest unwind tables that are read.
const TABLES: u64 = 1 << 28;
/// `DW_EH_PE_pcrel | DW_EH_PE_sdata4`, the form in which linkers write where the tables are.
const RELATIVE: u8 = 0x1b;
/// Bytes of the instruction `syscall`.
const SYSCALL: u64 = 2;

/// Memory of a process, read as a file that begins at an address.
pub struct Memory<'a> {
    /// `/proc/PID/mem`
    pub file: &'a File,
    /// Where the file begins.
    pub base: u64,
}

impl ReadAt for Memory<'_> {
    fn read_at(&self, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; length];
        let address = self.base.checked_add(offset).ok_or(io::ErrorKind::UnexpectedEof)?;
        self.file.read_exact_at(&mut bytes, address)?;
        Ok(bytes)
    }
}

/// The unwind tables of an object; addresses count from its first page.
pub struct Tables {
    header: Range<u64>,
    header_bytes: Rc<[u8]>,
    frames: Range<u64>,
    frames_bytes: Rc<[u8]>,
    text: Range<u64>,
}

impl Tables {
    /// Reads those of the object whose first page is at `base`.
    pub fn read(memory: &File, base: u64) -> Option<Tables> {
        let memory = Memory { file: memory, base };
        let headers = Headers::read(&memory)?;
        let loads = || headers.segments.iter().filter(|segment| segment.p_type == PT_LOAD);
        let first = loads().map(|load| load.p_vaddr).min()? & !4095;
        let place = |start: u64, size: u64| {
            let start = start.checked_sub(first)?;
            Some(start..start.checked_add(size)?)
        };
        let segment = headers.segment(PT_GNU_EH_FRAME)?;
        let header = place(segment.p_vaddr, segment.p_memsz)?;
        let header_bytes = read(&memory, &header)?;
        // Version, three encodings, and the place of the tables relative to its own.
        let &[1, RELATIVE, _, _, a, b, c, d, ..] = &*header_bytes else { return None };
        let distance = i64::from(i32::from_le_bytes([a, b, c, d]));
        let start = (header.start.checked_add(4)?).checked_add_signed(distance)?;
        let holder = loads().filter_map(|load| place(load.p_vaddr, load.p_memsz)).find(|load| load.contains(&start))?;
        // Nothing says where they end; what follows them is not looked at, since each entry is found by the header's index.
        let end = if header.start > start && holder.contains(&header.start) { header.start } else { holder.end };
        let frames = start..end;
        let frames_bytes = read(&memory, &frames)?;
        let text = loads().find(|load| load.p_flags & PF_X != 0).and_then(|load| place(load.p_vaddr, load.p_memsz))?;
        Some(Tables { header, header_bytes, frames, frames_bytes, text })
    }
}

fn read(memory: &Memory<'_>, range: &Range<u64>) -> Option<Rc<[u8]>> {
    let size = (range.end - range.start).min(TABLES);
    memory.read_at(range.start, usize::try_from(size).ok()?).ok().map(Rc::from)
}

/// Finds callers in one process.
#[derive(Default)]
pub struct Unwinder {
    unwinder: UnwinderX86_64<Rc<[u8]>>,
    cache: CacheX86_64<MayAllocateDuringUnwind>,
}

impl Unwinder {
    /// Makes an object known.
    pub fn add(&mut self, span: Range<u64>, tables: &Tables) {
        let sections = ExplicitModuleSectionInfo {
            base_svma: 0,
            text_svma: Some(tables.text.clone()),
            eh_frame_hdr_svma: Some(tables.header.clone()),
            eh_frame_hdr: Some(Rc::clone(&tables.header_bytes)),
            eh_frame_svma: Some(tables.frames.clone()),
            eh_frame: Some(Rc::clone(&tables.frames_bytes)),
            ..Default::default()
        };
        self.unwinder.add_module(Module::new(String::new(), span.clone(), span.start, sections));
    }

    /// The addresses of the instructions that made the call a thread is in: the one of the system call itself, then those of
    /// its callers, as far as they can be found. A caller's is the last byte of its call.
    pub fn callers(&mut self, registers: &user_regs_struct, memory: Option<&File>) -> Vec<u64> {
        let here = registers.rip.wrapping_sub(SYSCALL);
        let Some(memory) = memory else { return vec![here] };
        let mut read = |address: u64| {
            let mut word = [0; 8];
            memory.read_exact_at(&mut word, address).map_err(|_| ())?;
            Ok(u64::from_le_bytes(word))
        };
        let known = UnwindRegsX86_64::new(here, registers.rsp, registers.rbp);
        let mut frames = self.unwinder.iter_frames(here, known, &mut self.cache, &mut read);
        let mut found = Vec::new();
        while let Ok(Some(frame)) = frames.next() {
            found.push(match frame {
                FrameAddress::InstructionPointer(address) => address,
                FrameAddress::ReturnAddress(address) => address.get() - 1,
            });
            if found.len() == DEPTH {
                break;
            }
        }
        found
    }
}

/// Whether two lists of objects are the same ones at the same places.
pub fn same_places(one: &[Object], other: &[Object]) -> bool {
    one.len() == other.len() && one.iter().zip(other).all(|(a, b)| a.bias == b.bias && a.path == b.path)
}
