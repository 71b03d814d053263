//! Trials of a test binary: cases of `fixtures/`, and comparisons of whole programs.

use crate::compare::{difference, Normaliser};
use crate::interp;
use crate::loader::{Level, Loader, Start, Way, SYSTEM};
use crate::manifest::{Case, Run};
use crate::process::{Ending, Outcome};
use crate::{build, requirement};
use libtest_mimic::{Arguments, Completion, Failed, Trial};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// Runs `trials` with the arguments of the command line, two at a time unless they say otherwise.
pub fn run(trials: Vec<Trial>) -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads = arguments.test_threads.or(Some(2));
    let conclusion = libtest_mimic::run(&arguments, trials);
    if conclusion.num_ignored > 0 {
        println!("{} of the checks could not run on this machine: the lines above say why\n", conclusion.num_ignored);
    }
    conclusion.exit_code()
}

/// To be called first: the log of the harness (`RUST_LOG=conformance=debug` shows every command), and no core files of programs that crash on purpose.
pub fn prepare() {
    env_logger::init();
    let none = rustix::process::Rlimit {
        current: Some(0),
        maximum: rustix::process::getrlimit(rustix::process::Resource::Core).maximum,
    };
    if let Err(e) = rustix::process::setrlimit(rustix::process::Resource::Core, none) {
        log::warn!("core files stay enabled: {e}");
    }
}

/// A case and what is built from it.
struct Prepared {
    case: Case,
    loader: Loader,
    cache: PathBuf,
    /// The built tree and its copy whose executables name the interpreter under test.
    trees: OnceLock<Result<(PathBuf, PathBuf), String>>,
}

/// One trial for each case below `fixtures` and each way into `loader`. What is built goes below `cache`.
///
/// # Errors
/// An unreadable folder or a malformed manifest.
pub fn cases(fixtures: &Path, cache: &Path, loader: &Loader) -> Result<Vec<Trial>, String> {
    let mut trials = Vec::new();
    for case in crate::manifest::discover(fixtures)? {
        let used = |way: Way| case.manifest.runs.iter().any(|r| r.ways.iter().any(|w| w == way.word()));
        let ways: Vec<Way> = Way::ALL.into_iter().filter(|&w| used(w)).collect();
        let name = case.name.clone();
        let prepared =
            Arc::new(Prepared { case, loader: loader.clone(), cache: cache.to_path_buf(), trees: OnceLock::new() });
        for way in ways {
            let prepared = Arc::clone(&prepared);
            trials.push(Trial::ignorable_test(format!("{name} {way}"), move || prepared.check(way)));
        }
    }
    Ok(trials)
}

impl Prepared {
    fn check(&self, way: Way) -> Result<Completion, Failed> {
        if let Some(reason) = requirement::missing(&self.case).or_else(|| self.loader.missing(way)) {
            return Ok(Completion::ignored_with(reason));
        }
        let (tree, replaced) = self.trees.get_or_init(|| self.build()).as_ref()?;
        let mut report = String::new();
        let mut previous = String::new();
        for run in self.case.manifest.runs.iter().filter(|r| r.ways.iter().any(|w| w == way.word())) {
            for level in run.levels.iter().map(|&l| Level(l)) {
                let difference = self.compare(run, way, level, tree, replaced)?;
                // The levels mostly fail alike: the second time the place is enough.
                match difference.split_once('\n') {
                    Some((place, details)) if details == previous => report += &format!("{place} the same\n"),
                    Some((_, details)) => {
                        previous = details.to_string();
                        report += &difference;
                    }
                    None => {}
                }
            }
        }
        match (report.is_empty(), &self.case.manifest.known_difference) {
            (true, None) => Ok(Completion::Completed),
            (true, Some(_)) => Err("it does not differ any more: take known_difference out of its manifest".into()),
            (false, Some(reason)) => Ok(Completion::ignored_with(format!("known difference: {reason}"))),
            (false, None) => Err(format!("rule: {}\n{report}", self.case.manifest.rule).into()),
        }
    }

    fn build(&self) -> Result<(PathBuf, PathBuf), String> {
        let tree = build::tree(&self.case, &self.cache)?;
        // Named by the interpreter's path, so that several builds can share a cache.
        let hash =
            self.loader.interpreter.to_string_lossy().bytes().fold(0u64, |h, b| h.wrapping_mul(31) + u64::from(b));
        let replaced = tree.with_file_name(format!("interp-{hash:016x}"));
        interp::replaced_tree(&tree, &replaced, &self.loader.interpreter)
            .map_err(|e| format!("{}: {e}", replaced.display()))?;
        Ok((tree, replaced))
    }

