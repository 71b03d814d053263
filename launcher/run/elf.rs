//! Which ELF files can run under the interpreter.

use goblin::container::{Container, Ctx, Endian};
use goblin::elf::program_header::{ProgramHeader, PT_INTERP};
use goblin::elf::{header, Elf};
use std::fmt;
use std::io;

/// The first bytes of an ELF file.
pub const MAGIC: &[u8] = header::ELFMAG;

/// Bytes of an ELF header of 64 bits.
const HEADER: usize = header::header64::SIZEOF_EHDR;
/// The kernel takes no more program headers than fit here (`ELF_MIN_ALIGN` in `load_elf_phdrs`).
const PROGRAM_HEADERS: usize = 65536;
/// PATH_MAX: the longest interpreter the kernel takes.
const INTERPRETER: u64 = 4096;

/// Why an ELF file can't run under the interpreter.
#[derive(Debug, PartialEq, Eq)]
pub enum Unfit {
    /// A direct start would fail too.
    Format,
    /// A program of 32 bits; the name of its machine.
    Class32(&'static str),
    /// A program for another machine; its name.
    Machine(&'static str),
    /// No PT_INTERP.
    Static,
    /// A program of another C library; its interpreter.
    Interpreter(String),
}

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unfit::Format => f.write_str("cannot execute binary file: Exec format error"),
            Unfit::Class32(machine) => write!(f, "can't be sealed: a 32-bit program ({machine}), not x86-64"),
            Unfit::Machine(machine) => {
                write!(f, "can't be sealed: a program for a foreign machine ({machine}), not x86-64")
            }
            Unfit::Static => f.write_str("can't be sealed: a static program, it has no dynamic interpreter"),
            Unfit::Interpreter(path) if path.contains("musl") => {
                write!(f, "can't be sealed: a musl program (its interpreter is {path}), not a glibc one")
            }
            Unfit::Interpreter(path) => {
                write!(f, "can't be sealed: its interpreter {path} is not glibc's ld-linux-x86-64.so.2")
            }
        }
    }
}

/// Reads exactly so many bytes at an offset of a file.
pub type ReadAt<'a> = &'a dyn Fn(u64, usize) -> io::Result<Vec<u8>>;

/// Checks that the file is a dynamically linked glibc program for x86-64.
///
/// # Errors
/// What it is instead.
pub fn check(read: ReadAt<'_>) -> Result<(), Unfit> {
    let identification = read(0, header::SIZEOF_IDENT + 4).map_err(|_| Unfit::Format)?;
    let little = identification[header::EI_DATA] == header::ELFDATA2LSB;
    let machine = [identification[header::SIZEOF_IDENT + 2], identification[header::SIZEOF_IDENT + 3]];
    let machine = if little { u16::from_le_bytes(machine) } else { u16::from_be_bytes(machine) };
    let machine_name = header::machine_to_str(machine);
    if machine != header::EM_X86_64 && machine != header::EM_386 {
        return Err(Unfit::Machine(machine_name));
    }
    if identification[header::EI_CLASS] == header::ELFCLASS32 {
        return Err(Unfit::Class32(if machine == header::EM_X86_64 { "x32" } else { machine_name }));
    }
    if identification[header::EI_CLASS] != header::ELFCLASS64 || !little || machine != header::EM_X86_64 {
        return Err(Unfit::Format);
    }
    let interpreter = interpreter(read)?.ok_or(Unfit::Static)?;
    let name = interpreter.rsplit('/').next().unwrap_or_default();
    if name == "ld-linux-x86-64.so.2" || name == crate::interpreter::NAME {
        Ok(())
    } else {
        Err(Unfit::Interpreter(interpreter))
    }
}

/// PT_INTERP of a program of 64 bits.
fn interpreter(read: ReadAt<'_>) -> Result<Option<String>, Unfit> {
    let format = |_| Unfit::Format;
    let bytes = read(0, HEADER).map_err(format)?;
    let header = Elf::parse_header(&bytes).map_err(|_| Unfit::Format)?;
    let size = usize::from(header.e_phentsize);
    let length = size * usize::from(header.e_phnum);
    let program = header.e_type == header::ET_EXEC || header.e_type == header::ET_DYN;
    if !program || size != goblin::elf64::program_header::SIZEOF_PHDR || length == 0 || length > PROGRAM_HEADERS {
        return Err(Unfit::Format);
    }
    let bytes = read(header.e_phoff, length).map_err(format)?;
    let context = Ctx::new(Container::Big, Endian::Little);
    let headers = ProgramHeader::parse(&bytes, 0, usize::from(header.e_phnum), context).map_err(|_| Unfit::Format)?;
    let Some(segment) = headers.iter().find(|segment| segment.p_type == PT_INTERP) else { return Ok(None) };
    if segment.p_filesz < 2 || segment.p_filesz > INTERPRETER {
        return Err(Unfit::Format);
    }
    let mut path = read(segment.p_offset, segment.p_filesz as usize).map_err(format)?;
    if path.pop() != Some(0) {
        return Err(Unfit::Format);
    }
    path.truncate(path.iter().position(|&byte| byte == 0).unwrap_or(path.len()));
    Ok(Some(String::from_utf8_lossy(&path).into_owned()))
}
