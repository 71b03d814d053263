//! `ldseal conform`: the conformance harness against any loader.
//!
//! * [`arguments`]: its command line.
//! * [`place`]: where its cases come from, where they are built, and which files are the loaders.
//! * [`show`]: what came of it, as tables; [`json`]: as JSON.
#![deny(unsafe_code)]

pub mod arguments;
mod json;
mod place;
mod show;

use arguments::Arguments;
use conformance::check::Bench;
use conformance::conform::{self, Check, Outcome};
use conformance::Level;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::sync::Arc;

/// Exit status when something differs, or a check shows nothing.
const EXIT_DIFFERS: u8 = 1;

/// Does what the arguments ask for; returns the exit status.
pub fn conform(arguments: &Arguments) -> u8 {
    match checks(arguments) {
        Ok((bench, checks)) if arguments.list => list(&bench, &checks, arguments.json),
        Ok((bench, checks)) => match place::turn(&bench.cache) {
            Ok(_turn) => run(arguments, &bench, &checks),
            Err(reason) => refuse(&reason),
        },
        Err(reason) => refuse(&reason),
    }
}

fn refuse(reason: &str) -> u8 {
    eprintln!("ldseal: conform: {reason}");
    crate::EXIT_USAGE
}

fn checks(arguments: &Arguments) -> Result<(Arc<Bench>, Vec<Check>), String> {
    let (cache, fixtures) = place::folders(arguments)?;
    let (reference, tested) = (place::reference(arguments)?, place::tested(arguments, &cache)?);
    let mut bench = Bench::new(reference, tested, &[Level(1)], cache);
    if bench.seals {
        bench.levels = Level::ALL.to_vec();
    }
    let bench = Arc::new(bench);
    let mut checks = conform::checks(&fixtures, &bench)?;
    if let Some(filter) = &arguments.filter {
        checks.retain(|check| filter.0.is_match(&check.name));
    }
    match checks.is_empty() {
        true => Err("no check has such a name".into()),
        false => Ok((bench, checks)),
    }
}

fn list(bench: &Bench, checks: &[Check], json: bool) -> u8 {
    match json {
        true => json::print(bench, checks, &[]),
        false => show::list(checks),
    }
}

fn run(arguments: &Arguments, bench: &Bench, checks: &[Check]) -> u8 {
    let progress = Progress::new(checks.len());
    let outcomes = conform::run(checks, arguments.jobs, &|check, outcome| progress.tell(check, outcome));
    progress.bar.finish_and_clear();
    let printed = match arguments.json {
        true => json::print(bench, checks, &outcomes),
        false => show::outcomes(arguments, bench, checks, &outcomes),
    };
    match outcomes.iter().all(Outcome::is_well) {
        true => printed,
        false => EXIT_DIFFERS,
    }
}

/// How far it is, on standard error: a bar on a terminal, a line for each tenth elsewhere.
struct Progress {
    bar: ProgressBar,
}

impl Progress {
    fn new(checks: usize) -> Progress {
        let bar = ProgressBar::with_draw_target(Some(checks as u64), ProgressDrawTarget::stderr());
        if let Ok(style) = ProgressStyle::with_template("{wide_bar} {pos} of {len}, {elapsed} {msg}") {
            bar.set_style(style);
        }
        Progress { bar }
    }

    fn tell(&self, check: &Check, outcome: &Outcome) {
        self.bar.set_message(check.name.clone());
        self.bar.inc(1);
        let (done, all) = (self.bar.position(), self.bar.length().unwrap_or_default());
        if !outcome.is_well() {
            self.bar.suspend(|| eprintln!("{}: {}", check.name, show::word(outcome)));
        } else if self.bar.is_hidden() && done * 10 / all.max(1) != (done - 1) * 10 / all.max(1) {
            eprintln!("{done} of {all} checks");
        }
    }
}