    /// One run at one level, compared; what differs, or nothing.
    fn compare(&self, run: &Run, way: Way, level: Level, tree: &Path, replaced: &Path) -> Result<String, String> {
        let place = |outcome: &str| format!("{} {way} {level}{outcome}:\n", run.name);
        let failed = |e: std::io::Error| format!("{} {way} {level}: {e}", run.program);
        let start = self.start(run, tree);
        let expected = start.reference(way, level).map_err(failed)?;
        if let Some(complaint) = unexpected(run, &expected) {
            return Ok(place(" under the system's loader") + &complaint);
        }
        let tree = if way == Way::Interp { replaced } else { tree };
        let (start, normaliser) = (self.start(run, tree), self.normaliser(run));
        for repetition in 1..=run.repeat {
            let got = start.tested(&self.loader, way, level).map_err(failed)?;
            if let Some(difference) = difference(&normaliser.apply(&expected), &normaliser.apply(&got)) {
                let hint = ignored_stderr(run, &got);
                return Ok(place(&format!(" start {repetition} of {}", run.repeat)) + &difference + &hint);
            }
        }
        Ok(String::new())
    }

    fn start(&self, run: &Run, tree: &Path) -> Start {
        let text = |t: &String| t.replace("{tree}", &tree.to_string_lossy());
        let mut start = Start::new(text(&run.program), tree);
        start.options = run.options.iter().map(text).collect();
        start.args = run.args.iter().map(text).collect();
        start.env.extend(run.env.iter().map(|(name, value)| (name.clone(), text(value))));
        start.wrapper = run.wrapper.iter().map(text).collect();
        start.stdin = run.stdin.clone().into_bytes();
        start.limit = Duration::from_secs(self.case.manifest.timeout);
        start
    }

    fn normaliser(&self, run: &Run) -> Normaliser {
        let has = |words: &[String], word: &str| words.iter().any(|w| w == word);
        let mut replacements = Vec::new();
        for folder in [self.trees.get()].into_iter().flatten().flatten().flat_map(|(a, b)| [a, b]) {
            replacements.push((folder.to_string_lossy().into_owned(), "{tree}"));
        }
        if has(&run.normalise, "loader") {
            replacements.push((self.loader.interpreter.to_string_lossy().into_owned(), "{loader}"));
            replacements.push((SYSTEM.to_string(), "{loader}"));
        }
        Normaliser {
            replacements,
            addresses: has(&run.normalise, "addresses"),
            pids: has(&run.normalise, "pids"),
            order: has(&run.normalise, "order"),
            ignore_stdout: has(&run.ignore, "stdout"),
            ignore_stderr: has(&run.ignore, "stderr"),
        }
    }
}

/// What the manifest expects of the system's loader and is not so: then the fixture shows nothing.
fn unexpected(run: &Run, outcome: &Outcome) -> Option<String> {
    let ending = run.signal.map_or(Ending::Exit(run.status), Ending::Signal);
    let contains = |stream: &[u8], text: &Option<String>| {
        text.as_ref().is_none_or(|t| String::from_utf8_lossy(stream).contains(t.as_str()))
    };
    let met =
        outcome.ending == ending && contains(&outcome.stdout, &run.stdout) && contains(&outcome.stderr, &run.stderr);
    (!met).then(|| {
        let text = |stream: &[u8]| String::from_utf8_lossy(stream).into_owned();
        let (stdout, stderr) = (text(&outcome.stdout), text(&outcome.stderr));
        format!(
            "  the manifest expects {ending} and certain texts, got {}\n  stdout: {stdout}\n  stderr: {stderr}\n",
            outcome.ending
        )
    })
}

/// A stderr that doesn't count still often says why a run ended differently.
fn ignored_stderr(run: &Run, got: &Outcome) -> String {
    match run.ignore.iter().any(|i| i == "stderr") && !got.stderr.is_empty() {
        true => format!("  (stderr, which does not count: {})\n", String::from_utf8_lossy(&got.stderr)),
        false => String::new(),
    }
}

/// A fresh folder below `cache` for one check, and the path of it.
///
/// # Errors
/// It can't be made.
pub fn scratch(cache: &Path, name: &str) -> Result<PathBuf, String> {
    let folder = cache.join("scratch").join(name);
    match fs::remove_dir_all(&folder) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(format!("{}: {e}", folder.display())),
        _ => fs::create_dir_all(&folder).map_err(|e| format!("{}: {e}", folder.display()))?,
    }
    Ok(folder)
}
