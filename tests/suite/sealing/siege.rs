//! Every call that takes memory away or changes it, on every sealed mapping of a process: whole, on a page in the middle, from there across
//! the border to what is not sealed, and from a thread. What must come of it is the table `fixtures/sealing/siege/refused.txt`.

use crate::stage::Stage;
use crate::Check;
use conformance::process::{self, Ending};
use conformance::Way;
use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;
use std::time::Duration;

const TABLE: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/sealing/siege/refused.txt"));

/// The checks.
pub const CHECKS: &[(&str, Check)] = &[
    ("siege at level 1", |s, w| {
        besieged(
            s,
            w,
            "glibc.rtld.seal=1",
            &["file-r-x", "file-r--", "anon-r--", "anon----", "kernel-r-x", "kernel-r--"],
            true,
        )
    }),
    ("siege at level 2", |s, w| {
        let kinds =
            ["file-r-x", "file-r--", "file-rw-", "anon-r--", "anon-rw-", "anon----", "kernel-r-x", "kernel-r--"];
        besieged(s, w, "glibc.rtld.seal=2", &kinds, false)
    }),
    ("siege at level 2 with ldseal.anonymous=all", |s, w| {
        let kinds = ["anon-r-x", "anon-r--", "anon-rw-", "anon----"];
        besieged(s, w, "glibc.rtld.seal=2:ldseal.anonymous=all", &kinds, false)
    }),
    ("what the table leaves open is in the report", |_, _| named()),
];

/// By call and kind of memory: the outcomes that may be, none for any.
type Expected<'a> = BTreeMap<(&'a str, &'a str), Vec<&'a str>>;

fn expected() -> Result<Expected<'static>, String> {
    let mut lines = TABLE.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    let kinds: Vec<&str> = lines.next().ok_or("an empty table")?.split_whitespace().skip(1).collect();
    let mut table = BTreeMap::new();
    for line in lines {
        let mut cells = line.split_whitespace();
        let call = cells.next().ok_or("an empty line")?;
        let cells: Vec<&str> = cells.collect();
        if cells.len() != kinds.len() {
            return Err(format!("a line of another length: {line}"));
        }
        for (kind, cell) in kinds.iter().zip(cells) {
            let outcomes = if cell == "open" { Vec::new() } else { cell.split('|').collect() };
            table.insert((call, *kind), outcomes);
        }
    }
    Ok(table)
}

/// Starts the program and compares. Memory of each of `kinds` must have been sealed, and there must have been borders if so expected.
fn besieged(stage: &Stage, way: Way, tunables: &str, kinds: &[&str], borders: bool) -> Result<(), String> {
    let (tree, words) = stage.way(way);
    let program = tree.join("siege");
    let mut words = words.into_iter().chain([program.into_os_string()]);
    let mut command = Command::new(words.next().unwrap_or_default());
    command.args(words).current_dir(tree).env_clear().env("GLIBC_TUNABLES", tunables);
    let outcome = process::capture(&mut command, b"", Duration::from_secs(120)).map_err(|e| e.to_string())?;
    let stdout = String::from_utf8_lossy(&outcome.stdout);
    if outcome.ending != Ending::Exit(0) {
        return Err(format!("ended with {}: {}", outcome.ending, String::from_utf8_lossy(&outcome.stderr)));
    }
    let table = expected()?;
    let (mut seen, mut wrong, mut places) = (BTreeSet::new(), Vec::new(), BTreeSet::new());
    for line in stdout.lines() {
        let fields: Vec<&str> = line.split('\t').collect();
        let ["attack", _, _, permissions, backing, "1", place, call, outcome] = fields[..] else {
            return Err(format!("an unknown line: {line}"));
        };
        let kind = format!("{backing}-{}", permissions.get(..3).unwrap_or_default());
        let Some((&(known_call, _), outcomes)) = table.iter().find(|((c, k), _)| *c == call && *k == kind) else {
            return Err(format!("not in the table: {line}"));
        };
        seen.insert(kind);
        places.insert(place.to_owned());
        let is_fine = outcomes.is_empty() || outcomes.contains(&outcome) || across(place, known_call, outcome);
        if !is_fine {
            wrong.push(format!("expected {outcomes:?}: {line}"));
        }
    }
    let missing: Vec<&&str> = kinds.iter().filter(|kind| !seen.contains(**kind)).collect();
    if !missing.is_empty() || places.contains("border") != borders {
        wrong.push(format!("never attacked: {missing:?}; places {places:?}"));
    }
    match wrong.is_empty() {
        true => Ok(()),
        false => Err(wrong.join("\n")),
    }
}

/// What a range of two mappings is refused for, besides a seal: mremap takes one mapping only. The advice calls go through the mappings one by
/// one, and may stop at either. Whether the sealed part holds, the attacks on it alone tell.
fn across(place: &str, call: &str, outcome: &str) -> bool {
    place == "border"
        && match call {
            _ if call.starts_with("mremap") => outcome == "EFAULT",
            _ if call.contains("MADV_") => outcome != "ok",
            _ => false,
        }
}

/// Calls that change what is seen of sealed memory and that the table leaves open are named by `ldseal report`.
fn named() -> Result<(), String> {
    let output = Command::new(env!("CARGO_BIN_EXE_ldseal"))
        .args(["report", &std::process::id().to_string()])
        .output()
        .map_err(|e| e.to_string())?;
    let text = String::from_utf8_lossy(&output.stdout);
    let open = expected()?.into_iter().filter(|(_, outcomes)| outcomes.is_empty()).map(|((call, _), _)| call);
    // On writable memory these do what a store could do, which is named as such.
    let like_stores = ["MADV_FREE", "MADV_WIPEONFORK"];
    let advice = |call: &str| match call {
        _ if call.ends_with("MADV_DONTNEED_LOCKED") => "MADV_DONTNEED".to_owned(),
        call => call.trim_start_matches("process_").trim_start_matches("ring_").to_owned(),
    };
    let unnamed: BTreeSet<String> = open
        .map(advice)
        .filter(|call| !like_stores.contains(&call.as_str()))
        .filter(|name| !text.contains(name.as_str()))
        .collect();
    match unnamed.is_empty()
        && ["stores to memory that is writable", "MADV_DONTFORK on the whole vDSO"]
            .iter()
            .all(|words| text.contains(words))
    {
        true => Ok(()),
        false => Err(format!("the report does not name {unnamed:?}: {text}")),
    }
}
