//! The command lines of `lines.txt` under a copy of the system's loader and under `ld-seal.so`, in two equal trees where each is `./ld.so`:
//! what they print and how they end must be the same, but for addresses.

mod profile;

use conformance::compare::{difference, Normaliser};
use conformance::loader::SYSTEM;
use conformance::process::{capture, Ending, Outcome};
use conformance::{suite, Loader};
use libtest_mimic::{Completion, Failed, Trial};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::time::Duration;

const LINES: &str = include_str!("lines.txt");
const BUILD: &str = include_str!("build.sh");

/// The two trees.
struct Trees {
    system: PathBuf,
    ours: PathBuf,
}

fn main() -> ExitCode {
    suite::prepare();
    match trials() {
        Ok(trials) => suite::run(trials),
        Err(reason) => {
            eprintln!("options: {reason}");
            ExitCode::FAILURE
        }
    }
}

fn trials() -> Result<Vec<Trial>, String> {
    let loader = Loader::under_test(option_env!("LDSEAL_INTERPRETER"), env!("CARGO_BIN_EXE_ldseal"))?;
    let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).join("options");
    let trees = Arc::new(Trees {
        system: tree(&cache, "system", SYSTEM.as_ref())?,
        ours: tree(&cache, "ours", &loader.interpreter)?,
    });
    let mut trials = Vec::new();
    for case in profile::cases() {
        let trees = Arc::clone(&trees);
        trials.push(Trial::ignorable_test(case.to_string(), move || profile::check(&trees, case)));
    }
    let mut section = "";
    for line in LINES.lines().filter(|line| !line.is_empty() && !line.starts_with("# ")) {
        match line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            Some(name) => section = name,
            None => {
                let (line, without) = line.split_once(" ## ").map_or((line, None), |(a, b)| (a, Some(b)));
                let trees = Arc::clone(&trees);
                let check = move || check(&trees, section, line, without);
                trials.push(Trial::ignorable_test(format!("{section}: {line}"), check));
            }
        }
    }
    Ok(trials)
}

/// A tree with `loader` in it, and everything that the lines name.
fn tree(cache: &Path, name: &str, loader: &Path) -> Result<PathBuf, String> {
    let folder = suite::scratch(cache, name)?;
    let complain = |e: std::io::Error| format!("{}: {e}", loader.display());
    // The mode of a file is copied with it.
    fs::copy(loader, folder.join("ld.so")).map_err(complain)?;
    let mut command = Command::new("bash");
    command.args(["-c", BUILD]).current_dir(&folder);
    let built = capture(&mut command, b"", Duration::from_secs(120)).map_err(complain)?;
    match built.ending {
        Ending::Exit(0) => Ok(folder),
        _ => Err(format!("build.sh: {}", String::from_utf8_lossy(&built.stderr))),
    }
}

fn check(trees: &Trees, section: &'static str, line: &str, without: Option<&str>) -> Result<Completion, Failed> {
    if matches!(section, "without proc" | "without execution" | "another cache") {
        let namespaces = Command::new("unshare").args(["-rm", "true"]).status();
        if !namespaces.is_ok_and(|status| status.success()) {
            return Ok(Completion::ignored_with("no user and mount namespaces here"));
        }
    }
    let (expected, got) = (run(&trees.system, section, line)?, run(&trees.ours, section, line)?);
    if expected.ending == Ending::Exit(126) {
        return Err("the system's loader can't be started in its tree".into());
    }
    if let Some(difference) = difference(&expected, &got) {
        return Err(difference.into());
    }
    match without {
        Some(without) if run(&trees.ours, section, without)? == got => Err("it makes no difference".into()),
        _ => Ok(Completion::Completed),
    }
}

/// What a line comes to in a tree, made comparable.
fn run(tree: &Path, section: &str, line: &str) -> Result<Outcome, Failed> {
    let mut command = Command::new("taskset");
    // On one processor: CPUID tells which one it is.
    command.args(["-c", "0", "bash", "-c", line]).current_dir(tree).env_clear();
    command.env("PATH", std::env::var_os("PATH").unwrap_or_default()).env("LC_ALL", "C").env("L", "./ld.so");
    let outcome = capture(&mut command, b"", Duration::from_secs(60))?;
    let normaliser = Normaliser {
        replacements: vec![(tree.to_string_lossy().into_owned(), "{tree}")],
        addresses: true,
        ..Normaliser::default()
    };
    let Outcome { ending, stdout, stderr } = normaliser.apply(&outcome);
    let stderr = match section {
        "messages" | "relocation" | "bindings" => messages(section, &String::from_utf8_lossy(&stderr)),
        "statistics" => statistics(tree, &messages("messages", &String::from_utf8_lossy(&stderr)))?,
        _ => stderr,
    };
    let stdout = without_header_count(&String::from_utf8_lossy(&stdout));
    let stdout: String = match section {
        // The options themselves are told in other words.
        "search path" => stdout.find("\nShared library search path:").map_or("", |at| &stdout[at..]).to_owned(),
        // Those of sealing, which have a test of their own, come last.
        "tunables" => stdout.lines().filter(|l| !is_of_sealing(l)).flat_map(|l| [l, "\n"]).collect(),
        "messages" => String::from_utf8_lossy(&messages(section, &stdout)).into_owned(),
        "statistics" => String::from_utf8_lossy(&statistics(tree, &messages("messages", &stdout))?).into_owned(),
        _ => stdout,
    };
    Ok(Outcome { ending, stdout: stdout.into(), stderr })
}

