//! `LD_PROFILE`: the files that both loaders write have the same headers and the same calls in them, and samples where the time was spent.

use crate::Trees;
use conformance::process::{capture, Ending};
use libtest_mimic::{Completion, Failed};
use std::collections::BTreeMap;
use std::fmt;
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

/// A program that uses the library, and under what.
#[derive(Clone, Copy)]
pub struct Case {
    program: &'static str,
    /// Whether it spends time in the library.
    spends_time: bool,
    /// `NAME=value`, beside what asks for the profile.
    variables: &'static [&'static str],
}

/// What is profiled: at each level, with functions bound at start-up, and under audit modules that watch bindings or calls.
pub fn cases() -> impl Iterator<Item = Case> {
    const VARIABLES: [&[&str]; 8] = [
        &[],
        &["GLIBC_TUNABLES=glibc.rtld.seal=0"],
        &["GLIBC_TUNABLES=glibc.rtld.seal=2"],
        &["LD_BIND_NOW=1"],
        &["LD_BIND_NOW=1", "GLIBC_TUNABLES=glibc.rtld.seal=2"],
        &["LD_AUDIT=./libbindings.so"],
        &["LD_AUDIT=./libcalls.so"],
        &["LD_AUDIT=./libcalls.so", "GLIBC_TUNABLES=glibc.rtld.seal=2"],
    ];
    let case = |program, spends_time| move |&variables: &&'static _| Case { program, spends_time, variables };
    let of_opened = VARIABLES.iter().map(case("profiles", false));
    VARIABLES.iter().map(case("profiled", true)).chain(of_opened)
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LD_PROFILE: {}", self.variables.iter().chain([&self.program]).copied().collect::<Vec<_>>().join(" "))
    }
}

/// Profiles the library in both trees, several processes into one file, and compares.
pub fn check(trees: &Trees, case: Case) -> Result<Completion, Failed> {
    let (expected, got) = (profile(&trees.system, case)?, profile(&trees.ours, case)?);
    if expected.calls.is_empty() || expected.samples != case.spends_time {
        return Err(format!("the system's loader counts nothing: {expected:?}").into());
    }
    if expected == got {
        Ok(Completion::Completed)
    } else {
        Err(format!("expected {expected:x?}\ngot {got:x?}").into())
    }
}

fn profile(tree: &Path, case: Case) -> Result<Profile, Failed> {
    let output = case.to_string().replace(['/', ' ', ':'], "-");
    fs::create_dir_all(tree.join(&output))?;
    for _ in 0..2 {
        let mut command = Command::new("sh");
        command.args(["-c", &format!("exec ./ld.so ./{}", case.program)]).current_dir(tree).env_clear();
        command.env("LD_PROFILE", "libprofiled.so").env("LD_PROFILE_OUTPUT", &output);
        command.envs(case.variables.iter().filter_map(|variable| variable.split_once('=')));
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
