//! What dlmopen brings into a namespace follows the rules of dlopen: it is sealed, its C library too, from when nothing can unload it any
//! more, and not before.

use crate::stage::{Stage, Wish};
use crate::Check;
use conformance::process::Ending;
use conformance::Way;

/// The checks.
pub const CHECKS: &[(&str, Check)] = &[
    ("a namespace at level 0", |s, w| attacked(s, w, "keep", "glibc.rtld.seal=0", &[])),
    ("a namespace of RTLD_NODELETE at level 1", |s, w| attacked(s, w, "keep", "glibc.rtld.seal=1", &READ_ONLY)),
    ("a namespace of RTLD_NODELETE at level 2", |s, w| attacked(s, w, "keep", "glibc.rtld.seal=2", &ALL)),
    ("a closed namespace of RTLD_NODELETE at level 2", |s, w| attacked(s, w, "close", "glibc.rtld.seal=2", &ALL)),
    ("a promoted namespace at level 1", |s, w| attacked(s, w, "promote", "glibc.rtld.seal=1", &READ_ONLY)),
    ("a lazy call in a namespace at level 1", |s, w| depended(s, w, "call", "glibc.rtld.seal=1", &READ_ONLY)),
    ("a lazy call in a namespace at level 2", |s, w| depended(s, w, "call", "glibc.rtld.seal=2", &ALL)),
    ("a look-up in a namespace at level 1", |s, w| depended(s, w, "look-up", "glibc.rtld.seal=1", &READ_ONLY)),
    ("a look-up in a namespace at level 2", |s, w| depended(s, w, "look-up", "glibc.rtld.seal=2", &ALL)),
    ("no call in a namespace at level 2", |s, w| depended(s, w, "neither", "glibc.rtld.seal=2", &[])),
    ("a namespace stays open at level 1", |s, w| attacked(s, w, "plain", "glibc.rtld.seal=1", &[])),
    ("a namespace stays open at level 2", |s, w| attacked(s, w, "plain", "glibc.rtld.seal=2", &[])),
    ("a namespace that fails leaves nothing at level 2", failed),
];

/// What is sealed at level 1.
pub const READ_ONLY: [&str; 3] = ["relro", "rodata", "text"];
/// What is sealed at level 2.
pub const ALL: [&str; 4] = ["relro", "rodata", "text", "data"];
/// What must have been attacked of the namespace.
const OBJECTS: [&str; 3] = ["libspace.so", "libplugged.so", "libc.so.6"];

/// Has a namespace attacked: the kinds of memory that are named must withstand everything, the others nothing.
fn attacked(stage: &Stage, way: Way, how: &str, tunables: &str, sealed: &[&str]) -> Result<(), String> {
    let outcome = stage.run(way, &Wish::new("space", tunables, &["./libspace.so", how]))?;
    let mut wrong = attacks(&String::from_utf8_lossy(&outcome.stdout), &OBJECTS, sealed)?;
    if outcome.ending != Ending::Exit(0) {
        wrong.push(format!("ended with {}: {}", outcome.ending, String::from_utf8_lossy(&outcome.stderr)));
    }
    wrong.is_empty().then_some(()).ok_or_else(|| wrong.join("\n"))
}

/// A plain library of a namespace, which an object that stays there calls lazily or looks up: it comes to stay, and is attacked alone.
fn depended(stage: &Stage, way: Way, how: &str, tunables: &str, sealed: &[&str]) -> Result<(), String> {
    let outcome = stage.run(way, &Wish::new("space", tunables, &["./libasking.so", how]))?;
    let stdout = String::from_utf8_lossy(&outcome.stdout);
    let Some((lines, stays)) = stdout.rsplit_once("closed, mapped ") else {
        return Err(format!("ended with {}: {stdout}{}", outcome.ending, String::from_utf8_lossy(&outcome.stderr)));
    };
    let mut wrong = attacks(lines, &["libplugged.so"], sealed)?;
    let expected = if sealed.is_empty() { "0\n" } else { "1\n" };
    if stays != expected || outcome.ending != Ending::Exit(0) {
        wrong.push(format!("ended with {}, after it was closed mapped {stays}", outcome.ending));
    }
    wrong.is_empty().then_some(()).ok_or_else(|| wrong.join("\n"))
}

/// What is wrong in the lines that `space` printed, where `objects` must have been attacked.
///
/// # Errors
/// A line that is not understood.
pub fn attacks(text: &str, objects: &[&str], sealed: &[&str]) -> Result<Vec<String>, String> {
    let mut wrong = Vec::new();
    for line in text.lines() {
        let Some((object, kind, outcomes)) = parse(line) else {
            return Err(format!("not understood: {line}"));
        };
        let expected = if sealed.contains(&kind) { "EPERM" } else { "ok" };
        if outcomes.len() != 4 || outcomes.iter().any(|o| *o != expected) {
            wrong.push(format!("{object} {kind} withstands otherwise than by {expected}: {outcomes:?}"));
        }
    }
    for object in objects {
        for kind in ALL {
            if !text.lines().filter_map(parse).any(|(o, k, _)| (o, k) == (*object, kind)) {
                wrong.push(format!("{object} {kind} was not attacked"));
            }
        }
    }
    Ok(wrong)
}

fn parse(line: &str) -> Option<(&str, &str, Vec<&str>)> {
    let (what, outcomes) = line.split_once(": ")?;
    let (object, kind) = what.split_once(' ')?;
    Some((object, kind, outcomes.split(' ').collect()))
}

fn failed(stage: &Stage, way: Way) -> Result<(), String> {
    let outcome = stage.run(way, &Wish::new("space", "glibc.rtld.seal=2", &["./libunfinished.so", "fail"]))?;
    match String::from_utf8_lossy(&outcome.stdout).as_ref() {
        "refused\n0 of it, 1 of the C library\n" if outcome.ending == Ending::Exit(0) => Ok(()),
        other => Err(format!("ended with {}: {other}", outcome.ending)),
    }
}
