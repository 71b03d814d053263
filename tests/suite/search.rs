//! Which files are tried for a library, and in which order: the cases of `fixtures/search/` under strace(1), with both loaders.
//!
//! What ld-seal.so leaves out on purpose does not count: a file in a directory that does not exist (it asks for the directory first), and
//! one that was not there a moment ago (glibc tries `tls/x86_64` twice where the platform's name is also that of a capability).

use conformance::compare::stream_difference;
use conformance::loader::Start;
use conformance::manifest::{self, Case, Run};
use conformance::{build, interp, requirement, suite, Level, Loader, Way};
use libtest_mimic::{Completion, Failed, Trial};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

fn main() -> ExitCode {
    suite::prepare();
    let fixtures = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures"));
    let loader = Loader::under_test(option_env!("LDSEAL_INTERPRETER"), env!("CARGO_BIN_EXE_ldseal"));
    match loader.and_then(|loader| trials(fixtures, &loader)) {
        Ok(trials) => suite::run(trials),
        Err(reason) => {
            eprintln!("search: {reason}");
            ExitCode::FAILURE
        }
    }
}

fn trials(fixtures: &Path, loader: &Loader) -> Result<Vec<Trial>, String> {
    let cases = manifest::discover(fixtures)?.into_iter().filter(|case| case.name.starts_with("search/"));
    let trial = |case: Case| {
        let loader = loader.clone();
        Trial::ignorable_test(case.name.clone(), move || check(&case, &loader))
    };
    Ok(cases.map(trial).collect())
}

/// Compares what every run of a case tries.
fn check(case: &Case, loader: &Loader) -> Result<Completion, Failed> {
    if let Some(reason) = requirement::missing(case).or_else(|| requirement::unmet("strace")) {
        return Ok(Completion::ignored_with(reason));
    }
    let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).join("search");
    let tree = build::tree(case, &cache)?;
    let replaced = tree.with_file_name("interp");
    if replaced.exists() {
        fs::remove_dir_all(&replaced)?;
    }
    interp::replaced_tree(&tree, &replaced, &loader.interpreter)?;
    let mut report = String::new();
    for run in &case.manifest.runs {
        for way in [Way::Invoke, Way::Interp].into_iter().filter(|way| run.ways.iter().any(|w| w == way.word())) {
            let tested = if way == Way::Interp { &replaced } else { &tree };
            let expected = tried(run, &tree, |start| start.reference(way, Level(1)))?;
            let got = tried(run, tested, |start| start.tested(loader, way, Level(1)))?;
            if !expected.contains("libc.so.6") && run.status == 0 {
                return Err(
                    format!("{} {way}: the trace does not even show the C library:\n{expected}", run.name).into()
                );
            }
            if let Some(difference) = stream_difference("trace", expected.as_bytes(), got.as_bytes()) {
                report += &format!("{} {} {way}:\n{difference}", run.program, run.name);
            }
        }
    }
    if report.is_empty() {
        Ok(Completion::Completed)
    } else {
        Err(format!("rule: {}\n{report}", case.manifest.rule).into())
    }
}

/// The libraries that a run tries to open, and what comes of it, a line each.
fn tried<T>(run: &Run, tree: &Path, go: impl FnOnce(&Start) -> std::io::Result<T>) -> Result<String, Failed> {
    let text = |t: &String| t.replace("{tree}", &tree.to_string_lossy());
    let trace = tree.with_extension("trace");
    let mut start = Start::new(text(&run.program), tree);
    start.options = run.options.iter().map(text).collect();
    start.args = run.args.iter().map(text).collect();
    start.wrapper = ["strace", "-qq", "-s", "4096", "-e", "trace=open,openat", "-o"].map(String::from).into();
    start.wrapper.push(trace.to_string_lossy().into_owned());
    // strace itself has a loader too.
    start.wrapper.extend(run.env.iter().flat_map(|(name, value)| ["-E".to_owned(), format!("{name}={}", text(value))]));
    go(&start)?;
    let lines = fs::read_to_string(&trace)?;
    let mut list: Vec<String> = Vec::new();
    for (path, outcome) in lines.lines().filter_map(opening) {
        let place = tree.join(path);
        let parent = place.parent().map_or_else(PathBuf::new, Path::to_path_buf);
        let is_library = place.file_name().is_some_and(|name| name.to_string_lossy().contains(".so"));
        if !is_library || !parent.is_dir() || path.ends_with("/ld.so.preload") {
            continue;
        }
        let line = format!("{} {outcome}\n", path.replace(&*tree.to_string_lossy(), "{tree}"));
        if !(list.last() == Some(&line) && outcome.starts_with('E')) {
            list.push(line);
        }
    }
    Ok(list.concat())
}

/// The path that a line of the trace opens, and `found` or the error's name.
fn opening(line: &str) -> Option<(&str, &str)> {
    let (call, outcome) = line.rsplit_once(" = ")?;
    let path = call.strip_prefix("open").filter(|call| call.starts_with('(') || call.starts_with("at("))?;
    let path = path.split('"').nth(1)?;
    Some((path, outcome.strip_prefix("-1 ").and_then(|error| error.split(' ').next()).unwrap_or("found")))
}
