//! How often and when mseal is called.

use crate::stage::{Stage, Wish};
use crate::Check;
use conformance::attack::faults;
use conformance::attack::trace::{calls, Calls, Stop, Tracee, MSEAL};
use conformance::process::Ending;
use conformance::Way;
use std::process::Stdio;

/// The checks.
pub const CHECKS: &[(&str, Check)] = &[
    ("level 0 makes not one call", |stage, way| {
        let calls = traced(stage, way, "glibc.rtld.seal=0")?;
        match calls.seals.len() {
            0 => Ok(()),
            n => Err(format!("{n} calls of mseal")),
        }
    }),
    ("level 1 makes one call per object or fewer", |stage, way| few(stage, way, "glibc.rtld.seal=1", 2)),
    ("level 2 makes one call per object or fewer", |stage, way| few(stage, way, "glibc.rtld.seal=2", 1)),
    ("nothing but seals between the first and the last", uninterrupted),
    ("level 1 adds no page fault to level 0", no_faults),
    ("neighbours share a call", neighbours),
];

/// Traces a start to its end.
///
/// # Errors
/// It can't be traced, or does not end well.
pub fn traced(stage: &Stage, way: Way, tunables: &str) -> Result<Calls, String> {
    traced_doing(stage, way, tunables, &[])
}

/// The same, with arguments; with `nothing` the program has no threads, whose number of calls depends on chance.
///
/// # Errors
/// As above.
pub fn traced_doing(stage: &Stage, way: Way, tunables: &str, arguments: &[&str]) -> Result<Calls, String> {
    let mut command = stage.command(way, &Wish::new("attack", tunables, arguments));
    let calls = calls(command.stdin(Stdio::null()).stdout(Stdio::null())).map_err(|e| e.to_string())?;
    match calls.ending {
        Ending::Exit(0) => Ok(calls),
        ending => Err(format!("ended with {ending}")),
    }
}

/// All calls succeed, and there are no more than `per_object` for each of the program, three libraries, vDSO, interpreter and its heap.
/// (Open data in the middle of an image splits it in two.)
fn few(stage: &Stage, way: Way, tunables: &str, per_object: usize) -> Result<(), String> {
    let calls = traced(stage, way, tunables)?;
    let objects = 7;
    if let Some(failed) = calls.seals.iter().find(|seal| seal.result != 0) {
        return Err(format!("{failed:x?} failed"));
    }
    match (1..=objects * per_object).contains(&calls.seals.len()) {
        true => Ok(()),
        false => Err(format!("{} calls for {objects} objects: {:x?}", calls.seals.len(), calls.seals)),
    }
}

/// Level 1 touches no page that level 0 does not. The number of faults differs by one or two from start to start, by where the kernel puts
/// things, and by more where the machine is busy: the mean of the middle half of many starts is the same within half a fault.
fn no_faults(stage: &Stage, way: Way) -> Result<(), String> {
    const STARTS: usize = 40;
    let count = |tunables: &str| {
        let mut command = stage.command(way, &Wish::new("attack", tunables, &["nothing"]));
        faults::minor(&mut command).map_err(|e| e.to_string())
    };
    let mut told = Vec::new();
    for _ in 0..3 {
        let (mut without, mut with) = (Vec::new(), Vec::new());
        for _ in 0..STARTS {
            without.push(count("glibc.rtld.seal=0")?);
            with.push(count("glibc.rtld.seal=1")?);
        }
        let usual = |counts: &mut Vec<u64>| {
            counts.sort_unstable();
            counts[STARTS / 4..3 * STARTS / 4].iter().sum::<u64>() as f64 / (STARTS / 2) as f64
        };
        let (without, with) = (usual(&mut without), usual(&mut with));
        if with < without + 0.5 {
            return Ok(());
        }
        told.push((without, with));
    }
    Err(format!("faults at level 0 and at level 1: {told:?}"))
}

/// Images between which nothing lies are sealed by one call: no seal begins where another ends.
fn neighbours(stage: &Stage, way: Way) -> Result<(), String> {
    let calls = traced(stage, way, "glibc.rtld.seal=2")?;
    let mut ranges: Vec<(u64, u64)> = calls.seals.iter().map(|seal| (seal.start, seal.start + seal.length)).collect();
    ranges.sort_unstable();
    match ranges.windows(2).find(|pair| pair[0].1 >= pair[1].0) {
        None => Ok(()),
        Some(pair) => Err(format!("two calls for neighbours: {pair:x?}")),
    }
}

/// A commit seals when nothing can fail any more: from its first seal to its last the kernel is asked for nothing else.
fn uninterrupted(stage: &Stage, way: Way) -> Result<(), String> {
    let mut command = stage.command(way, &Wish::new("attack", "glibc.rtld.seal=2", &[]));
    let failed = |e: std::io::Error| e.to_string();
    let mut tracee = Tracee::start(command.stdin(Stdio::null()).stdout(Stdio::null())).map_err(failed)?;
    let mut numbers = Vec::new();
    loop {
        match tracee.resume().map_err(failed)? {
            Stop::Enter { number, .. } => numbers.push(number),
            Stop::Leave(_) => {}
            Stop::Ended(_) => break,
        }
    }
    let seals = || numbers.iter().enumerate().filter(|(_, &n)| n == MSEAL).map(|(index, _)| index);
    let (Some(first), Some(last)) = (seals().min(), seals().max()) else { return Err("nothing was sealed".into()) };
    let others: Vec<u64> = numbers[first..=last].iter().copied().filter(|&n| n != MSEAL).collect();
    match others.is_empty() {
        true => Ok(()),
        false => Err(format!("system calls {others:?} are made between seals")),
    }
}
