//! `LD_PROFILE`: the files that both loaders write have the same headers and the same calls in them, and samples where the time was spent.

use crate::Trees;
use conformance::process::{capture, Ending};
use libtest_mimic::{Completion, Failed};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// What a file says.
#[derive(PartialEq, Eq, Debug)]
struct Profile {
    size: usize,
    header: Vec<u8>,
    /// By caller and function: how many calls.
    calls: BTreeMap<(u64, u64), u32>,
    samples: bool,
}

/// Profiles a library of `program` in both trees, several processes into one file, and compares.
pub fn check(trees: &Trees, program: &str, spends_time: bool) -> Result<Completion, Failed> {
    let (expected, got) = (profile(&trees.system, program)?, profile(&trees.ours, program)?);
    if expected.calls.is_empty() || expected.samples != spends_time {
        return Err(format!("the system's loader counts nothing: {expected:?}").into());
    }
    if expected == got {
        Ok(Completion::Completed)
    } else {
        Err(format!("expected {expected:x?}\ngot {got:x?}").into())
    }
}

fn profile(tree: &Path, program: &str) -> Result<Profile, Failed> {
    let output = format!("profile-{program}");
    fs::create_dir_all(tree.join(&output))?;
    for _ in 0..2 {
        let mut command = Command::new("sh");
        command.args(["-c", &format!("exec ./ld.so ./{program}")]).current_dir(tree).env_clear();
        command.env("LD_PROFILE", "libprofiled.so").env("LD_PROFILE_OUTPUT", &output);
        let outcome = capture(&mut command, b"", Duration::from_secs(60))?;
        if outcome.ending != Ending::Exit(0) || !outcome.stderr.is_empty() {
            return Err(format!("{}: {}", outcome.ending, String::from_utf8_lossy(&outcome.stderr)).into());
        }
    }
    read(&fs::read(tree.join(output).join("libprofiled.so.profile"))?).ok_or_else(|| "not a profile".into())
}

fn read(bytes: &[u8]) -> Option<Profile> {
    const HEADER: usize = 64;
    let word = |at: usize| Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
    let long = |at: usize| Some(u64::from_ne_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
    let bins = word(40)? as usize;
    let histogram = bytes.get(HEADER..HEADER + 2 * bins)?;
    let arcs = HEADER + 2 * bins;
    let mut calls = BTreeMap::new();
    for index in 0..word(arcs + 4)? as usize {
        let at = arcs + 8 + 20 * index;
        *calls.entry((long(at)?, long(at + 8)?)).or_default() += word(at + 16)?;
    }
    Some(Profile {
        size: bytes.len(),
        header: [&bytes[..HEADER], &bytes[arcs..arcs + 4]].concat(),
        calls,
        samples: histogram.iter().any(|byte| *byte != 0),
    })
}
