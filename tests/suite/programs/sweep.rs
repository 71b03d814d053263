//! Every dynamically linked file in /usr/bin and /usr/sbin, with `--version` and with `--help`, through the launcher.

use crate::cache;
use conformance::compare::{difference, Normaliser};
use conformance::loader::{Start, SYSTEM};
use conformance::process::{Ending, Outcome};
use conformance::{interp, requirement, suite, Level, Loader, Way};
use libtest_mimic::{Completion, Failed, Trial};
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

const FOLDERS: [&str; 2] = ["/usr/bin", "/usr/sbin"];

const OPTIONS: [&str; 2] = ["--version", "--help"];

/// Commands that might act on the machine whatever their options say.
const UNSAFE: [&str; 11] = [
    "reboot", "halt", "poweroff", "shutdown", "telinit", "init", "runlevel", "killall5", "kexec", "rtcwake", "sulogin",
];

/// How often the reference is run again to find out whether a program says the same twice.
const REFERENCES: usize = 3;

const LIMIT: Duration = Duration::from_secs(5);

/// A trial for each file.
pub fn trials(loader: &Loader) -> Vec<Trial> {
    let mut programs: Vec<PathBuf> = FOLDERS.iter().flat_map(|f| dynamic_programs(Path::new(f))).collect();
    programs.sort();
    let trial = |program: PathBuf| {
        let loader = loader.clone();
        Trial::ignorable_test(format!("sweep {}", program.display()), move || check(&program, &loader))
    };
    programs.into_iter().map(trial).collect()
}

fn dynamic_programs(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|e| e.path()).filter(|p| has_interpreter(p).unwrap_or(false)).collect()
}

/// Whether the file is a 64-bit ELF file with a PT_INTERP among the headers in its first page.
fn has_interpreter(path: &Path) -> std::io::Result<bool> {
    let mut start = Vec::new();
    File::open(path)?.take(4096).read_to_end(&mut start)?;
    Ok(conformance::interp::replaced(&start, Path::new("")).is_some())
}

fn check(program: &Path, loader: &Loader) -> Result<Completion, Failed> {
    if let Some(reason) = left_out(program)?.or_else(|| loader.missing(Way::Run)) {
        return Ok(Completion::ignored_with(reason));
    }
    let mut nondeterministic = Vec::new();
    for option in OPTIONS {
        let name = format!("sweep{}{option}", program.display().to_string().replace('/', "."));
        let start = |side: &str| -> Result<Start, String> {
            let mut start = Start::new(program, suite::scratch(&cache(), &format!("{name}/{side}"))?);
            start.args.push(option.into());
            start.env.insert("PATH".into(), "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin".into());
            // The home is the same for all, so that messages about it are.
            start.env.insert("HOME".into(), "/nonexistent".into());
            start.limit = LIMIT;
            Ok(start)
        };
        let expected = reference(&start("reference")?)?;
        if expected.ending == Ending::TimedOut {
            return Ok(Completion::ignored_with(format!("{option} takes longer than {} s", LIMIT.as_secs())));
        }
        let got = normaliser().apply(&start("tested")?.tested(loader, Way::Run, Level(1))?);
        let Some(difference) = difference(&expected, &got) else { continue };
        if !says_the_same(&expected, &start("reference")?)? {
            nondeterministic.push(option);
        } else if !finds_itself(program, &start("itself")?, &got)? {
            return Err(format!("{option}:\n{difference}").into());
        } else {
            match as_interpreter(program, start("reference")?, loader)? {
                Ok(None) => {}
                Ok(Some(difference)) => {
                    return Err(format!("{option} with the interpreter replaced:\n{difference}").into())
                }
                Err(reason) => return Ok(Completion::ignored_with(format!("goes by /proc/self/exe, and {reason}"))),
            }
        }
    }
    match nondeterministic.is_empty() {
        true => Ok(Completion::Completed),
        false => Ok(Completion::ignored_with(format!("two direct starts differ: {}", nondeterministic.join(", ")))),
    }
}

/// Some programs are several processes that write at once.
fn normaliser() -> Normaliser {
    Normaliser { order: true, ..Normaliser::default() }
}

fn reference(start: &Start) -> std::io::Result<Outcome> {
    Ok(normaliser().apply(&start.reference(Way::Run, Level(1))?))
}

/// Whether direct starts of the program give `expected` again and again.
pub fn says_the_same(expected: &Outcome, start: &Start) -> std::io::Result<bool> {
    for _ in 1..REFERENCES {
        if difference(&normaliser().apply(expected), &reference(start)?).is_some() {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Whether the program goes by /proc/self/exe, the one thing that a launcher cannot give it: then it is at the same loss
/// when the system's loader is named in front of it. A copy of that loader, since some programs look for `/lib/` in the path.
fn finds_itself(program: &Path, start: &Start, got: &Outcome) -> std::io::Result<bool> {
    let loader = start.directory.join("ld.so");
    interp::replaced_copy(Path::new(SYSTEM), &loader, Path::new(""))?;
    let mut start = Start { program: loader, ..start.clone() };
    start.args.insert(0, fs::canonicalize(program)?.to_string_lossy().into_owned());
    Ok(difference(&reference(&start)?, got).is_none())
}

/// The program in its own place with the interpreter under test in its PT_INTERP: the copy is mounted over it in a namespace.
/// What differs; or, as the inner error, why that can't be tried here.
fn as_interpreter(program: &Path, start: Start, loader: &Loader) -> Result<Result<Option<String>, String>, Failed> {
    let Some(namespace) = requirement::mount_namespace() else {
        return Ok(Err("nothing can be mounted here".into()));
    };
    let original = fs::canonicalize(program)?;
    let copy = start.directory.join("replaced");
    interp::replaced_copy(&original, &copy, &loader.interpreter)?;
    let mounted = |file: &Path| {
        let mut start = start.clone();
        let script = r#"mount --bind "$0" "$1" && shift && exec "$@""#;
        let words = [&["unshare"], namespace, &["sh", "-c", script]].concat();
        start.wrapper = words.into_iter().map(String::from).collect();
        start.wrapper.extend([file, &original].map(|p| p.to_string_lossy().into_owned()));
        start
    };
    let expected = normaliser().apply(&mounted(&original).reference(Way::Interp, Level(1))?);
    let got = normaliser().apply(&mounted(&copy).tested(loader, Way::Interp, Level(1))?);
    Ok(Ok(difference(&expected, &got)))
}

/// Why a program is not tried: it is dangerous, or it is one that the launcher refuses.
fn left_out(program: &Path) -> std::io::Result<Option<String>> {
    let name = program.file_name().unwrap_or_default();
    if UNSAFE.iter().any(|u| name == *u) {
        return Ok(Some("might act on the machine".into()));
    }
    let mode = program.metadata()?.permissions().mode();
    let mut capabilities = [0; 64];
    if mode & 0o6000 != 0 || rustix::fs::getxattr(program, "security.capability", &mut capabilities).is_ok() {
        return Ok(Some("gains privileges: the launcher refuses it".into()));
    }
    match mode & 0o111 != 0 && rustix::fs::access(program, rustix::fs::Access::EXEC_OK).is_ok() {
        true => Ok(None),
        false => Ok(Some("may not be executed by this user".into())),
    }
}
