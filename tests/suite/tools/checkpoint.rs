//! criu: a program that was dumped and restored goes on as it does under the system's loader, and its seals are gone.

use super::compile;
use conformance::loader::SYSTEM;
use conformance::process::{capture, Ending};
use conformance::{requirement, suite, Level, Loader};
use libtest_mimic::{Completion, Failed, Trial};
use rustix::process::{kill_process, Pid, Signal};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Levels, and what the tunables say besides.
const ROUNDS: [(Level, &str); 5] =
    [(Level(0), ""), (Level(1), ""), (Level(1), "ldseal.vdso=0"), (Level(2), ""), (Level(2), "ldseal.vdso=0")];

const LIMIT: Duration = Duration::from_secs(60);

/// One for each level, with the vDSO sealed and not.
pub fn trials(loader: &Loader) -> Vec<Trial> {
    let trial = |(level, extra): (Level, &'static str)| {
        let loader = loader.clone();
        let name = format!("criu {level} {extra}");
        Trial::ignorable_test(name.trim_end().to_owned(), move || check(&loader, level, extra))
    };
    ROUNDS.into_iter().map(trial).collect()
}

fn check(loader: &Loader, level: Level, extra: &str) -> Result<Completion, Failed> {
    if let Some(reason) = ["cc", "setsid", "criu"].into_iter().find_map(requirement::unmet) {
        return Ok(Completion::ignored_with(reason));
    }
    let able = capture(Command::new("criu").arg("check"), b"", LIMIT)?;
    if able.ending != Ending::Exit(0) {
        let said = String::from_utf8_lossy(&able.stderr).into_owned();
        let reason = said.lines().find(|line| line.contains("Error") && !line.contains("exited")).unwrap_or_default();
        return Ok(Completion::ignored_with(format!("criu does not work here: {reason}")));
    }
    let name = format!("criu-{}-{}", level.0, extra.is_empty());
    let folder = suite::scratch(&Path::new(env!("CARGO_TARGET_TMPDIR")).join("tools"), &name)?;
    let tunables = format!("glibc.rtld.seal={}:{extra}", level.0);
    let system = match round(&folder.join("system"), Path::new(SYSTEM), &tunables) {
        Ok(round) => round,
        // What criu can't do at all is not the loader's fault.
        Err(Problem::Criu(said)) => return Ok(Completion::ignored_with(format!("under the system's loader: {said}"))),
        Err(problem) => return Err(problem.into()),
    };
    let tested = round(&folder.join("tested"), &loader.interpreter, &tunables)?;
    if tested.said != system.said {
        return Err(format!("restored it says\n{}\ninstead of\n{}", tested.said, system.said).into());
    }
    if loader.seals() {
        tested.judge(level, extra)?;
    }
    Ok(Completion::Completed)
}

/// A program before it is dumped, when it is restored, and at its end.
struct Round {
    said: String,
    before: Vec<String>,
    restored: Vec<String>,
    later: Vec<String>,
    /// Exit status and text of `ldseal report --require code` when it is restored.
    report: (Ending, String),
}

impl Round {
    /// Seals are there, gone, and there again for what is opened afterwards and stays.
    fn judge(&self, level: Level, extra: &str) -> Result<(), Failed> {
        let sealed = |names: &[String], what: &str| names.iter().any(|name| name.ends_with(what));
        let seals = level != Level(0);
        let expected = [
            ("before", &self.before, "/program", seals),
            ("before", &self.before, "/libkept.so", seals),
            ("before", &self.before, "[vdso]", seals && extra.is_empty()),
            ("before", &self.before, "/libclosed.so", false),
            ("restored", &self.restored, "", false),
            ("later", &self.later, "/liblate.so", seals),
            ("later", &self.later, "/libkept.so", false),
        ];
        for (when, names, what, is) in expected {
            if sealed(names, what) != is {
                return Err(format!("{when}: {what:?} should be sealed: {is}; sealed are {names:?}").into());
            }
        }
        let (ending, text) = &self.report;
        let told = text.contains("Sealed: 0 KiB of ") && (!seals || text.contains("restored from a checkpoint"));
        match *ending == Ending::Exit(3) && told {
            true => Ok(()),
            false => Err(format!("the report does not tell that the seals are gone: {ending}\n{text}").into()),
        }
    }
}

enum Problem {
    /// criu said this.
    Criu(String),
    Other(String),
}

impl<E: std::error::Error> From<E> for Problem {
    fn from(error: E) -> Problem {
        Problem::Other(error.to_string())
    }
}

