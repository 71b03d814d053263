//! Seals at run time: a library is sealed when it comes to stay, before its constructors where that is settled by then, and before the call
//! returns otherwise; what can be closed never is. What stays is what stays with the system's loader.

use crate::stage::Stage;
use crate::Check;
use conformance::process::{self, Ending};
use conformance::{build, loader, Way};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// The checks.
pub const CHECKS: &[(&str, Check)] = &[
    ("a library that comes to stay", |s, w| each(s, w, "")),
    ("a library that comes to stay, ldseal.late=0", |s, w| each(s, w, ":ldseal.late=0")),
    ("a filter that kills", filtered),
];

/// How a library is opened, whether it is sealed then, and whether its constructor finds it sealed already.
const WAYS: [(&str, bool, bool); 9] = [
    ("plain", false, false),
    ("plain dependency", false, false),
    ("flag", true, true),
    ("header", true, true),
    ("promotion", true, false),
    ("dependency", true, false),
    ("call", true, false),
    ("look-up", true, false),
    ("unique", true, true),
];

/// Builds the program and its libraries.
///
/// # Errors
/// What the compiler said.
pub fn build(tree: &Path, sources: &Path) -> Result<(), String> {
    let library = |out: &str, source: &str, flags: &[&str]| {
        let soname = format!("-Wl,-soname,{out}");
        let fixed = [soname.as_str(), "-Wl,-z,relro", "-Wl,-rpath,$ORIGIN"];
        build::compile(tree, out, &sources.join(source), &[&fixed, flags].concat())
    };
    library("liblate.so", "late-library.c", &[])?;
    library("liblate-nodelete.so", "late-library.c", &["-Wl,-z,nodelete"])?;
    library("libunique.so", "late-library.c", &["-DUNIQUE"])?;
    library("libcaller.so", "late-caller.c", &["-Wl,-z,lazy"])?;
    library("libneeding.so", "late-caller.c", &["-DNEEDING", "./liblate.so"])?;
    library("libneeding-nodelete.so", "late-caller.c", &["-DNEEDING", "./liblate.so", "-Wl,-z,nodelete"])?;
    let flags =
        ["-rdynamic", "./libcaller.so", "-Wl,-rpath,$ORIGIN", "-Wl,--unresolved-symbols=ignore-all", "-Wl,-z,lazy"];
    build::compile(tree, "late", &sources.join("late.c"), &flags)
}

/// `late` under the loader under test, started in a way, or under the system's.
fn run(stage: &Stage, way: Option<Way>, args: &[&str], tunables: &str) -> Result<(Ending, String), String> {
    let (folder, mut words) = match way {
        Some(way) => stage.way(way),
        None => (stage.tree(), vec![loader::SYSTEM.into()]),
    };
    words.push("./late".into());
    let mut command = Command::new(words.remove(0));
    command.args(words).args(args).current_dir(folder).env_clear().env("GLIBC_TUNABLES", tunables);
    let outcome = process::capture(&mut command, b"", Duration::from_secs(30)).map_err(|e| e.to_string())?;
    let stderr = String::from_utf8_lossy(&outcome.stderr);
    Ok((outcome.ending, format!("{}{stderr}", String::from_utf8_lossy(&outcome.stdout))))
}

fn each(stage: &Stage, way: Way, more: &str) -> Result<(), String> {
    let mut report = Vec::new();
    for level in 0..=2 {
        for (name, sealed, early) in WAYS {
            let sealed = sealed && level > 0 && more.is_empty();
            let early = early && sealed;
            let reference = run(stage, None, &[name], "")?;
            let got = run(stage, Some(way), &[name], &format!("glibc.rtld.seal={level}{more}"))?;
            let stays = reference.1.contains("stays 1");
            let mut expected: Vec<String> = reference.1.lines().map(str::to_string).collect();
            let data = sealed && level == 2;
            for line in &mut expected {
                let (word, value) = line.rsplit_once(' ').map_or((line.as_str(), ""), |(w, v)| (w, v));
                let flag = match word {
                    "constructed" => early,
                    "late_text" | "late_relro" | "still" => sealed,
                    "late_data" => data,
                    _ => continue,
                };
                if value != "-1" {
                    *line = format!("{word} {}", i32::from(flag));
                }
            }
            let expected = (reference.0, expected.join("\n") + "\n");
            if stays != WAYS.iter().any(|w| w.0 == name && w.1) {
                report.push(format!("{name}: with the system's loader it stays: {stays}"));
            }
            // The library that a unique symbol lets stay is the second; the first is a plain one.
            if name != "unique" && got != expected || name == "unique" && !unique_is_right(&got, early, data) {
                report.push(format!("{name} level {level}{more}: {got:?}\n  expected {expected:?}"));
            }
        }
    }
    match report.is_empty() {
        true => Ok(()),
        false => Err(report.join("\n")),
    }
}

/// Of two libraries the first can be closed, and the second has a unique symbol.
fn unique_is_right(got: &(Ending, String), sealed: bool, data: bool) -> bool {
    let (s, d) = (i32::from(sealed), i32::from(data));
    let lines = format!(
        "constructed 0\nconstructed {s}\nlate_text {s}\nlate_relro {s}\nlate_data {d}\nclosed 0\nclosed 0\nstays 1\nstill {s}\n"
    );
    *got == (Ending::Exit(0), lines)
}

/// A program that lets nobody call mseal is killed when a library comes to stay, and lives with `ldseal.late=0`.
fn filtered(stage: &Stage, way: Way) -> Result<(), String> {
    for level in 1..=2 {
        let tunables = format!("glibc.rtld.seal={level}");
        let killed = run(stage, Some(way), &["flag", "filter"], &tunables)?;
        let lives = run(stage, Some(way), &["flag", "filter"], &format!("{tunables}:ldseal.late=0"))?;
        if killed.0 != Ending::Signal(31) {
            return Err(format!("level {level} with ldseal.late=1: {killed:?}"));
        }
        if lives.0 != Ending::Exit(0) || !lives.1.contains("stays 1") {
            return Err(format!("level {level} with ldseal.late=0: {lives:?}"));
        }
    }
    Ok(())
}
