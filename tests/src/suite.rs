//! Trials of a test binary: cases of `fixtures/`, and comparisons of whole programs.

use crate::check::{Bench, Checked};
use crate::loader::{Level, Loader};
use crate::verdict::{Difference, Verdict};
use crate::{known, manifest};
use libtest_mimic::{Arguments, Completion, Failed, Trial};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

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

/// One trial for each case below `fixtures` and each way into `loader`. What is built goes below `cache`.
///
/// # Errors
/// An unreadable folder or a malformed manifest.
pub fn cases(fixtures: &Path, cache: &Path, loader: &Loader) -> Result<Vec<Trial>, String> {
    let bench = Arc::new(Bench::new(Loader::system(), loader.clone(), &Level::ALL, cache.to_path_buf()));
    let mut known = if bench.seals { known::read(fixtures)? } else { Default::default() };
    let mut trials = Vec::new();
    for case in manifest::discover(fixtures)? {
        let (name, rule, reason) = (case.name.clone(), case.manifest.rule.clone(), known.remove(&case.name));
        let checked = Arc::new(Checked::new(case, Arc::clone(&bench)));
        let ways: Vec<_> = checked.ways().collect();
        for way in ways {
            let (checked, rule, reason) = (Arc::clone(&checked), rule.clone(), reason.clone());
            let check = move || completion(checked.check(way), &rule, reason.as_deref());
            trials.push(Trial::ignorable_test(format!("{name} {way}"), check));
        }
    }
    match known.keys().next() {
        Some(name) => Err(format!("{}: there is no case {name}", known::FILE)),
        None => Ok(trials),
    }
}

/// What a verdict is to a test binary: of a case with this rule, that is known to differ for this reason or should not.
///
/// # Errors
/// What differs without being known to, or no longer does.
pub fn completion(verdict: Verdict, rule: &str, known: Option<&str>) -> Result<Completion, Failed> {
    match (verdict, known) {
        (Verdict::Skipped(reason), _) => Ok(Completion::ignored_with(reason)),
        (Verdict::Broken(reason), _) => Err(reason.into()),
        (Verdict::Agrees, None) => Ok(Completion::Completed),
        (Verdict::Agrees, Some(_)) => {
            Err(format!("it does not differ any more: take it out of {}", known::FILE).into())
        }
        (Verdict::Differs(_), Some(reason)) => Ok(Completion::ignored_with(format!("known difference: {reason}"))),
        (Verdict::Differs(differences), None) => Err(format!("rule: {rule}\n{}", report(&differences)).into()),
    }
}

/// The differences in words. The levels mostly fail alike: the second time the place is enough.
fn report(differences: &[Difference]) -> String {
    let mut report = String::new();
    let mut previous = String::new();
    for difference in differences {
        let details = difference.details();
        report += &match details == previous {
            true => format!("{}: the same\n", difference.place()),
            false => format!("{}:\n{details}  by hand: {}\n", difference.place(), difference.commands[1]),
        };
        previous = details;
    }
    report
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
