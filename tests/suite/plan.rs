//! `ldseal plan` compared with what a start does: the seals that `LD_DEBUG=seal` shows, object by object in the same order, addresses
//! counted from the first page of each object.

use conformance::attack::mseal;
use conformance::attack::trace::calls;
use conformance::process::{capture, write_executable};
use conformance::{requirement, suite, Level};
use libtest_mimic::{Completion, Failed, Trial};
use serde_json::Value;
use std::fmt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

/// The launcher under test.
const LDSEAL: &str = env!("CARGO_BIN_EXE_ldseal");

/// Memory that a plan can't know the size of.
const HEAP: &str = "[interpreter's heap]";

/// Programs with arguments that make them end soon. Nothing of what they do counts, only what was mapped before.
const PROGRAMS: [&[&str]; 26] = [
    &["true"],
    &["ls", "--version"],
    &["cat", "--version"],
    &["sort", "--version"],
    &["grep", "--version"],
    &["sed", "--version"],
    &["awk", "BEGIN { exit }"],
    &["find", "--version"],
    &["tar", "--version"],
    &["gzip", "--version"],
    &["xz", "--version"],
    &["bash", "--version"],
    &["perl", "-v"],
    &["python3", "--version"],
    &["/usr/bin/python3", "--version"],
    &["git", "--version"],
    &["gcc", "--version"],
    &["g++", "--version"],
    &["curl", "--version"],
    &["openssl", "version"],
    &["gdb", "--version"],
    &["node", "--version"],
    &["java", "-version"],
    &["getent", "--version"],
    &["date", "--version"],
    &["perf", "--version"],
];

fn main() -> ExitCode {
    suite::prepare();
    let mut trials = Vec::new();
    for words in PROGRAMS {
        for level in Level::ALL {
            let name = format!("plan of {} at {level}", words[0]);
            trials.push(Trial::ignorable_test(name, move || like_a_start(words, level, &[])));
        }
    }
    for (tunables, preload) in [
        ("glibc.rtld.seal=2:ldseal.vdso=0", ""),
        ("ldseal.data=1:ldseal.exclude=*/libc.so.6", ""),
        ("glibc.rtld.seal=2:ldseal.data=0:ldseal.exclude=libm.so*", "libm.so.6"),
        ("glibc.rtld.seal=7", "libm.so.6:libnothing.so"),
    ] {
        let name = format!("plan with {tunables} {preload}");
        trials.push(Trial::ignorable_test(name, move || with_tunables(tunables, preload)));
    }
    for level in Level::ALL {
        trials.push(Trial::ignorable_test(format!("plan of made programs at {level}"), move || made(level)));
        trials.push(Trial::ignorable_test(format!("calls at {level}"), move || traced_calls(level)));
    }
    trials.push(Trial::test("errors are the interpreter's", errors));
    trials.push(Trial::test("the text says what the JSON says", text_like_json));
    suite::run(trials)
}

/// A part of an object, in bytes from the object's first page.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Part {
    start: u64,
    end: u64,
    part: String,
    open: Option<String>,
}

/// An object of a plan or of a log.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Object {
    name: String,
    parts: Vec<Part>,
}

impl fmt::Display for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.name)?;
        for Part { start, end, part, open } in &self.parts {
            write!(f, "\n    {start:#x}-{end:#x} {part} {}", open.as_deref().unwrap_or("sealed"))?;
        }
        Ok(())
    }
}

fn command(words: &[&str], environment: &[(&str, &str)]) -> Command {
    let mut command = Command::new(LDSEAL);
    command.args(words).env_remove("GLIBC_TUNABLES").env_remove("LD_PRELOAD").env_remove("RUST_LOG");
    command.envs(environment.iter().copied()).env("LC_ALL", "C");
    command
}

/// What `ldseal plan` says.
fn planned(words: &[&str], environment: &[(&str, &str)]) -> Result<(Vec<Object>, Value), Failed> {
    let words = [&["plan", "--json"], words].concat();
    let outcome = capture(&mut command(&words, environment), b"", Duration::from_secs(60))?;
    let plan: Value = serde_json::from_slice(&outcome.stdout)
        .map_err(|error| format!("{error}: {}", String::from_utf8_lossy(&outcome.stderr)))?;
    let list = |value: &Value| value.as_array().cloned().ok_or("no array");
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let number = |value: &Value| value.as_u64().ok_or("no number");
    let mut objects = Vec::new();
    for object in list(&plan["objects"])? {
        let mut parts = Vec::new();
        for part in list(&object["parts"])? {
            let start = number(&part["offset"])?;
            let open = text(&part["why_not"]);
            if part["sealed"].as_bool() != Some(open.is_none()) {
                return Err(format!("sealed, or not, without a reason: {part}").into());
            }
            let name = text(&part["part"]).ok_or("no part")?;
            parts.push(Part { start, end: start + number(&part["size"])?, part: name, open });
        }
        objects.push(Object { name: text(&object["name"]).ok_or("no name")?, parts });
    }
    Ok((objects, plan))
}

