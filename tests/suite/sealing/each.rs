//! Each single seal refused in turn, those of the start and those of a dlopen that comes to stay, with each error number that the kernel's
//! documentation names and with some that only a filter gives. Level 1 goes on as if nothing were, and says what stays open; level 2 ends
//! there and names it.

use crate::refusals::{range_of_line, text, EACCES, EINVAL, ENOMEM, ENOSYS, EPERM};
use crate::stage::{read, Stage, Wish};
use crate::Check;
use conformance::attack::trace::{Stop, Tracee, MSEAL};
use conformance::process::{Ending, Outcome};
use conformance::{suite, Way};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The checks.
pub const CHECKS: &[(&str, Check)] = &[
    ("each single refusal leaves its range open", each_open),
    ("each single refusal with each error at level 1", each_tolerated),
    ("each single refusal with each error at level 2", each_fatal),
    ("each single refusal is in the report", each_reported),
];

const EINTR: i32 = 4;
const EAGAIN: i32 = 11;

/// Four that are documented, and what filters may say.
const ERRORS: [i32; 7] = [EPERM, ENOMEM, EINVAL, ENOSYS, EACCES, EINTR, EAGAIN];

/// What `keeper` prints, as far as its dlopen and to its end.
const STARTED: &str = "constructor\tneeded\nstarted 1\n";
const WHOLE: &str = "constructor\tneeded\nstarted 1\nopened 2\n";

/// More seals than any start of these programs makes.
const MANY: usize = 100;

/// What is started, and which of its seals is refused how.
struct Attempt<'a> {
    wish: Wish<'a>,
    debug: bool,
    which: usize,
    errno: i32,
}

/// What came of it.
struct Refused {
    outcome: Outcome,
    /// Of the seal that was refused.
    range: (u64, u64),
    /// How many seals were asked for.
    seals: usize,
    /// What `ldseal report` said of it before its end.
    report: Option<serde_json::Value>,
}

/// Starts a program and refuses one seal. `None` if it made fewer seals.
fn refuse(stage: &Stage, way: Way, attempt: &Attempt, scratch: &Path) -> Result<Option<Refused>, String> {
    let failed = |e: std::io::Error| e.to_string();
    let [stdout, stderr] = ["stdout", "stderr"].map(|name| scratch.join(name));
    let mut command = stage.command(way, &attempt.wish);
    if attempt.debug {
        command.env("LD_DEBUG", "seal");
    }
    command.stdout(File::create(&stdout).map_err(failed)?).stderr(File::create(&stderr).map_err(failed)?);
    let mut tracee = Tracee::start(&mut command).map_err(failed)?;
    let (mut seals, mut range, mut report) = (0, None, None);
    let ending = loop {
        match tracee.resume().map_err(failed)? {
            Stop::Enter { number: MSEAL, arguments: [start, length, ..] } => {
                if seals == attempt.which {
                    range = Some((start, start + length));
                    tracee.refuse(attempt.errno).map_err(failed)?;
                }
                seals += 1;
            }
            // It is about to end, and all is still there.
            Stop::Enter { number, .. } if number as i64 == libc::SYS_exit_group && attempt.debug && range.is_some() => {
                report = Some(reported(tracee.pid())?);
            }
            Stop::Enter { .. } | Stop::Leave(_) => {}
            Stop::Ended(ending) => break ending,
        }
    };
    let read = |path: &Path| fs::read(path).map_err(failed);
    let outcome = Outcome { ending, stdout: read(&stdout)?, stderr: read(&stderr)? };
    Ok(range.map(|range| Refused { outcome, range, seals, report }))
}

fn reported(pid: u32) -> Result<serde_json::Value, String> {
    let output = Command::new(env!("CARGO_BIN_EXE_ldseal")).args(["report", "--json", &pid.to_string()]).output();
    let output = output.map_err(|e| e.to_string())?;
    serde_json::from_slice(&output.stdout).map_err(|e| format!("{e}: {}", String::from_utf8_lossy(&output.stderr)))
}

/// Refuses one seal after the other, and has what came of each judged.
fn each(
    stage: &Stage,
    way: Way,
    name: &str,
    attempt: impl Fn(usize) -> Attempt<'static>,
    judge: impl Fn(&Refused) -> Result<(), String>,
) -> Result<usize, String> {
    let scratch = scratch(name, way)?;
    for which in 0..MANY {
        let attempt = attempt(which);
        let Some(refused) = refuse(stage, way, &attempt, &scratch)? else {
            return if which > 3 { Ok(which) } else { Err(format!("only {which} seals")) };
        };
        judge(&refused).map_err(|e| {
            let (range, outcome) = (refused.range, &refused.outcome);
            let [stdout, stderr] = [&outcome.stdout, &outcome.stderr].map(|s| String::from_utf8_lossy(s).into_owned());
            let errno = text(attempt.errno);
            format!("seal {which} of {range:x?}, {errno}: {e}\nended with {}, {stdout}{stderr}", outcome.ending)
        })?;
    }
    Err(format!("more than {MANY} seals"))
}