impl From<Problem> for Failed {
    fn from(problem: Problem) -> Failed {
        match problem {
            Problem::Criu(said) | Problem::Other(said) => said.into(),
        }
    }
}

/// Builds the program for `interpreter`, starts, dumps and restores it, and lets it run to its last word.
fn round(folder: &Path, interpreter: &Path, tunables: &str) -> Result<Round, Problem> {
    let interpreter = fs::canonicalize(interpreter)?;
    fs::create_dir_all(folder.join("images"))?;
    build(folder, &interpreter).map_err(|failed| Problem::Other(failed.message().unwrap_or_default().to_owned()))?;
    // A session of its own, without a terminal: so it can be restored alone.
    let mut command = Command::new("setsid");
    command.args(["./program", "said"]).current_dir(folder).env_clear();
    command.env("PATH", std::env::var_os("PATH").unwrap_or_default()).env("GLIBC_TUNABLES", tunables);
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
    let pid = Pid::from_child(&child);
    let mut program = Program { pid, folder: fs::canonicalize(folder)? };
    program.wait_for("waiting\n")?;
    let before = program.sealed()?;
    let number = pid.as_raw_nonzero().to_string();
    criu(folder, &["dump", "--tree", &number])?;
    child.wait()?;
    criu(folder, &["restore", "--restore-detached"])?;
    let restored = program.sealed()?;
    let mut report = Command::new(env!("CARGO_BIN_EXE_ldseal"));
    let report = capture(report.args(["report", "--require", "code", &number]), b"", LIMIT)?;
    kill_process(pid, Signal::USR1)?;
    let said = program.wait_for("done\n")?;
    let later = program.sealed()?;
    Ok(Round { said, before, restored, later, report: (report.ending, String::from_utf8_lossy(&report.stdout).into()) })
}

fn build(folder: &Path, interpreter: &Path) -> Result<(), Failed> {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/tools");
    let source = |name: &str| fixtures.join(name).to_string_lossy().into_owned();
    for name in ["kept", "closed", "late"] {
        let (output, define) = (format!("lib{name}.so"), format!("-DNAME={name}"));
        compile("cc", folder, &["-shared", "-fPIC", "-o", &output, &define, &source("answer.c")])?;
    }
    let interpreter = format!("-Wl,--dynamic-linker={}", interpreter.display());
    compile("cc", folder, &["-o", "program", &interpreter, "-pthread", &source("checkpointed.c")])
}

/// Runs criu with its files in `folder`.
fn criu(folder: &Path, words: &[&str]) -> Result<(), Problem> {
    let mut command = Command::new("criu");
    command.args(words).args(["--images-dir", "images", "--log-file", "log", "-v2"]).current_dir(folder);
    let outcome = capture(&mut command, b"", LIMIT)?;
    if outcome.ending == Ending::Exit(0) {
        return Ok(());
    }
    let log = fs::read_to_string(folder.join("images/log")).unwrap_or_default();
    Err(Problem::Criu(format!("criu {}: {}\n{log}", words[0], outcome.ending)))
}

/// The running program; ended when dropped, if it is still the one of this folder.
struct Program {
    pid: Pid,
    folder: PathBuf,
}

impl Program {
    fn file(&self, name: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/{name}", self.pid.as_raw_nonzero()))
    }

    /// What it has said, once that ends with `last`.
    fn wait_for(&mut self, last: &str) -> Result<String, Problem> {
        let begin = Instant::now();
        loop {
            let said = fs::read_to_string(self.folder.join("said")).unwrap_or_default();
            if said.ends_with(last) {
                return Ok(said);
            }
            if begin.elapsed() > LIMIT {
                return Err(Problem::Other(format!("no {last:?} after {LIMIT:?}, only {said:?}")));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// The names of the mappings that have a seal.
    fn sealed(&self) -> Result<Vec<String>, Problem> {
        let text = fs::read_to_string(self.file("smaps"))?;
        let mut name = "";
        let mut result = Vec::new();
        for line in text.lines() {
            let mut words = line.split_whitespace();
            match words.next() {
                Some("VmFlags:") if words.any(|flag| flag == "sl") => result.push(name.to_owned()),
                Some(first) if !first.ends_with(':') => name = words.nth(4).unwrap_or_default(),
                _ => {}
            }
        }
        Ok(result)
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        if fs::read_link(self.file("cwd")).is_ok_and(|directory| directory == self.folder) {
            // It may have ended by itself, which is what a kill is for anyway.
            let _ = kill_process(self.pid, Signal::KILL);
        }
    }
}