/// What `LD_DEBUG=seal` shows of a start.
fn logged(words: &[&str], environment: &[(&str, &str)]) -> Result<Vec<Object>, Failed> {
    let words = [&["run"], words].concat();
    let mut command = command(&words, environment);
    let outcome = capture(command.env("LD_DEBUG", "seal"), b"", Duration::from_secs(60))?;
    let text = String::from_utf8_lossy(&outcome.stderr);
    let mut objects: Vec<(u64, Object)> = Vec::new();
    let mut process = None;
    for (pid, line) in text.lines().filter_map(|line| line.trim_start().split_once(":\t")) {
        // What the program's children log is another matter.
        if *process.get_or_insert(pid) != pid || !line.starts_with("0x") {
            continue;
        }
        let (name, start, part) = parse(line).ok_or_else(|| format!("unknown form: {line}"))?;
        match objects.last_mut() {
            Some((base, object)) if object.name == name && name != HEAP => object.parts.push(relative(part, *base)),
            _ => objects.push((start, Object { name, parts: vec![relative(part, start)] })),
        }
    }
    if objects.is_empty() {
        return Err(format!("nothing is logged: {}\n{text}", outcome.ending).into());
    }
    Ok(objects.into_iter().map(|(_, object)| object).collect())
}

/// Takes `START-END PART sealed NAME` or `START-END PART open NAME: REASON` apart: name, start, and the part with absolute addresses.
fn parse(line: &str) -> Option<(String, u64, Part)> {
    let word = |text: &'_ str| -> Option<(String, String)> {
        let (word, rest) = text.split_once(' ')?;
        Some((word.to_owned(), rest.trim_start().to_owned()))
    };
    let address = |text: &str| u64::from_str_radix(text.strip_prefix("0x")?, 16).ok();
    let (range, rest) = word(line)?;
    let (part, rest) = word(&rest)?;
    let (seal, rest) = word(&rest)?;
    let (start, end) = range.split_once('-')?;
    let (start, end) = (address(start)?, address(end)?);
    let (name, open) = match seal.as_str() {
        "sealed" => (rest, None),
        "open" => rest.rsplit_once(": ").map(|(name, why)| (name.to_owned(), Some(why.to_owned())))?,
        _ => return None,
    };
    Some((name, start, Part { start, end, part, open }))
}

fn relative(part: Part, base: u64) -> Part {
    Part { start: part.start.wrapping_sub(base), end: part.end.wrapping_sub(base), ..part }
}

/// Compares the plan with a start. What a program seals after its start, because it opened a library that stays for ever, comes behind
/// the start's and must not be in the plan: the start's ends with the interpreter's heap, where anything is sealed at all.
fn compare(plan_words: &[&str], run_words: &[&str], level: u8, environment: &[(&str, &str)]) -> Result<(), Failed> {
    let (planned, json) = planned(plan_words, environment)?;
    let logged = logged(run_words, environment)?;
    let heap = logged.iter().position(|object| object.name == HEAP);
    if heap.is_some() != (level > 0) || json["interpreter_heap_sealed"].as_bool() != Some(level > 0) {
        return Err(format!("the interpreter's heap at level {level}: logged {heap:?}, plan {json:#}").into());
    }
    let started = heap.unwrap_or(planned.len()).min(logged.len());
    let (started, later) = logged.split_at(started);
    for (planned, logged) in planned.iter().zip(started) {
        if logged != planned {
            return Err(format!("planned {planned}\nlogged  {logged}").into());
        }
    }
    if planned.is_empty() || planned.len() != started.len() {
        let names = |objects: &[Object]| objects.iter().map(|object| object.name.clone()).collect::<Vec<_>>().join(" ");
        return Err(format!("planned {}\nlogged  {}", names(&planned), names(started)).into());
    }
    match later.iter().find(|object| planned.iter().any(|planned| planned.name == object.name)) {
        Some(object) => Err(format!("planned once and logged again: {object}").into()),
        None => Ok(()),
    }
}

