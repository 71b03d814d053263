//! Kernels and filters that refuse seals: tolerated at level 1, the end at level 2, before anything of the program has run.

use crate::calls::traced;
use crate::rules::{self, Expected};
use crate::stage::{read, Stage, Wish};
use crate::Check;
use conformance::attack::filter::refusing;
use conformance::attack::trace::{Stop, Tracee, MSEAL};
use conformance::process::{Ending, Outcome};
use conformance::{suite, Way};
use std::fs::{self, File};
use std::path::Path;

const EPERM: i32 = 1;
const ENOMEM: i32 = 12;
const ENOSYS: i32 = 38;

/// What strerror(3) says, as the fatal line has it.
fn text(errno: i32) -> &'static str {
    match errno {
        EPERM => "Operation not permitted",
        ENOMEM => "Cannot allocate memory",
        _ => "Function not implemented",
    }
}

/// The checks.
pub const CHECKS: &[(&str, Check)] = &[
    ("EPERM at level 0", |s, w| tolerated(s, w, EPERM, 0)),
    ("ENOSYS at level 0", |s, w| tolerated(s, w, ENOSYS, 0)),
    ("ENOMEM at level 0", |s, w| tolerated(s, w, ENOMEM, 0)),
    ("EPERM at level 1", |s, w| tolerated(s, w, EPERM, 1)),
    ("ENOSYS at level 1", |s, w| tolerated(s, w, ENOSYS, 1)),
    ("ENOMEM at level 1", |s, w| tolerated(s, w, ENOMEM, 1)),
    ("EPERM at level 2", |s, w| fatal(s, w, EPERM)),
    ("ENOSYS at level 2", |s, w| fatal(s, w, ENOSYS)),
    ("ENOMEM at level 2", |s, w| fatal(s, w, ENOMEM)),
    ("ENOSYS is asked for once", |s, w| {
        let calls = refusing(MSEAL as i64, ENOSYS, || traced(s, w, "glibc.rtld.seal=1"))??;
        match calls.seals.len() {
            1 => Ok(()),
            n => Err(format!("{n} calls of mseal")),
        }
    }),
    ("EPERM does not stop further seals", |s, w| {
        let calls = refusing(MSEAL as i64, EPERM, || traced(s, w, "glibc.rtld.seal=1"))??;
        let usual = traced(s, w, "glibc.rtld.seal=1")?;
        match calls.seals.len() > 1 && calls.seals.len() == usual.seals.len() {
            true => Ok(()),
            false => Err(format!("{} calls of mseal, without the filter {}", calls.seals.len(), usual.seals.len())),
        }
    }),
    ("each single refusal at level 1", each_tolerated),
    ("each single refusal at level 2", each_fatal),
];

fn tunables(level: u8) -> String {
    format!("glibc.rtld.seal={level}")
}

/// With every seal refused the program runs as ever, and all is open.
fn tolerated(stage: &Stage, way: Way, errno: i32, level: u8) -> Result<(), String> {
    let tunables = tunables(level);
    let wish = Wish::new("attack", &tunables, &[]);
    let table = read(&refusing(MSEAL as i64, errno, || stage.run(way, &wish))??)?;
    let violations = rules::violations(&table, &Expected::NOTHING, stage.interpreter_name());
    match violations.is_empty() {
        true => Ok(()),
        false => Err(violations.join("\n")),
    }
}

fn fatal(stage: &Stage, way: Way, errno: i32) -> Result<(), String> {
    let wish = Wish::new("attack", "glibc.rtld.seal=2", &[]);
    let outcome = refusing(MSEAL as i64, errno, || stage.run(way, &wish))??;
    ended_by_refusal(&outcome, errno).map(drop)
}

/// Status 127 and one line of the known form, and not a byte of the program. Returns the range that the line names.
fn ended_by_refusal(outcome: &Outcome, errno: i32) -> Result<(u64, u64), String> {
    let stderr = String::from_utf8_lossy(&outcome.stderr);
    let stdout = String::from_utf8_lossy(&outcome.stdout);
    if outcome.ending != Ending::Exit(127) || !stdout.is_empty() {
        return Err(format!("ended with {}, stdout: {stdout}, stderr: {stderr}", outcome.ending));
    }
    range_of_line(&stderr, errno).ok_or_else(|| format!("not the fatal line: {stderr:?}"))
}

