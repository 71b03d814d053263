//! From the name of a program to the ELF file that runs, with the arguments it gets.

use super::{find, fitness, privilege, shebang, Refusal, NOT_EXECUTABLE};
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
    let argv: Vec<OsString> = [name.to_owned()].into_iter().chain(arguments.iter().cloned()).collect();
    match follow(&named, argv)? {
        Some(start) => Ok(start),
        None => run_by_shell(named, arguments),
    }
}

/// Follows `#!` lines to a program. None where the kernel would answer ENOEXEC to text.
fn follow(named: &Path, mut argv: Vec<OsString>) -> Result<Option<Start>, Refusal> {
    let mut path = named.to_owned();
    for _ in 0..=SCRIPTS {
        match examine(&path)? {
            Contents::Program => return Ok(Some(Start { program: path, named: named.to_owned(), argv })),
            Contents::Text => return Ok(None),
            Contents::Script { interpreter, argument } => {
                log::debug!("{}: a script, run by {interpreter:?} {argument:?}", path.display());
                // The kernel puts the script's path in the place of argv[0].
                let head = [Some(interpreter.clone()), argument, Some(path.clone().into())];
                argv.splice(0..1, head.into_iter().flatten());
                find::executable(Path::new(&interpreter))
                    .map_err(|error| bad_interpreter(&path, &interpreter, find::status(&error), &find::text(&error)))?;
                path = interpreter.into();
            }
        }
    }
    Err(bad_interpreter(named, path.as_os_str(), NOT_EXECUTABLE, "Too many levels of symbolic links"))
}

/// Text without a `#!` line is the shell's, as in `execvp(3)`.
fn run_by_shell(script: PathBuf, arguments: &[OsString]) -> Result<Start, Refusal> {
    log::debug!("{}: neither ELF nor #!, so it is run by {SHELL}", script.display());
    let argv = [SHELL.into(), script.clone().into()].into_iter().chain(arguments.iter().cloned()).collect();
    follow(Path::new(SHELL), argv)?.ok_or_else(|| no_program(&script))
}

/// What an executable file holds.
enum Contents {
    /// A program that the interpreter can run.
    Program,
    /// A script, and what runs it.
    Script { interpreter: OsString, argument: Option<OsString> },
    /// Nothing that the kernel knows, but text.
    Text,
}

fn examine(path: &Path) -> Result<Contents, Refusal> {
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
        let argument = line.argument.map(|argument| OsString::from_vec(argument.to_vec()));
        return Ok(Contents::Script { interpreter: OsString::from_vec(line.interpreter.to_vec()), argument });
    }
    if shebang::is_text(&head, length) {
        return Ok(Contents::Text);
    }
    Err(no_program(path))
}

fn no_program(path: &Path) -> Refusal {
    Refusal::new(NOT_EXECUTABLE, path, fitness::Unfit::Format.to_string())
}

/// A shell names the script as well when it is the script's interpreter that can't be executed.
fn bad_interpreter(script: &Path, interpreter: &OsStr, status: u8, reason: &str) -> Refusal {
    Refusal::new(status, script, format!("{}: bad interpreter: {reason}", interpreter.to_string_lossy()))
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