fn like_a_start(words: &[&str], level: Level, environment: &[(&str, &str)]) -> Result<Completion, Failed> {
    if let Some(reason) = requirement::unmet(words[0]) {
        return Ok(Completion::ignored_with(reason));
    }
    if let Some(reason) = no_seals(level) {
        return Ok(Completion::ignored_with(reason));
    }
    let number = level.0.to_string();
    let head = ["--seal", &number, "--"];
    compare(&[&head[..], &words[..1]].concat(), &[&head[..], words].concat(), level.0, environment)?;
    Ok(Completion::Completed)
}

fn with_tunables(tunables: &str, preload: &str) -> Result<Completion, Failed> {
    let level = if tunables.contains("seal=2") { 2 } else { 1 };
    if let Some(reason) = no_seals(Level(level)) {
        return Ok(Completion::ignored_with(reason));
    }
    compare(&["true"], &["true"], level, &[("GLIBC_TUNABLES", tunables), ("LD_PRELOAD", preload)])?;
    Ok(Completion::Completed)
}

/// Why nothing can be sealed at `level` here, if that is so: a start then ends, or stops asking.
fn no_seals(level: Level) -> Option<String> {
    let refused = mseal::probe().err().filter(|_| level.0 > 0)?;
    Some(format!("the kernel does not seal (error {refused})"))
}

/// Compiles a C program or library in `folder`.
fn compiled(folder: &Path, name: &str, source: &str, flags: &[&str]) -> Result<PathBuf, Failed> {
    let (from, to) = (folder.join(format!("{name}.c")), folder.join(name));
    std::fs::write(&from, source)?;
    let status = Command::new("cc").arg("-o").arg(&to).arg(&from).args(flags).current_dir(folder).status()?;
    if status.success() {
        Ok(to)
    } else {
        Err(format!("cc: {status}").into())
    }
}

/// Images that Debian's own programs don't have: at fixed addresses, with holes, without RELRO; libraries next to the program, found
/// behind a link; a script.
fn made(level: Level) -> Result<Completion, Failed> {
    if let Some(reason) = requirement::unmet("cc") {
        return Ok(Completion::ignored_with(reason));
    }
    let folder = suite::scratch(&cache(), &format!("made-{}", level.0))?;
    const HOLES: &str = "-Wl,-z,max-page-size=0x200000,-z,separate-code";
    const DATA: &str = "int data[3000] = {1}; int zero[9000]; int *pointer = data;";
    compiled(&folder, "libdense.so", &format!("{DATA} int f(void) {{ return *pointer; }}"), &["-shared", "-fPIC"])?;
    let sparse = ["-shared", "-fPIC", HOLES, "-L.", "-ldense", "-Wl,-rpath,$ORIGIN"];
    compiled(&folder, "libsparse.so", "int f(void); int g(void) { return f(); }", &sparse)?;
    let main = format!("{DATA} int g(void); int main(void) {{ return g() - 1; }}");
    let mut programs = Vec::new();
    for (name, flags) in [
        ("fixed", &["-no-pie"][..]),
        ("fixed-holes", &["-no-pie", HOLES]),
        ("holes", &["-pie", HOLES]),
        ("no-relro", &["-Wl,-z,norelro"]),
        ("one-segment", &["-Wl,-z,noseparate-code,-z,now"]),
    ] {
        let flags = [flags, &["-L.", "-lsparse", "-Wl,-rpath,$ORIGIN,-rpath-link,."]].concat();
        programs.push(compiled(&folder, name, &main, &flags)?);
    }
    let elsewhere = folder.join("elsewhere");
    std::fs::create_dir(&elsewhere)?;
    let link = elsewhere.join("link");
    std::os::unix::fs::symlink("../holes", &link)?;
    let script = folder.join("script");
    write_executable(&script, b"#!/bin/sh -e\nexit 0\n")?;
    std::fs::set_permissions(&script, PermissionsExt::from_mode(0o755))?;
    programs.extend([link, script]);
    for program in programs {
        let program = program.to_string_lossy();
        if let Completion::Ignored { reason } = like_a_start(&[&program], level, &[])? {
            return Ok(Completion::Ignored { reason });
        }
    }
    Ok(Completion::Completed)
}