/// A refused seal leaves its range open and all others sealed: by attack.
fn each_open(stage: &Stage, way: Way) -> Result<(), String> {
    let attempt =
        |which| Attempt { wish: Wish::new("attack", "glibc.rtld.seal=1", &[]), debug: false, which, errno: ENOMEM };
    let judge = |refused: &Refused| {
        let table = read(&refused.outcome)?;
        let (start, end) = refused.range;
        if let Some(attacked) = table.within(&(start..end)).into_iter().find(|attacked| attacked.region.sealed) {
            return Err(format!("sealed all the same: {}", attacked.told()));
        }
        match table.regions.iter().any(|attacked| attacked.sealed()) {
            true => Ok(()),
            false => Err("nothing was sealed".into()),
        }
    };
    each(stage, way, "each-open", attempt, judge).map(drop)
}

fn keeper(level: u8, debug: bool, which: usize, errno: i32) -> Attempt<'static> {
    let tunables = ["glibc.rtld.seal=0", "glibc.rtld.seal=1", "glibc.rtld.seal=2"][usize::from(level)];
    Attempt { wish: Wish::new("keeper", tunables, &[]), debug, which, errno }
}

/// The program does all that it does, whatever is refused: once only where that is for want of the call, else every other seal is made.
fn each_tolerated(stage: &Stage, way: Way) -> Result<(), String> {
    let mut usual = None;
    for errno in ERRORS {
        let judge = |refused: &Refused| {
            let Refused { outcome, .. } = refused;
            match outcome.ending == Ending::Exit(0) && outcome.stdout == WHOLE.as_bytes() && outcome.stderr.is_empty() {
                true => Ok(()),
                false => Err("it is not as ever".into()),
            }
        };
        let made = std::cell::Cell::new(0);
        let count = |refused: &Refused| {
            made.set(made.get().max(refused.seals));
            judge(refused)
        };
        let seals = each(stage, way, "each-tolerated", |which| keeper(1, false, which, errno), count)?;
        let usual = *usual.get_or_insert(seals);
        if seals != usual || (errno != ENOSYS && made.get() != usual) {
            return Err(format!("{}: {seals} seals instead of {usual}, at most {}", text(errno), made.get()));
        }
    }
    Ok(())
}

/// It ends at once, with the line that names the range: before anything of the program has run, or in the middle of its dlopen.
fn each_fatal(stage: &Stage, way: Way) -> Result<(), String> {
    for errno in ERRORS {
        let late = std::cell::Cell::new(0);
        let judge = |refused: &Refused| {
            let Refused { outcome, range, .. } = refused;
            let stdout = String::from_utf8_lossy(&outcome.stdout);
            if outcome.ending != Ending::Exit(127) || !["", STARTED].contains(&stdout.as_ref()) {
                return Err("it went on".into());
            }
            late.set(late.get() + usize::from(!stdout.is_empty()));
            match range_of_line(&String::from_utf8_lossy(&outcome.stderr), errno) {
                Some(named) if named == *range => Ok(()),
                named => Err(format!("the line names {named:x?}")),
            }
        };
        let seals = each(stage, way, "each-fatal", |which| keeper(2, false, which, errno), judge)?;
        if late.get() == 0 || late.get() == seals {
            return Err(format!("{} of {seals} seals were those of a dlopen", late.get()));
        }
    }
    Ok(())
}

/// `LD_DEBUG=seal` names what was refused, and no seal is asked for after one that the kernel does not know; the report calls it open and
/// says so of no other memory that is sealed else.
fn each_reported(stage: &Stage, way: Way) -> Result<(), String> {
    for errno in [EPERM, ENOSYS] {
        let judge = |refused: &Refused| {
            let (start, end) = refused.range;
            let stderr = String::from_utf8_lossy(&refused.outcome.stderr);
            let named: Vec<&str> = stderr.lines().filter(|line| line.contains("\trefused 0x")).collect();
            let expected = format!("\trefused {start:#x}-{end:#x} ");
            let is_named = matches!(named[..], [line] if line.contains(&expected) && line.ends_with(&text(errno)));
            if refused.outcome.ending != Ending::Exit(0) || !is_named {
                return Err(format!("refused lines: {named:?}"));
            }
            in_report(refused.report.as_ref().ok_or("no report")?, start, end)
        };
        each(stage, way, "each-reported", |which| keeper(1, true, which, errno), judge)?;
    }
    Ok(())
}

/// Each region of the range is open, for a reason that is a refusal.
fn in_report(report: &serde_json::Value, start: u64, end: u64) -> Result<(), String> {
    let objects = report["objects"].as_array().into_iter().flatten();
    let regions = objects.flat_map(|object| object["regions"].as_array().into_iter().flatten());
    let address = |value: &serde_json::Value| u64::from_str_radix(value.as_str()?.strip_prefix("0x")?, 16).ok();
    let mut bytes = 0;
    for region in regions {
        let (Some(from), Some(to)) = (address(&region["start"]), address(&region["end"])) else {
            return Err(format!("a region without addresses: {region}"));
        };
        let overlap = to.min(end).saturating_sub(from.max(start));
        bytes += overlap;
        let why = region["why_not"].as_str().unwrap_or_default();
        if overlap > 0 && (region["sealed"] != false || !(why.contains("refused") || why.contains("the loader's"))) {
            return Err(format!("in the report: {region}"));
        }
    }
    match bytes == end - start {
        true => Ok(()),
        false => Err(format!("the report knows {bytes} bytes of it")),
    }
}

fn scratch(name: &str, way: Way) -> Result<PathBuf, String> {
    let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).join("sealing");
    suite::scratch(&cache, &format!("{name}-{way}"))
}
