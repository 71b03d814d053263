//! Where the interpreter `ld-seal.so` is, and how this process becomes it.
//!
//! The image is part of this command, so that a copied or installed `ldseal` needs no second file. Three ways, in this order:
//!
//! 1. The file `ld-seal.so` beside `ldseal`, when it is the very image (size and build ID): debuggers and profilers then
//!    see a file with a name, and all processes share its pages.
//! 2. The image in a sealed memfd. Nothing is written anywhere. A kernel with `vm.memfd_noexec=2`, or a security module,
//!    refuses to execute it.
//! 3. A file under `$XDG_CACHE_HOME/ldseal` or `~/.cache/ldseal`, in a directory that belongs to this user and that nobody
//!    else may write to.

use crate::run::Start;
use crate::sys;
use loader::addr::VAddr;
use loader::seal::tunables::SealLevel;
use std::ffi::{CString, OsStr, OsString};
use std::fs;
use std::io::{self, Write};
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// The file name of the interpreter.
pub const NAME: &str = "ld-seal.so";

/// The symbol of its read-only tables, which libc imports.
const TABLES_SYMBOL: &str = "_rtld_global_ro";

/// The interpreter, byte for byte.
pub const IMAGE: &[u8] = include_bytes!(env!("LDSEAL_IMAGE"));

/// The command line of the interpreter for a program, its own name first: the level travels as an option, so the environment stays as it is.
/// `--launched` is a word between launcher and interpreter: "set comm and /proc/self/cmdline as a direct start would";
/// `--execfn` goes with it and names the file that the process is named after, when that is a script.
pub fn arguments(start: &Start, level: Option<SealLevel>) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = vec![NAME.into(), "--launched".into()];
    if let Some(level) = level {
        arguments.extend(["--seal".into(), level.number().to_string().into()]);
    }
    let mut argv = start.argv.iter().cloned();
    arguments.extend(["--argv0".into(), argv.next().unwrap_or_default()]);
    let program = program_name(start);
    if program.as_os_str() != start.named.as_os_str() {
        arguments.extend(["--execfn".into(), start.named.clone().into()]);
    }
    arguments.push(program.into());
    arguments.extend(argv);
    arguments
}

/// The path by which the interpreter is told of the program.
pub fn program_name(start: &Start) -> PathBuf {
    // A leading '-' would be an option, a name without a slash would be searched for as a library.
    let bytes = start.program.as_os_str().as_bytes();
    let plain = bytes.starts_with(b"-") || !bytes.contains(&b'/');
    if plain {
        Path::new(".").join(&start.program)
    } else {
        start.program.clone()
    }
}

/// Opens the interpreter; with it the name by which [`execute`] would call it, if the kernel executes that file.
///
/// # Errors
/// No way leads to it; the reasons.
pub fn open() -> Result<(OwnedFd, CString), String> {
    let mut reasons = Vec::new();
    for (way, open) in WAYS {
        match open() {
            Ok(opened) => return Ok(opened),
            Err(error) => reasons.push(format!("{way}: {error}")),
        }
    }
    Err(reasons.join("; "))
}

/// Where those of its own data lie that it makes read-only and seals once they are filled: the bytes of an exported symbol.
pub fn tables() -> Option<Range<VAddr>> {
    let elf = goblin::elf::Elf::parse(IMAGE).ok()?;
    let symbol = elf.dynsyms.iter().find(|symbol| elf.dynstrtab.get_at(symbol.st_name) == Some(TABLES_SYMBOL))?;
    let start = VAddr(symbol.st_value);
    Some(start..start.checked_add(symbol.st_size)?)
}

/// Replaces this process by the interpreter; returns only when no way works, with the reasons.
pub fn execute(arguments: &[OsString]) -> String {
    let mut argv = match arguments.iter().map(c_string).collect::<io::Result<Vec<CString>>>() {
        Ok(argv) => argv,
        Err(error) => return error.to_string(),
    };
    let mut reasons = Vec::new();
    for (way, open) in WAYS {
        let error = match open() {
            Ok((image, name)) => {
                log::debug!("executing the interpreter from {way}");
                argv[0] = name;
                sys::execute(&image, &argv)
            }
            Err(error) => error,
        };
        log::debug!("the interpreter can't be run from {way}: {error}");
        reasons.push(format!("{way}: {error}"));
    }
    reasons.join("; ")
}

/// Opens a file that holds the interpreter; with it the name by which a debugger can find that file.
type Way = fn() -> io::Result<(OwnedFd, CString)>;

/// The ways to the interpreter, best first.
const WAYS: [(&str, Way); 3] =
    [("the file beside ldseal", beside), ("memory", in_memory), ("the user's cache", cached)];

/// The file beside this command, when it holds the image.
fn beside() -> io::Result<(OwnedFd, CString)> {
    let path = fs::read_link("/proc/self/exe")?.with_file_name(NAME);
    let file = fs::File::open(&path)?;
    let same = file.metadata()?.len() == IMAGE.len() as u64 && same_build(&file)?;
    if !same {
        return Err(io::Error::other("it is another build"));
    }
    Ok((file.into(), c_string(path)?))
}

/// Whether a file has the image's first page: file header, program headers and build ID, which is a hash of the rest.
fn same_build(file: &fs::File) -> io::Result<bool> {
    let mut head = [0; 4096];
    let head = &mut head[..IMAGE.len().min(4096)];
    file.read_exact_at(head, 0)?;
    Ok(IMAGE.starts_with(head))
}

/// An anonymous file that nobody can write to any more.
fn in_memory() -> io::Result<(OwnedFd, CString)> {
    use rustix::fs::{MemfdFlags, SealFlags};
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let image = match rustix::fs::memfd_create(NAME, flags | MemfdFlags::EXEC) {
        // Linux before 6.3 knows no such flag, and needs none.
        Err(rustix::io::Errno::INVAL) => rustix::fs::memfd_create(NAME, flags)?,
        other => other?,
    };
    let mut file = fs::File::from(image);
    file.write_all(IMAGE)?;
    rustix::fs::fcntl_add_seals(&file, SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL)?;
    Ok((file.into(), c_string(NAME)?))
}

/// A file in the user's cache, written when it is not there.
fn cached() -> io::Result<(OwnedFd, CString)> {
    let directory = cache_directory().ok_or_else(|| io::Error::other("neither XDG_CACHE_HOME nor HOME is set"))?;
    fs::DirBuilder::new().recursive(true).mode(0o700).create(&directory)?;
    let metadata = fs::metadata(&directory)?;
    if metadata.uid() != rustix::process::geteuid().as_raw() || metadata.mode() & 0o022 != 0 {
        return Err(io::Error::other(format!("others can write to {}", directory.display())));
    }
    let path = directory.join(NAME);
    if !fs::read(&path).is_ok_and(|present| present == IMAGE) {
        let new = directory.join(format!("{NAME}.{}", std::process::id()));
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o755).open(&new)?;
        file.write_all(IMAGE)?;
        drop(file);
        fs::rename(&new, &path)?;
    }
    Ok((fs::File::open(&path)?.into(), c_string(path)?))
}

fn c_string(text: impl AsRef<OsStr>) -> io::Result<CString> {
    Ok(CString::new(text.as_ref().as_bytes())?)
}

/// The folder of this command in the user's cache.
pub fn cache_directory() -> Option<PathBuf> {
    let absolute = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let cache = absolute("XDG_CACHE_HOME").or_else(|| Some(absolute("HOME")?.join(".cache")))?;
    Some(cache.join("ldseal"))
}