/// A start makes as many calls as the plan says or, where objects lie side by side, fewer; and those for the interpreter's heap.
fn traced_calls(level: Level) -> Result<Completion, Failed> {
    if let Some(reason) = no_seals(level) {
        return Ok(Completion::ignored_with(reason));
    }
    let number = level.0.to_string();
    let words = ["--seal", &number, "ls"];
    let (_, plan) = planned(&words, &[])?;
    let heap = logged(&words, &[])?.iter().filter(|object| object.name == HEAP).count();
    let most = plan["total"]["mseal_calls"].as_u64().ok_or("no number of calls")?;
    let traced = calls(command(&[&["run"][..], &words].concat(), &[]).stdin(Stdio::null()).stdout(Stdio::null()))?;
    let made = traced.seals.len();
    let sealed: u64 = traced.seals.iter().map(|seal| seal.length).sum();
    let planned = plan["total"]["sealed_bytes"].as_u64().ok_or("no number of bytes")?;
    let plausible = if level.0 == 0 { made == 0 && most == 0 } else { made > 0 && made as u64 <= most + heap as u64 };
    if !plausible || sealed < planned || (planned > 0) != (level.0 > 0) {
        return Err(format!("{made} calls for {sealed} bytes, planned {most} and {heap} for {planned} bytes").into());
    }
    Ok(Completion::Completed)
}

/// The plan of a program that can't be loaded fails as its start does.
fn errors() -> Result<(), Failed> {
    let folder = suite::scratch(&cache(), "errors")?;
    let program = |name: &str, source: &str, flags: &[&str]| compiled(&folder, name, source, flags);
    let function = "int f(void) { return 0; }";
    program("libgone.so", function, &["-shared", "-fPIC"])?;
    let user = "int f(void); int main(void) { return f(); }";
    let linked = program("linked", user, &["-L.", "-lgone", "-Wl,-rpath,$ORIGIN"])?;
    std::fs::write(folder.join("libgone.so"), "not an ELF file".repeat(10))?;
    let linked_path = linked.to_string_lossy().into_owned();
    fails_alike(&[&linked_path], 127, "invalid ELF header")?;
    std::fs::remove_file(folder.join("libgone.so"))?;
    fails_alike(&[&linked_path], 127, "libgone.so: cannot open shared object file: No such file or directory")?;
    let versions = folder.join("versions");
    std::fs::write(&versions, "V1 { f; };")?;
    program("libversions.so", function, &["-shared", "-fPIC", "-Wl,--version-script=versions"])?;
    let linked = program("versioned", user, &["-L.", "-lversions", "-Wl,-rpath,$ORIGIN"])?;
    std::fs::write(&versions, "V2 { f; };")?;
    program("libversions.so", function, &["-shared", "-fPIC", "-Wl,--version-script=versions"])?;
    fails_alike(&[&linked.to_string_lossy()], 1, "version `V1' not found (required by")?;
    fails_alike(&["/nonexistent/program"], 127, "No such file or directory")?;
    fails_alike(&["/etc/passwd"], 126, "Permission denied")
}

fn fails_alike(words: &[&str], status: i32, message: &str) -> Result<(), Failed> {
    let output = |first: &str| command(&[&[first], words].concat(), &[]).output();
    let (plan, run) = (output("plan")?, output("run")?);
    let as_expected = plan.status.code() == Some(status) && String::from_utf8_lossy(&plan.stderr).contains(message);
    if plan != run || !as_expected {
        return Err(format!("expected {status} and {message:?}\nplan: {plan:?}\nrun: {run:?}").into());
    }
    Ok(())
}

/// The tables have a line for each object and each part of the JSON object.
fn text_like_json() -> Result<(), Failed> {
    let words = ["--seal", "1", "true"];
    let (objects, _) = planned(&words, &[])?;
    let text = command(&[&["plan"][..], &words].concat(), &[]).output()?.stdout;
    let text = String::from_utf8_lossy(&text).into_owned();
    let mut lines = text.lines();
    for object in &objects {
        let head = format!("{}: ", object.name);
        lines.find(|line| line.starts_with(&head)).ok_or_else(|| format!("no {head} in\n{text}"))?;
        for part in &object.parts {
            let line = lines.next().unwrap_or_default();
            let words: Vec<&str> = line.split_whitespace().collect();
            let seal = part.open.as_ref().map_or("sealed".to_owned(), |why| format!("open: {why}"));
            let size = ((part.end - part.start) / 1024).to_string();
            let start = format!("{:#x}", part.start);
            if words[..]
                != [&[start.as_str(), &size, "KiB", &part.part], &seal.split(' ').collect::<Vec<_>>()[..]].concat()
            {
                return Err(format!("{line:?} is not {part:?} of {object}").into());
            }
        }
    }
    Ok(())
}

fn cache() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("plan")
}
