//! Kernels and filters that refuse seals: tolerated at level 1, the end at level 2, before anything of the program has run.

use crate::calls::{traced, traced_doing};
use crate::rules::{self, Expected};
use crate::stage::{read, Stage, Wish};
use crate::Check;
use conformance::attack::filter::refusing;
use conformance::attack::trace::MSEAL;
use conformance::process::{Ending, Outcome};
use conformance::Way;

pub const EPERM: i32 = 1;
pub const ENOMEM: i32 = 12;
pub const EACCES: i32 = 13;
pub const EINVAL: i32 = 22;
pub const ENOSYS: i32 = 38;

/// What strerror(3) says, as the fatal line has it.
pub fn text(errno: i32) -> String {
    let told = std::io::Error::from_raw_os_error(errno).to_string();
    told.split(" (os error").next().unwrap_or_default().to_owned()
}

/// The checks.
pub const CHECKS: &[(&str, Check)] = &[
    ("EPERM at level 0", |s, w| tolerated(s, w, EPERM, 0)),
    ("ENOSYS at level 0", |s, w| tolerated(s, w, ENOSYS, 0)),
    ("ENOMEM at level 0", |s, w| tolerated(s, w, ENOMEM, 0)),
    ("EPERM at level 1", |s, w| tolerated(s, w, EPERM, 1)),
    ("ENOSYS at level 1", |s, w| tolerated(s, w, ENOSYS, 1)),
    ("ENOMEM at level 1", |s, w| tolerated(s, w, ENOMEM, 1)),
    ("EINVAL at level 1", |s, w| tolerated(s, w, EINVAL, 1)),
    ("EACCES at level 1", |s, w| tolerated(s, w, EACCES, 1)),
    ("EPERM at level 2", |s, w| fatal(s, w, EPERM)),
    ("ENOSYS at level 2", |s, w| fatal(s, w, ENOSYS)),
    ("ENOMEM at level 2", |s, w| fatal(s, w, ENOMEM)),
    ("EINVAL at level 2", |s, w| fatal(s, w, EINVAL)),
    ("EACCES at level 2", |s, w| fatal(s, w, EACCES)),
    ("ENOSYS is asked for once, and nothing else", |s, w| {
        let calls = refusing(MSEAL as i64, ENOSYS, || traced_doing(s, w, "glibc.rtld.seal=1", &["nothing"]))??;
        let unsealed = traced_doing(s, w, "glibc.rtld.seal=0", &["nothing"])?;
        match (calls.seals.len(), calls.number == unsealed.number + 1) {
            (1, true) => Ok(()),
            (n, _) => Err(format!("{n} calls of mseal of {}, at level 0 {} calls", calls.number, unsealed.number)),
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
pub fn range_of_line(stderr: &str, errno: i32) -> Option<(u64, u64)> {
    let head = "ld-seal.so: Fatal error: sealing is enforced and kernel has failed for 0x";
    let line = stderr.strip_suffix('\n').filter(|line| !line.contains('\n'))?;
    let (start, rest) = line.strip_prefix(head)?.split_once("-0x")?;
    let (end, rest) = rest.split_once(" range: ")?;
    let object = rest.strip_prefix(text(errno).as_str())?.strip_prefix(" (")?.strip_suffix(')')?;
    let (start, end) = (u64::from_str_radix(start, 16).ok()?, u64::from_str_radix(end, 16).ok()?);
    (start < end && start % 4096 == 0 && end % 4096 == 0 && !object.is_empty()).then_some((start, end))
}
