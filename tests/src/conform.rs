//! All checks of the harness against any loader, and what came of them by area.

use crate::check::{Bench, Checked};
use crate::hostile::stage::Sound;
use crate::verdict::{Difference, Verdict};
use crate::{commands, hostile, known, manifest, requirement, suite};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

/// The area of files that no linker would write.
pub const MALFORMED: &str = "malformed";
/// The area of this machine's commands.
pub const COMMANDS: &str = "commands";

/// Something that can be tried.
pub struct Check {
    /// `area/behaviour`.
    pub name: String,
    /// The rule that it pins, and where that is written down.
    pub rule: String,
    /// Why it is known to differ, if it is.
    pub known: Option<String>,
    try_it: Box<dyn Fn() -> Verdict + Send + Sync>,
}

impl Check {
    /// What its name begins with.
    pub fn area(&self) -> &str {
        self.name.split('/').next().unwrap_or_default()
    }

    /// Tries it.
    pub fn run(&self) -> Outcome {
        match ((self.try_it)(), &self.known) {
            (Verdict::Agrees, None) => Outcome::Passed,
            (Verdict::Agrees, Some(_)) => Outcome::Unexpected,
            (Verdict::Differs(_), Some(reason)) => Outcome::Known(reason.clone()),
            (Verdict::Differs(differences), None) => Outcome::Differed(differences),
            (Verdict::Skipped(reason), _) => Outcome::Skipped(reason),
            (Verdict::Broken(reason), _) => Outcome::Broken(reason),
        }
    }
}

/// What came of a check.
#[derive(Debug, Clone)]
pub enum Outcome {
    /// Nothing differs.
    Passed,
    /// Something differs.
    Differed(Vec<Difference>),
    /// Something differs, as is known, for this reason.
    Known(String),
    /// It is listed as a known difference, and nothing differs any more.
    Unexpected,
    /// It can't be tried here.
    Skipped(String),
    /// It shows nothing.
    Broken(String),
}

impl Outcome {
    /// Whether the loader under test, and the harness, are as they should be.
    pub fn is_well(&self) -> bool {
        matches!(self, Outcome::Passed | Outcome::Known(_) | Outcome::Skipped(_))
    }
}

/// How many checks of an area had which outcome.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Nothing differs.
    pub passed: usize,
    /// Something differs.
    pub differed: usize,
    /// Something differs, as is known.
    pub known: usize,
    /// They can't be tried here.
    pub skipped: usize,
    /// They show nothing, or are listed as known differences and are none.
    pub broken: usize,
}

impl Tally {
    /// Counts one more.
    pub fn add(&mut self, outcome: &Outcome) {
        *match outcome {
            Outcome::Passed => &mut self.passed,
            Outcome::Differed(_) => &mut self.differed,
            Outcome::Known(_) => &mut self.known,
            Outcome::Skipped(_) => &mut self.skipped,
            Outcome::Unexpected | Outcome::Broken(_) => &mut self.broken,
        } += 1;
    }
}

/// All checks: the cases of `fixtures`, the hostile files, the commands of this machine.
///
/// # Errors
/// An unreadable folder, a malformed manifest, a list of known differences with a name that no case has.
pub fn checks(fixtures: &Path, bench: &Arc<Bench>) -> Result<Vec<Check>, String> {
    let mut checks = cases(fixtures, bench)?;
    checks.extend(malformed(bench));
    checks.extend(installed(bench));
    Ok(checks)
}

fn cases(fixtures: &Path, bench: &Arc<Bench>) -> Result<Vec<Check>, String> {
    let mut known = if bench.seals { known::read(fixtures)? } else { BTreeMap::new() };
    let mut checks = Vec::new();
    for case in manifest::discover(fixtures)? {
        let (name, rule) = (case.name.clone(), case.manifest.rule.clone());
        let checked = Checked::new(case, Arc::clone(bench));
        let try_it = Box::new(move || all_ways(&checked));
        checks.push(Check { known: known.remove(&name), name, rule, try_it });
    }
    match known.keys().next() {
        Some(name) => Err(format!("{}: there is no case {name}", known::FILE)),
        None => Ok(checks),
    }
}

