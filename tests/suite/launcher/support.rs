//! What the tests of the launcher share: folders, commands, expectations.

use libtest_mimic::{Completion, Failed};
use std::ffi::OsStr;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// The launcher under test.
pub const LDSEAL: &str = env!("CARGO_BIN_EXE_ldseal");

pub type Outcome = Result<Completion, Failed>;

/// An empty folder of the test's own.
pub fn folder(name: &str) -> Result<PathBuf, Failed> {
    let name: String = name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("launcher").join(name);
    if folder.exists() {
        fs::remove_dir_all(&folder)?;
    }
    fs::create_dir_all(&folder)?;
    Ok(folder)
}

/// A command in `folder`, free of what in this process's environment would decide the outcome.
pub fn command(program: impl AsRef<OsStr>, folder: &Path) -> Command {
    let mut command = Command::new(program);
    command.current_dir(folder).env_remove("GLIBC_TUNABLES").env_remove("RUST_LOG").env("LC_ALL", "C");
    command
}

pub fn ldseal(folder: &Path, arguments: &[&str]) -> Result<Output, Failed> {
    Ok(command(LDSEAL, folder).args(arguments).output()?)
}

pub fn run(folder: &Path, program: &str) -> Result<Output, Failed> {
    ldseal(folder, &["run", program])
}

pub fn check(holds: bool, otherwise: impl FnOnce() -> String) -> Result<(), Failed> {
    if holds {
        Ok(())
    } else {
        Err(otherwise().into())
    }
}

/// The launcher refused: nothing on stdout, this status, and one line that holds `words`.
pub fn refused(output: &Output, status: i32, words: &str) -> Result<(), Failed> {
    let stderr = String::from_utf8_lossy(&output.stderr);
    let as_expected = output.status.code() == Some(status)
        && output.stdout.is_empty()
        && stderr.starts_with("ldseal: ")
        && stderr.lines().count() == 1
        && stderr.contains(words);
    check(as_expected, || format!("expected status {status} and {words:?}, got {output:?}"))
}

/// The same program, started directly and by the launcher: same output, same status.
pub fn same(folder: &Path, program: &str, arguments: &[&str]) -> Result<(), Failed> {
    let direct = command(program, folder).args(arguments).output()?;
    let mut launched = vec!["run", "--", program];
    launched.extend(arguments);
    let launched = ldseal(folder, &launched)?;
    check(direct == launched, || format!("{program} {arguments:?}: directly {direct:?}, launched {launched:?}"))
}

/// Writes a file that can be executed at once. A child does it: a descriptor of this process could be open for writing in
/// a child that another thread has just forked, and the kernel executes no such file (ETXTBSY).
pub fn write(path: &Path, content: impl AsRef<[u8]>, mode: u32) -> Result<(), Failed> {
    let mut child = Command::new("sh")
        .args(["-c", "cat > \"$1\" && chmod \"$2\" \"$1\"", "sh"])
        .arg(path)
        .arg(format!("{mode:o}"))
        .stdin(Stdio::piped())
        .spawn()?;
    if let Some(mut input) = child.stdin.take() {
        input.write_all(content.as_ref())?;
    }
    let status = child.wait()?;
    check(status.success(), || format!("writing {}: {status}", path.display()))
}

pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

pub fn skip(reason: impl Into<String>) -> Outcome {
    Ok(Completion::ignored_with(reason.into()))
}

pub const DONE: Outcome = Ok(Completion::Completed);
