//! What came of the checks, as JSON.

use super::show;
use conformance::check::Bench;
use conformance::conform::{Check, Outcome, Tally};
use conformance::verdict::Difference;
use serde::Serialize;
use std::collections::BTreeMap;

/// Raised when a member is renamed, removed, or means something else.
const VERSION: u32 = 1;

#[derive(Serialize)]
struct Document<'d> {
    version: u32,
    loader: String,
    reference: String,
    areas: BTreeMap<&'d str, Counts>,
    checks: Vec<Entry<'d>>,
}

/// How many checks of an area had which outcome.
#[derive(Serialize)]
struct Counts {
    passed: usize,
    differed: usize,
    known: usize,
    skipped: usize,
    broken: usize,
}

#[derive(Serialize)]
struct Entry<'d> {
    name: &'d str,
    rule: &'d str,
    /// `passed`, `differed`, `known`, `unexpected`, `skipped`, `broken`; none when it was only listed.
    #[serde(skip_serializing_if = "Option::is_none")]
    outcome: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'d str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    differences: Vec<Differing<'d>>,
}

#[derive(Serialize)]
struct Differing<'d> {
    run: &'d str,
    way: &'static str,
    level: u8,
    observations: Vec<Observed<'d>>,
    reference_command: &'d str,
    tested_command: &'d str,
}

#[derive(Serialize)]
struct Observed<'d> {
    aspect: &'static str,
    reference: &'d str,
    tested: &'d str,
}

/// Prints the document; without outcomes it is a list of the checks. Returns the exit status.
pub fn print(bench: &Bench, checks: &[Check], outcomes: &[Outcome]) -> u8 {
    let mut tallies: BTreeMap<&str, Tally> = BTreeMap::new();
    for (check, outcome) in checks.iter().zip(outcomes) {
        tallies.entry(check.area()).or_default().add(outcome);
    }
    let counts =
        |Tally { passed, differed, known, skipped, broken }: Tally| Counts { passed, differed, known, skipped, broken };
    let document = Document {
        version: VERSION,
        loader: bench.tested.interpreter.display().to_string(),
        reference: bench.reference.interpreter.display().to_string(),
        areas: tallies.into_iter().map(|(area, tally)| (area, counts(tally))).collect(),
        checks: checks.iter().enumerate().map(|(at, check)| entry(check, outcomes.get(at))).collect(),
    };
    match serde_json::to_string_pretty(&document) {
        Ok(text) => show::print(&(text + "\n")),
        Err(error) => {
            eprintln!("ldseal: conform: {error}");
            1
        }
    }
}

fn entry<'d>(check: &'d Check, outcome: Option<&'d Outcome>) -> Entry<'d> {
    let (word, reason, differences) = match outcome {
        None => (None, None, &[][..]),
        Some(Outcome::Passed) => (Some("passed"), None, &[][..]),
        Some(Outcome::Differed(differences)) => (Some("differed"), None, differences.as_slice()),
        Some(Outcome::Known(reason)) => (Some("known"), Some(reason.as_str()), &[][..]),
        Some(Outcome::Unexpected) => (Some("unexpected"), None, &[][..]),
        Some(Outcome::Skipped(reason)) => (Some("skipped"), Some(reason.as_str()), &[][..]),
        Some(Outcome::Broken(reason)) => (Some("broken"), Some(reason.as_str()), &[][..]),
    };
    let differences = differences.iter().map(differing).collect();
    Entry { name: &check.name, rule: &check.rule, outcome: word, reason, differences }
}

fn differing(difference: &Difference) -> Differing<'_> {
    let observed = difference.observations.iter();
    let [reference_command, tested_command] = &difference.commands;
    Differing {
        run: &difference.run,
        way: difference.way.word(),
        level: difference.level.0,
        observations: observed
            .map(|o| Observed { aspect: o.aspect, reference: &o.reference, tested: &o.tested })
            .collect(),
        reference_command,
        tested_command,
    }
}
