//! Every dynamically linked command of this machine, with `--version` and with `--help`.

use crate::check::Bench;
use crate::compare::{self, Normaliser};
use crate::loader::{Level, Loader, Start, Way};
use crate::process::{Ending, Outcome};
use crate::verdict::{Difference, Observation, Verdict};
use crate::{interp, requirement, suite};
use std::fs::{self, File};
use std::io::{self, Read};
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

/// The commands of this machine that have an interpreter.
pub fn installed() -> Vec<PathBuf> {
    let mut programs: Vec<PathBuf> = FOLDERS.iter().flat_map(|f| dynamic_programs(Path::new(f))).collect();
    programs.sort();
    programs
}

fn dynamic_programs(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|e| e.path()).filter(|p| has_interpreter(p).unwrap_or(false)).collect()
}

/// Whether the file is a 64-bit ELF file with a PT_INTERP among the headers in its first page.
fn has_interpreter(path: &Path) -> std::io::Result<bool> {
    let mut start = Vec::new();
    File::open(path)?.take(4096).read_to_end(&mut start)?;
    Ok(interp::replaced(&start, Path::new("")).is_some())
}

/// A command with each of the options, started in the way that the loader under test has: by its launcher, or else by its own name.
pub fn check(program: &Path, bench: &Bench) -> Verdict {
    match differences(program, bench) {
        Ok(verdict) => verdict,
        Err(e) => Verdict::Broken(e.to_string()),
    }
}

fn differences(program: &Path, bench: &Bench) -> io::Result<Verdict> {
    if let Some(reason) = left_out(program)? {
        return Ok(Verdict::Skipped(reason));
    }
    let way = if bench.tested.launcher.is_some() { Way::Run } else { Way::Invoke };
    let comparison = Comparison { program, bench, way };
    let mut nondeterministic = Vec::new();
    for option in OPTIONS {
        let expected = comparison.reference(option)?;
        if expected.ending == Ending::TimedOut {
            return Ok(Verdict::Skipped(format!("{option} takes longer than {} s", LIMIT.as_secs())));
        }
        let got = comparison.tested(option)?;
        let observations = compare::observations(&expected, &got);
        if observations.is_empty() {
            continue;
        }
        if !comparison.says_the_same(option, &expected)? {
            nondeterministic.push(option);
        } else if way != Way::Run || !comparison.finds_itself(option, &got)? {
            return comparison.verdict(option, observations);
        } else {
            match comparison.as_interpreter(option)? {
                Ok(observations) if observations.is_empty() => {}
                Ok(observations) => return comparison.verdict(option, observations),
                Err(reason) => return Ok(Verdict::Skipped(format!("goes by /proc/self/exe, and {reason}"))),
            }
        }
    }
    match nondeterministic.is_empty() {
        true => Ok(Verdict::Agrees),
        false => {
            Ok(Verdict::Skipped(format!("two starts under the reference differ: {}", nondeterministic.join(", "))))
        }
    }
}

/// Some programs are several processes that write at once.
fn normaliser() -> Normaliser {
    Normaliser { order: true, ..Normaliser::default() }
}

/// Whether starts of a program under the system's loader give `expected` again and again.
///
/// # Errors
/// It can't be started.
pub fn says_the_same(expected: &Outcome, start: &Start) -> io::Result<bool> {
    repeats(expected, || start.reference(Way::Run, Level(1)))
}

fn repeats(expected: &Outcome, again: impl Fn() -> io::Result<Outcome>) -> io::Result<bool> {
    let expected = normaliser().apply(expected);
    for _ in 1..REFERENCES {
        if normaliser().apply(&again()?) != expected {
            return Ok(false);
        }
    }
    Ok(true)
}

struct Comparison<'c> {
    program: &'c Path,
    bench: &'c Bench,
    way: Way,
}