/// What differs in any way into the loader; what can be tried in one of them counts as tried.
fn all_ways(checked: &Checked) -> Verdict {
    let (mut differences, mut skipped, mut tried) = (Vec::new(), None, false);
    for way in checked.ways() {
        match checked.check(way) {
            Verdict::Agrees => tried = true,
            Verdict::Differs(found) => differences.extend(found),
            Verdict::Skipped(reason) => skipped = Some(reason),
            broken @ Verdict::Broken(_) => return broken,
        }
    }
    match (differences.is_empty(), tried, skipped) {
        (false, _, _) => Verdict::Differs(differences),
        (true, false, Some(reason)) => Verdict::Skipped(reason),
        (true, _, _) => Verdict::Agrees,
    }
}

fn malformed(bench: &Arc<Bench>) -> Vec<Check> {
    let sound = Arc::new(Mutex::new(None));
    let check = |case: hostile::Case| {
        let (bench, sound) = (Arc::clone(bench), Arc::clone(&sound));
        let try_it = move || match (requirement::unmet("cc"), sound_files(&sound, &bench)) {
            (Some(reason), _) => Verdict::Skipped(reason),
            (None, Ok(sound)) => all_roles(&case, &sound, &bench),
            (None, Err(reason)) => Verdict::Broken(reason),
        };
        let rule =
            "a file that makes no sense is refused with one line and exit status 127, or accepted as by the reference";
        let name = format!("{MALFORMED}/{}", case.name.replace(' ', "-"));
        Check { name, rule: rule.into(), known: None, try_it: Box::new(try_it) }
    };
    hostile::cases().into_iter().map(check).collect()
}

/// The sound files, built when they are first asked for.
fn sound_files(cell: &Mutex<Option<Result<Sound, String>>>, bench: &Bench) -> Result<Sound, String> {
    let build = || Sound::build(&suite::scratch(&bench.cache, "sound")?);
    cell.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_with(build).clone()
}

fn all_roles(case: &hostile::Case, sound: &Sound, bench: &Bench) -> Verdict {
    let mut differences = Vec::new();
    for &role in case.roles {
        match hostile::check::check(case, role, sound, bench) {
            Verdict::Agrees => {}
            Verdict::Differs(found) => differences.extend(found),
            other => return other,
        }
    }
    if differences.is_empty() {
        Verdict::Agrees
    } else {
        Verdict::Differs(differences)
    }
}

fn installed(bench: &Arc<Bench>) -> Vec<Check> {
    let check = |program: std::path::PathBuf| {
        let bench = Arc::clone(bench);
        let name = format!("{COMMANDS}{}", program.display());
        let try_it = Box::new(move || commands::check(&program, &bench));
        Check { name, rule: "a command says the same with --version and --help".into(), known: None, try_it }
    };
    commands::installed().into_iter().map(check).collect()
}

/// Tries all of `checks`, `threads` at a time, and tells `progress` of each as it is done. The outcomes are in the order of the checks.
pub fn run(checks: &[Check], threads: usize, progress: &(dyn Fn(&Check, &Outcome) + Sync)) -> Vec<Outcome> {
    let next = AtomicUsize::new(0);
    let outcomes: Mutex<Vec<Option<Outcome>>> = Mutex::new(vec![None; checks.len()]);
    let work = || loop {
        let index = next.fetch_add(1, Ordering::Relaxed);
        let Some(check) = checks.get(index) else { return };
        let outcome = check.run();
        progress(check, &outcome);
        outcomes.lock().unwrap_or_else(PoisonError::into_inner)[index] = Some(outcome);
    };
    thread::scope(|scope| {
        for _ in 0..threads.max(1) {
            scope.spawn(work);
        }
    });
    let outcomes = outcomes.into_inner().unwrap_or_else(PoisonError::into_inner);
    outcomes.into_iter().map(|o| o.unwrap_or_else(|| Outcome::Broken("it was not tried".into()))).collect()
}