/// `ld-seal.so: Fatal error: sealing is enforced and kernel has failed for 0xSTART-0xEND range: ERROR (OBJECT)`
fn range_of_line(stderr: &str, errno: i32) -> Option<(u64, u64)> {
    let head = "ld-seal.so: Fatal error: sealing is enforced and kernel has failed for 0x";
    let line = stderr.strip_suffix('\n').filter(|line| !line.contains('\n'))?;
    let (start, rest) = line.strip_prefix(head)?.split_once("-0x")?;
    let (end, rest) = rest.split_once(" range: ")?;
    let object = rest.strip_prefix(text(errno))?.strip_prefix(" (")?.strip_suffix(')')?;
    let (start, end) = (u64::from_str_radix(start, 16).ok()?, u64::from_str_radix(end, 16).ok()?);
    (start < end && start % 4096 == 0 && end % 4096 == 0 && !object.is_empty()).then_some((start, end))
}

/// What came of a start whose seal number `refused` was refused, and the range of that seal.
struct Refused {
    outcome: Outcome,
    range: (u64, u64),
}

/// Starts the program and refuses one seal with ENOMEM. `None` if it made fewer seals.
fn refuse_one(stage: &Stage, way: Way, level: u8, refused: usize, scratch: &Path) -> Result<Option<Refused>, String> {
    let (tunables, failed) = (tunables(level), |e: std::io::Error| e.to_string());
    let [stdout, stderr] = ["stdout", "stderr"].map(|name| scratch.join(name));
    let mut command = stage.command(way, &Wish::new("attack", &tunables, &[]));
    command.stdout(File::create(&stdout).map_err(failed)?).stderr(File::create(&stderr).map_err(failed)?);
    let mut tracee = Tracee::start(&mut command).map_err(failed)?;
    let (mut seals, mut range) = (0, None);
    let ending = loop {
        match tracee.resume().map_err(failed)? {
            Stop::Enter { number: MSEAL, arguments: [start, length, ..] } => {
                if seals == refused {
                    range = Some((start, start + length));
                    tracee.refuse(ENOMEM).map_err(failed)?;
                }
                seals += 1;
            }
            Stop::Enter { .. } | Stop::Leave(_) => {}
            Stop::Ended(ending) => break ending,
        }
    };
    let read = |path: &Path| fs::read(path).map_err(failed);
    let outcome = Outcome { ending, stdout: read(&stdout)?, stderr: read(&stderr)? };
    Ok(range.map(|range| Refused { outcome, range }))
}

/// More seals than any start of this program makes.
const MANY: usize = 100;

/// A refused seal leaves its range open and all others sealed.
fn each_tolerated(stage: &Stage, way: Way) -> Result<(), String> {
    let scratch = scratch("each-tolerated", way)?;
    for refused in 0..MANY {
        let Some(Refused { outcome, range }) = refuse_one(stage, way, 1, refused, &scratch)? else {
            return if refused > 0 { Ok(()) } else { Err("nothing was sealed".into()) };
        };
        let table = read(&outcome).map_err(|e| format!("without seal {refused}: {e}"))?;
        for attacked in table.within(&(range.0..range.1)) {
            if attacked.region.sealed {
                return Err(format!("seal {refused} of {range:x?} was refused, but {}", attacked.told()));
            }
        }
        if !table.regions.iter().any(|attacked| attacked.sealed()) {
            return Err(format!("after the refusal of seal {refused} nothing was sealed"));
        }
    }
    Err(format!("more than {MANY} seals"))
}

/// Whichever seal is refused, the process ends before anything of the program has run, and names that range.
fn each_fatal(stage: &Stage, way: Way) -> Result<(), String> {
    let scratch = scratch("each-fatal", way)?;
    for refused in 0..MANY {
        let Some(Refused { outcome, range }) = refuse_one(stage, way, 2, refused, &scratch)? else {
            return if refused > 0 { Ok(()) } else { Err("nothing was sealed".into()) };
        };
        let named = ended_by_refusal(&outcome, ENOMEM).map_err(|e| format!("without seal {refused}: {e}"))?;
        if named != range {
            return Err(format!("seal {refused} of {range:x?} was refused, the line names {named:x?}"));
        }
    }
    Err(format!("more than {MANY} seals"))
}

fn scratch(name: &str, way: Way) -> Result<std::path::PathBuf, String> {
    let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).join("sealing");
    suite::scratch(&cache, &format!("{name}-{way}"))
}