impl Comparison<'_> {
    fn start(&self, option: &str, side: &str) -> io::Result<Start> {
        let name = format!("sweep{}{option}/{side}", self.program.display().to_string().replace('/', "."));
        let mut start = Start::new(self.program, suite::scratch(&self.bench.cache, &name).map_err(io::Error::other)?);
        start.args.push(option.into());
        start.env.insert("PATH".into(), "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin".into());
        // The home is the same for all, so that messages about it are.
        start.env.insert("HOME".into(), "/nonexistent".into());
        start.limit = LIMIT;
        Ok(start)
    }

    fn under(&self, start: &Start, loader: &Loader) -> io::Result<Outcome> {
        let mut normaliser = normaliser();
        if self.way == Way::Invoke {
            normaliser.replacements.push((loader.interpreter.to_string_lossy().into_owned(), "{loader}"));
        }
        Ok(normaliser.apply(&start.under(loader, self.way, Level(1))?))
    }

    fn reference(&self, option: &str) -> io::Result<Outcome> {
        self.under(&self.start(option, "reference")?, &self.bench.reference)
    }

    fn tested(&self, option: &str) -> io::Result<Outcome> {
        self.under(&self.start(option, "tested")?, &self.bench.tested)
    }

    fn says_the_same(&self, option: &str, expected: &Outcome) -> io::Result<bool> {
        repeats(expected, || self.reference(option))
    }

    fn verdict(&self, option: &str, observations: Vec<Observation>) -> io::Result<Verdict> {
        let by_hand = |side, loader| Ok::<_, io::Error>(self.start(option, side)?.by_hand(loader, self.way, Level(1)));
        let commands = [by_hand("reference", &self.bench.reference)?, by_hand("tested", &self.bench.tested)?];
        let (run, way, level) = (option.to_string(), self.way, Level(1));
        Ok(Verdict::Differs(vec![Difference { run, way, level, start: (1, 1), observations, commands }]))
    }

    /// Whether the program goes by /proc/self/exe, the one thing that a launcher cannot give it: then it is at the same loss
    /// when the reference is named in front of it. A copy of that loader, since some programs look for `/lib/` in the path.
    fn finds_itself(&self, option: &str, got: &Outcome) -> io::Result<bool> {
        let mut start = self.start(option, "itself")?;
        let loader = start.directory.join("ld.so");
        interp::replaced_copy(&self.bench.reference.interpreter, &loader, Path::new(""))?;
        start.args.insert(0, fs::canonicalize(self.program)?.to_string_lossy().into_owned());
        start.program = loader;
        Ok(self.under(&start, &self.bench.reference)? == *got)
    }

    /// The program in its own place with the interpreter under test in its PT_INTERP: the copy is mounted over it in a namespace.
    /// What differs; or, as the inner error, why that can't be tried here.
    fn as_interpreter(&self, option: &str) -> io::Result<Result<Vec<Observation>, String>> {
        let Some(namespace) = requirement::mount_namespace() else {
            return Ok(Err("nothing can be mounted here".into()));
        };
        let original = fs::canonicalize(self.program)?;
        let start = self.start(option, "reference")?;
        let copy = start.directory.join("replaced");
        interp::replaced_copy(&original, &copy, &self.bench.tested.interpreter)?;
        let mounted = |file: &Path, loader| {
            let mut start = start.clone();
            let script = r#"mount --bind "$0" "$1" && shift && exec "$@""#;
            let words = [&["unshare"], namespace, &["sh", "-c", script]].concat();
            start.wrapper = words.into_iter().map(String::from).collect();
            start.wrapper.extend([file, &original].map(|p| p.to_string_lossy().into_owned()));
            Ok::<_, io::Error>(normaliser().apply(&start.under(loader, Way::Interp, Level(1))?))
        };
        let expected = mounted(&original, &self.bench.reference)?;
        let got = mounted(&copy, &self.bench.tested)?;
        Ok(Ok(compare::observations(&expected, &got)))
    }
}

/// Why a program is not tried: it is dangerous, or it is one that the launcher refuses.
fn left_out(program: &Path) -> io::Result<Option<String>> {
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
