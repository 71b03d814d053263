//! The harness itself: with the system's loader on both sides it must find no difference.

use conformance::check::Bench;
use conformance::conform::{self, Outcome};
use conformance::{suite, Level, Loader};
use libtest_mimic::{Completion, Failed, Trial};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

fn main() -> ExitCode {
    suite::prepare();
    let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).join("conformance");
    let bench = Arc::new(Bench::new(Loader::system(), Loader::system(), &[Level(1)], cache));
    let fixtures = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures"));
    match conform::checks(fixtures, &bench) {
        Ok(checks) => suite::run(checks.into_iter().filter(|c| c.area() != conform::COMMANDS).map(trial).collect()),
        Err(reason) => {
            eprintln!("harness: {reason}");
            ExitCode::FAILURE
        }
    }
}

fn trial(check: conform::Check) -> Trial {
    Trial::ignorable_test(format!("{} with itself", check.name), move || completion(check.run()))
}

fn completion(outcome: Outcome) -> Result<Completion, Failed> {
    match outcome {
        Outcome::Passed => Ok(Completion::Completed),
        Outcome::Skipped(reason) => Ok(Completion::ignored_with(reason)),
        Outcome::Differed(differences) => {
            Err(differences.iter().map(|d| format!("{}:\n{}", d.place(), d.details())).collect::<String>().into())
        }
        Outcome::Known(reason) | Outcome::Broken(reason) => Err(reason.into()),
        Outcome::Unexpected => Err("known differences are those of another loader".into()),
    }
}
