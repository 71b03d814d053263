//! From the name of a program to the ELF file that runs, with the arguments it gets.

use super::{find, fitness, privilege, shebang, Refusal, NOT_EXECUTABLE, NOT_FOUND};
use crate::elf;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// How many scripts may run each other: the kernel's own limit (`exec_binprm`), beyond it is ELOOP.
const SCRIPTS: usize = 5;

/// The shell of `execvp(3)` for a text file without a `#!` line.
const SHELL: &str = "/bin/sh";

/// What a direct start would run.
#[derive(Debug, PartialEq, Eq)]
pub struct Start {
    /// The ELF file.
    pub program: PathBuf,
    /// What the user named, as found: the file that the kernel names the process after (comm, AT_EXECFN). It differs from
    /// `program` when it is a script.
    pub named: PathBuf,
    /// All arguments, `argv[0]` first.
    pub argv: Vec<OsString>,
}

/// Finds out what starting `name` would run, as a shell and the kernel do.
///
/// # Errors
/// What is not there, may not be executed, or can't run under the interpreter.
pub fn resolve(name: &OsStr, arguments: &[OsString]) -> Result<Start, Refusal> {
    let named = find::find(name, std::env::var_os("PATH").as_deref())?;
    log::debug!("{}: found at {}", name.to_string_lossy(), named.display());
    let mut argv = vec![name.to_owned()];
    argv.extend_from_slice(arguments);
    let mut path = named.clone();
    for _ in 0..=SCRIPTS {
        match examine(name, &path)? {
            Contents::Program => return Ok(Start { program: path, named, argv }),
            Contents::Script { interpreter, argument } => {
                log::debug!("{}: a script, run by {interpreter:?} {argument:?}", path.display());
                // The kernel puts the script's path in the place of argv[0].
                let mut outer = vec![interpreter.clone()];
                outer.extend(argument);
                outer.push(path.clone().into_os_string());
                argv.splice(0..1, outer);
                check_script_interpreter(name, &path, &interpreter)?;
                path = interpreter.into();
            }
        }
    }
    Err(bad_interpreter(name, path.as_os_str(), "Too many levels of symbolic links"))
}

/// What an executable file holds.
enum Contents {
    /// A program that the interpreter can run.
    Program,
    /// A script, and what runs it.
    Script { interpreter: OsString, argument: Option<OsString> },
}

fn examine(name: &OsStr, path: &Path) -> Result<Contents, Refusal> {
    let refuse = |reason: String| Refusal::new(NOT_EXECUTABLE, path, reason);
    let unreadable = |error: io::Error| refuse(format!("can't be read, which a loader must: {}", find::text(&error)));
    let file = File::open(path).map_err(unreadable)?;
    let (head, length) = read_head(&file).map_err(unreadable)?;
    if head.starts_with(elf::MAGIC) {
        fitness::check(&file).map_err(|problem| refuse(problem.to_string()))?;
        privilege::check(&file).map_err(|problem| refuse(problem.to_string()))?;
        return Ok(Contents::Program);
    }
    if let Some(line) = shebang::parse(&head) {
        let interpreter = OsString::from_vec(line.interpreter.to_vec());
        return Ok(Contents::Script { interpreter, argument: line.argument.map(|a| OsString::from_vec(a.to_vec())) });
    }
    if shebang::is_text(&head, length) && path.as_os_str() != SHELL {
        log::debug!("{}: neither ELF nor #!, so {} is for the shell", path.display(), name.to_string_lossy());
        return Ok(Contents::Script { interpreter: SHELL.into(), argument: None });
    }
    Err(refuse("cannot execute binary file: Exec format error".into()))
}

/// The interpreter of a script must be executable; a shell names the script as well when it is not.
fn check_script_interpreter(name: &OsStr, script: &Path, interpreter: &OsStr) -> Result<(), Refusal> {
    let subject = if script.as_os_str().is_empty() { name } else { script.as_os_str() };
    match find::executable(Path::new(interpreter)) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let reason = format!("{}: bad interpreter: {}", interpreter.to_string_lossy(), find::text(&error));
            Err(Refusal::new(NOT_FOUND, subject, reason))
        }
        Err(error) => Err(bad_interpreter(subject, interpreter, &find::text(&error))),
    }
}

fn bad_interpreter(subject: &OsStr, interpreter: &OsStr, reason: &str) -> Refusal {
    Refusal::new(NOT_EXECUTABLE, subject, format!("{}: bad interpreter: {reason}", interpreter.to_string_lossy()))
}

/// As much of the start of a file as the kernel looks at, and how much of that the file has.
fn read_head(file: &File) -> io::Result<(shebang::Head, usize)> {
    let mut head = [0; shebang::HEAD];
    let mut length = 0;
    while length < head.len() {
        match file.read_at(&mut head[length..], length as u64) {
            Ok(0) => break,
            Ok(count) => length += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok((head, length))
}