/// Debug messages without the process id. Left out is what the two loaders do differently: glibc's relocates itself once more when all else
/// is, and binds its own references then, also to the program's malloc; and its dlopen calls `_dl_` functions.
fn messages(section: &str, text: &str) -> Vec<u8> {
    let without_id = |line: &str| match line.trim_start().split_once(":\t") {
        Some((id, message)) if id.bytes().all(|b| b.is_ascii_digit()) => format!("ID:\t{message}"),
        _ => line.to_owned(),
    };
    let own = ["`_dl_", "`malloc'", "`calloc'", "`realloc'", "`free'", "relocation processing: ./ld.so"];
    let is_own = |line: &str| own.iter().any(|text| line.contains(text)) || line.contains("binding file ./ld.so ");
    let is_left_out = |line: &str| section != "messages" && (line == "ID:\t" || is_own(line));
    let mut lines: Vec<String> = text.lines().map(without_id).filter(|line| !is_left_out(line)).collect();
    if section == "bindings" {
        lines.sort_unstable();
    }
    lines.iter().flat_map(|line| [line.as_bytes(), b"\n"].concat()).collect()
}

/// The auxiliary vector without the number of program headers, which is the loader's own when it is invoked directly.
fn without_header_count(text: &str) -> String {
    let mut is_next = false;
    let mut out = String::new();
    for line in text.split_inclusive('\n') {
        let value = if is_next { line.split_once('=') } else { line.split_once("AT_PHNUM:") };
        match value {
            Some((name, _)) => out.extend([name, ": N\n"]),
            None => out.push_str(line),
        }
        is_next = line.ends_with(".a_type=0x5\n");
    }
    out
}

/// Statistics without numbers that differ: times, and lookups, since glibc's loader relocates itself once more. Relative relocations are
/// counted alike, but for the loader's own, which are taken off.
fn statistics(tree: &Path, text: &[u8]) -> Result<Vec<u8>, Failed> {
    let mut lines = String::new();
    for line in String::from_utf8_lossy(text).lines() {
        let line = match line.split_once("number of relative relocations: ") {
            Some((before, number)) => {
                let number: u64 = number.parse().map_err(|_| format!("no number: {line}"))?;
                let others =
                    number.checked_sub(own_relative_relocations(tree)?).ok_or("fewer than the loader's own")?;
                format!("{before}{others} of others")
            }
            None if line.contains("number of relocations") || line.contains(" cycles") => without_numbers(line),
            None => line.to_owned(),
        };
        lines += &line;
        lines.push('\n');
    }
    Ok(lines.into_bytes())
}

/// A line with N for each number, which may have a decimal point in it.
fn without_numbers(line: &str) -> String {
    let mut words = line.split(' ').map(|word| {
        let part = |c: char| c.is_ascii_digit() || c == '.';
        let number = word.trim_start_matches('(').trim_end_matches("%)");
        let is_number =
            !number.is_empty() && number.chars().all(part) && number.ends_with(|c: char| c.is_ascii_digit());
        if is_number {
            word.replace(number, "N")
        } else {
            word.to_owned()
        }
    });
    let first = words.next().unwrap_or_default();
    words.fold(first, |line, word| line + " " + &word)
}

/// By how many relative relocations the loader of a tree relocates itself.
fn own_relative_relocations(tree: &Path) -> Result<u64, Failed> {
    let bytes = fs::read(tree.join("ld.so"))?;
    let elf = goblin::elf::Elf::parse(&bytes)?;
    Ok(elf.dynamic.map_or(0, |dynamic| dynamic.info.relacount as u64))
}

fn is_of_sealing(line: &str) -> bool {
    line.starts_with("glibc.rtld.seal: ") || line.starts_with("ldseal.")
}
