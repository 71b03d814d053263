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
/// In how many words of the stack a caller is looked for where there are no tables.
const FRAME: u64 = 8;
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
    /// Their index, if they have one.
    header: Option<(Range<u64>, Rc<[u8]>)>,
    frames: Range<u64>,
    frames_bytes: Rc<[u8]>,
    text: Range<u64>,
}

impl Tables {
    /// Reads those of the object whose first page is at `base`, and which comes from `file`.
    pub fn read(memory: &File, base: u64, file: impl FnOnce() -> Option<File>) -> Option<Tables> {
        Tables::indexed(memory, base).or_else(|| Tables::of_file(file()?))
    }

    /// Those of a file by its sections: static programs have no index that their program headers name.
    fn of_file(file: File) -> Option<Tables> {
        use object::read::{Object as _, ObjectSection as _, ObjectSegment as _};
        let cache = object::read::ReadCache::new(file);
        let object = object::File::parse(&cache).ok()?;
        let first = object.segments().map(|segment| segment.address()).min()? & !4095;
        let range = |name| {
            let section = object.section_by_name(name)?;
            let start = section.address().checked_sub(first)?;
            Some((start..start.checked_add(section.size())?, section))
        };
        let ((frames, section), (text, _)) = (range(".eh_frame")?, range(".text")?);
        Some(Tables { header: None, frames, frames_bytes: section.data().ok()?.into(), text })
    }

    /// Those to which an index belongs, as they are in memory.
    fn indexed(memory: &File, base: u64) -> Option<Tables> {
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
        Some(Tables { header: Some((header, header_bytes)), frames, frames_bytes, text })
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
            eh_frame_hdr_svma: tables.header.as_ref().map(|(range, _)| range.clone()),
            eh_frame_hdr: tables.header.as_ref().map(|(_, bytes)| Rc::clone(bytes)),
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
        let mut found = self.walk(here, registers.rsp, registers.rbp, memory);
        // A C library without tables: its functions that make system calls have small frames.
        if found.len() == 1 {
            let words = (0..FRAME).filter_map(|n| Some((8 * n, word(memory, registers.rsp.checked_add(8 * n)?).ok()?)));
            if let Some((at, caller)) = words.into_iter().find(|&(_, word)| follows_call(memory, word)) {
                found.extend(self.walk(caller - 1, registers.rsp + at + 8, registers.rbp, memory));
            }
        }
        found
    }

    fn walk(&mut self, from: u64, stack: u64, frame: u64, memory: &File) -> Vec<u64> {
        let mut read = |address: u64| word(memory, address).map_err(|_| ());
        let mut registers = UnwindRegsX86_64::new(from, stack, frame);
        let mut at = FrameAddress::from_instruction_pointer(from);
        let mut found = vec![from];
        while found.len() < DEPTH {
            let Ok(Some(caller)) = self.unwinder.unwind_frame(at, &mut registers, &mut self.cache, &mut read) else {
                break;
            };
            if follows_call(memory, caller) {
                let Some(address) = FrameAddress::from_return_address(caller) else { break };
                at = address;
                found.push(caller - 1);
            } else if is_restorer(memory, caller) {
                let Some(interrupted) = interrupted(memory, registers.sp()) else { break };
                found.extend([caller, interrupted.ip()]);
                (at, registers) = (FrameAddress::from_instruction_pointer(interrupted.ip()), interrupted);
            } else {
                // Without tables what is taken for a caller may be anything.
                break;
            }
        }
        found
    }
}

/// The registers that a signal has interrupted: the kernel has left a `ucontext_t` on the stack (asm/sigcontext.h).
fn interrupted(memory: &File, context: u64) -> Option<UnwindRegsX86_64> {
    const RBP: u64 = 120;
    const RSP: u64 = 160;
    const RIP: u64 = 168;
    let register = |offset| word(memory, context.checked_add(offset)?).ok();
    Some(UnwindRegsX86_64::new(register(RIP)?, register(RSP)?, register(RBP)?))
}

fn word(memory: &File, address: u64) -> io::Result<u64> {
    let mut word = [0; 8];
    memory.read_exact_at(&mut word, address)?;
    Ok(u64::from_le_bytes(word))
}

/// Whether the code at an address ends the handling of a signal.
fn is_restorer(memory: &File, address: u64) -> bool {
    /// `mov $SYS_rt_sigreturn, %rax; syscall`, which debuggers look for as well.
    const RESTORER: [u8; 9] = [0x48, 0xc7, 0xc0, 0x0f, 0, 0, 0, 0x0f, 0x05];
    let mut code = [0; RESTORER.len()];
    memory.read_exact_at(&mut code, address).is_ok() && code == RESTORER
}

/// Whether the instruction before an address is a call: with a distance, or through a register or memory.
fn follows_call(memory: &File, address: u64) -> bool {
    let mut before = [0; 7];
    let start = address.checked_sub(before.len() as u64);
    if start.is_none_or(|start| memory.read_exact_at(&mut before, start).is_err()) {
        return false;
    }
    // The second byte of an indirect call says so in its bits 3 to 5.
    let indirect = |length: usize| before[7 - length] == 0xff && before[8 - length] >> 3 & 7 == 2;
    before[2] == 0xe8 || [2, 3, 4, 6, 7].into_iter().any(indirect)
}

/// Whether two lists of objects are the same ones at the same places.
pub fn same_places(one: &[Object], other: &[Object]) -> bool {
    one.len() == other.len() && one.iter().zip(other).all(|(a, b)| a.bias == b.bias && a.path == b.path)
}
