//! What audit modules bring in: a module that is accepted is sealed with all that it needs, its C library too; one that refuses is gone.

use crate::namespaces::{attacks, ALL, READ_ONLY};
use crate::stage::{Stage, Wish};
use crate::Check;
use conformance::process::{self, Ending};
use conformance::Way;
use std::path::Path;
use std::time::Duration;

/// The checks.
pub const CHECKS: &[(&str, Check)] = &[
    ("an audit module at level 0", |s, w| accepted(s, w, "glibc.rtld.seal=0", &[])),
    ("an audit module at level 1", |s, w| accepted(s, w, "glibc.rtld.seal=1", &READ_ONLY)),
    ("an audit module at level 2", |s, w| accepted(s, w, "glibc.rtld.seal=2", &ALL)),
    ("an audit module before the next is asked at level 0", |s, w| before_the_next(s, w, "glibc.rtld.seal=0", &[])),
    ("an audit module before the next is asked at level 1", |s, w| {
        before_the_next(s, w, "glibc.rtld.seal=1", &READ_ONLY)
    }),
    ("an audit module before the next is asked at level 2", |s, w| before_the_next(s, w, "glibc.rtld.seal=2", &ALL)),
    ("a module that refuses is gone", refused),
];

/// What must have been attacked.
const OBJECTS: [&str; 3] = ["auditor.so", "libplugged.so", "libc.so.6"];

/// Builds the modules, which want libplugged.so.
///
/// # Errors
/// What the compiler said.
pub fn build(tree: &Path, sources: &Path) -> Result<(), String> {
    for (out, answer) in [("auditor.so", "-DANSWER=LAV_CURRENT"), ("refuser.so", "-DANSWER=0")] {
        let flags = ["-shared", "-fPIC", "-Wl,-z,now", answer, "./libplugged.so", "-Wl,-rpath,$ORIGIN"];
        let flags = [&flags[..], &["-Wl,--no-as-needed", "-lc"]].concat();
        crate::stage::compile(tree, out, &sources.join("auditor.c"), &flags)?;
    }
    let flags = ["-shared", "-fPIC", "-Wl,-z,now"];
    crate::stage::compile(tree, "besieger.so", &sources.join("besieger.c"), &flags)
}

/// `space` with LD_AUDIT: how it ended, its first line, and the rest of its lines.
fn run(stage: &Stage, way: Way, module: &str, tunables: &str) -> Result<(Ending, String, String), String> {
    let (ending, stdout) = output(stage, way, module, &Wish::new("space", tunables, &[module, "audited"]))?;
    let (first, rest) = stdout.split_once('\n').unwrap_or((&stdout, ""));
    Ok((ending, first.to_string(), rest.to_string()))
}

fn output(stage: &Stage, way: Way, modules: &str, wish: &Wish) -> Result<(Ending, String), String> {
    let mut command = stage.command(way, wish);
    command.env("LD_AUDIT", modules);
    let outcome = process::capture(&mut command, b"", Duration::from_secs(60)).map_err(|e| e.to_string())?;
    let stderr = String::from_utf8_lossy(&outcome.stderr);
    if !stderr.is_empty() {
        return Err(format!("stderr: {stderr}"));
    }
    Ok((outcome.ending, String::from_utf8_lossy(&outcome.stdout).into_owned()))
}

/// A second module attacks what the first has brought in, when nothing of the program is there yet.
fn before_the_next(stage: &Stage, way: Way, tunables: &str, sealed: &[&str]) -> Result<(), String> {
    let wish = Wish::new("space", tunables, &["nothing", "none"]);
    let (ending, text) = output(stage, way, "./auditor.so:./besieger.so", &wish)?;
    let mut wrong = attacks(&text, &OBJECTS, sealed)?;
    if ending != Ending::Exit(0) {
        wrong.push(format!("ended with {ending}"));
    }
    wrong.is_empty().then_some(()).ok_or_else(|| wrong.join("\n"))
}

fn accepted(stage: &Stage, way: Way, tunables: &str, sealed: &[&str]) -> Result<(), String> {
    let (ending, first, rest) = run(stage, way, "./auditor.so", tunables)?;
    let mut wrong = attacks(&rest, &OBJECTS, sealed)?;
    if first != "1 of it, 1 of its library, 2 of the C library" {
        wrong.push(first);
    }
    if ending != Ending::Exit(0) {
        wrong.push(format!("ended with {ending}"));
    }
    wrong.is_empty().then_some(()).ok_or_else(|| wrong.join("\n"))
}

fn refused(stage: &Stage, way: Way) -> Result<(), String> {
    for level in 0..=2 {
        let got = run(stage, way, "./refuser.so", &format!("glibc.rtld.seal={level}"))?;
        if got != (Ending::Exit(0), "0 of it, 0 of its library, 1 of the C library".to_string(), String::new()) {
            return Err(format!("level {level}: {got:?}"));
        }
    }
    Ok(())
}
