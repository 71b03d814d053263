//! Copies of programs that end at their entry point.

use conformance::{interp, loader::SYSTEM};
use object::elf::{FileHeader64, PF_X, PT_INTERP, PT_LOAD};
use object::read::elf::{FileHeader, ProgramHeader};
use object::LittleEndian;
use std::error::Error;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// The exit status of a program that got as far as its entry point: no loader ends with it.
pub const ARRIVED: i32 = 42;

/// `mov $231, %eax; mov $42, %edi; syscall`: exit_group(ARRIVED).
const EXIT: [u8; 12] = [0xb8, 231, 0, 0, 0, 0xbf, ARRIVED as u8, 0, 0, 0, 0x0f, 0x05];

/// The copies of one program.
#[derive(Debug, Clone)]
pub struct Program {
    /// Its name.
    pub name: String,
    /// The copy whose interpreter is the system's loader.
    pub system: PathBuf,
    /// The copy whose interpreter is the loader under test.
    pub tested: PathBuf,
}

impl Program {
    /// Finds the program `name` and makes its copies in `folder`.
    pub fn prepare(name: &str, folder: &Path, interpreter: &Path) -> Result<Program, Box<dyn Error>> {
        let bytes = ending_at_entry(find(name).ok_or("no such program, or no dynamically linked one")?)?;
        let copy = |loader: &Path, kind: &str| -> Result<PathBuf, Box<dyn Error>> {
            let path = folder.join(format!("{name}-{kind}"));
            // Both copies are made in the same way, so that they differ by nothing but the name of the interpreter.
            write_executable(&path, &interp::replaced(&bytes, loader).ok_or("it has no interpreter")?)?;
            Ok(path)
        };
        let system = copy(Path::new(SYSTEM), "system")?;
        Ok(Program { name: name.into(), system, tested: copy(interpreter, "ldseal")? })
    }
}

/// The content of the first ELF file called `name` on the system's path. Scripts that stand for a program are passed over.
fn find(name: &str) -> Option<Vec<u8>> {
    let others = std::env::var_os("PATH").unwrap_or_default();
    let folders = ["/usr/bin", "/bin"].map(PathBuf::from).into_iter().chain(std::env::split_paths(&others));
    folders.filter_map(|folder| fs::read(folder.join(name)).ok()).find(|bytes| {
        let Ok(header) = FileHeader64::<LittleEndian>::parse(bytes.as_slice()) else { return false };
        let headers = header.program_headers(LittleEndian, bytes.as_slice());
        headers.is_ok_and(|headers| headers.iter().any(|h| h.p_type(LittleEndian) == PT_INTERP))
    })
}

fn ending_at_entry(mut bytes: Vec<u8>) -> Result<Vec<u8>, Box<dyn Error>> {
    let header = FileHeader64::<LittleEndian>::parse(bytes.as_slice())?;
    let entry = header.e_entry.get(LittleEndian);
    let segment = header.program_headers(LittleEndian, bytes.as_slice())?.iter().find(|h| {
        let start = h.p_vaddr(LittleEndian);
        let executable = h.p_type(LittleEndian) == PT_LOAD && h.p_flags(LittleEndian).0 & PF_X.0 != 0;
        executable && (start..start + h.p_filesz(LittleEndian)).contains(&entry)
    });
    let segment = segment.ok_or("its entry point lies in no executable segment")?;
    let offset = (entry - segment.p_vaddr(LittleEndian) + segment.p_offset(LittleEndian)) as usize;
    let first = bytes.get_mut(offset..offset + EXIT.len()).ok_or("its entry point lies outside the file")?;
    first.copy_from_slice(&EXIT);
    Ok(bytes)
}

/// A static program that does nothing but end: what fork, exec and exit cost without any loader.
pub fn nothing(folder: &Path) -> Result<PathBuf, Box<dyn Error>> {
    const BASE: u64 = 0x40_0000;
    const CODE: u64 = 64 + 56;
    let mut file = Vec::new();
    file.extend_from_slice(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0");
    // ET_EXEC, EM_X86_64, EV_CURRENT.
    file.extend_from_slice(&[2, 0, 62, 0, 1, 0, 0, 0]);
    for word in [BASE + CODE, 64, 0] {
        file.extend_from_slice(&word.to_le_bytes());
    }
    // e_flags; e_ehsize, e_phentsize, e_phnum, e_shentsize, e_shnum, e_shstrndx.
    file.extend_from_slice(&[0, 0, 0, 0, 64, 0, 56, 0, 1, 0, 64, 0, 0, 0, 0, 0]);
    // PT_LOAD, readable and executable.
    file.extend_from_slice(&[1, 0, 0, 0, 5, 0, 0, 0]);
    let size = CODE + EXIT.len() as u64;
    for word in [0, BASE, BASE, size, size, 0x1000] {
        file.extend_from_slice(&word.to_le_bytes());
    }
    file.extend_from_slice(&EXIT);
    let path = folder.join("nothing");
    write_executable(&path, &file)?;
    Ok(path)
}

fn write_executable(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    fs::write(path, bytes)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))
}
