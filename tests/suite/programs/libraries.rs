//! Every library of the system's folders of libraries, opened and closed by a small program of its own.

use crate::cache;
use conformance::compare::difference;
use conformance::loader::Start;
use conformance::process::{capture, Ending, Outcome};
use conformance::{commands, requirement, suite, Level, Loader, Way};
use libtest_mimic::{Completion, Failed, Trial};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

/// Libraries, and folders with modules of programs.
const FOLDERS: [&str; 4] = [
    "/usr/lib/x86_64-linux-gnu",
    "/usr/lib/x86_64-linux-gnu/gconv",
    "/usr/lib/python3/dist-packages",
    "/usr/lib/python3.11/lib-dynload",
];

/// A trial for each library.
pub fn trials(loader: &Loader) -> Vec<Trial> {
    let mut libraries: Vec<PathBuf> = FOLDERS.iter().flat_map(|f| libraries(Path::new(f))).collect();
    libraries.sort();
    let trial = |library: PathBuf| {
        let loader = loader.clone();
        Trial::ignorable_test(format!("library {}", library.display()), move || check(&library, &loader))
    };
    libraries.into_iter().map(trial).collect()
}

/// The ELF files that are named as libraries are; symbolic links lead to what is listed anyway.
fn libraries(folder: &Path) -> Vec<PathBuf> {
    let named = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        (name.ends_with(".so") || name.contains(".so.")) && !path.is_symlink()
    };
    let elf = |path: &PathBuf| fs::read(path).is_ok_and(|bytes| bytes.starts_with(b"\x7fELF"));
    fs::read_dir(folder).into_iter().flatten().flatten().map(|e| e.path()).filter(named).filter(elf).collect()
}

fn check(library: &Path, loader: &Loader) -> Result<Completion, Failed> {
    if let Some(reason) = requirement::unmet("cc").or_else(|| loader.missing(Way::Run)) {
        return Ok(Completion::ignored_with(reason));
    }
    let mut start = Start::new(opener()?, cache());
    start.args.push(library.to_string_lossy().into_owned());
    start.env.insert("HOME".into(), "/nonexistent".into());
    start.limit = Duration::from_secs(20);
    let expected = start.reference(Way::Run, Level(1))?;
    if expected.ending == Ending::TimedOut {
        return Ok(Completion::ignored_with("does not end under the system's loader"));
    }
    match difference(&expected, &start.tested(loader, Way::Run, Level(1))?) {
        None => Ok(Completion::Completed),
        Some(difference) if commands::says_the_same(&expected, &start)? => Err(difference.into()),
        Some(_) => Ok(Completion::ignored_with("two direct starts differ")),
    }
}

/// The program that opens a library.
fn opener() -> Result<&'static Path, String> {
    static OPENER: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let compiled = || {
        let folder = suite::scratch(&cache(), "opener")?;
        let failed = |e: std::io::Error| format!("{}: {e}", folder.display());
        fs::write(folder.join("opener.c"), include_str!("opener.c")).map_err(failed)?;
        let mut command = Command::new("cc");
        command.args(["-D_GNU_SOURCE", "-o", "opener", "opener.c"]).current_dir(&folder);
        match capture(&mut command, b"", Duration::from_secs(100)).map_err(failed)? {
            Outcome { ending: Ending::Exit(0), .. } => Ok(folder.join("opener")),
            outcome => Err(String::from_utf8_lossy(&outcome.stderr).into_owned()),
        }
    };
    OPENER.get_or_init(compiled).as_deref().map_err(Clone::clone)
}
