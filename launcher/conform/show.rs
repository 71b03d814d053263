//! What came of the checks, as tables.

use super::arguments::Arguments;
use comfy_table::{presets, Table};
use conformance::check::Bench;
use conformance::conform::{Check, Outcome, Tally};
use conformance::verdict::{Difference, Observation};
use std::collections::BTreeMap;
use std::io::Write;

/// How many lines of an observation are shown, from the first that differs.
const SHOWN: usize = 15;
/// How many columns of a line are shown.
const WIDTH: usize = 90;

/// An outcome in one word.
pub fn word(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Passed => "passed",
        Outcome::Differed(_) => "differs",
        Outcome::Known(_) => "differs, as is known",
        Outcome::Unexpected => "is listed as a known difference and does not differ",
        Outcome::Skipped(_) => "skipped",
        Outcome::Broken(_) => "shows nothing",
    }
}

/// The names of the checks, and their rules.
pub fn list(checks: &[Check]) -> u8 {
    let lines: String = checks.iter().map(|check| format!("{}: {}\n", check.name, check.rule)).collect();
    print(&lines)
}

/// All outcomes that a person wants to see, and the table of the areas.
pub fn outcomes(arguments: &Arguments, bench: &Bench, checks: &[Check], outcomes: &[Outcome]) -> u8 {
    let mut text = String::new();
    for (check, outcome) in checks.iter().zip(outcomes) {
        match outcome {
            Outcome::Differed(differences) => text += &differing(arguments, check, differences),
            Outcome::Broken(reason) => text += &format!("{} shows nothing: {}\n\n", check.name, reason.trim_end()),
            Outcome::Unexpected => text += &format!("{} {}\n\n", check.name, word(outcome)),
            Outcome::Known(reason) => text += &format!("{} differs, as is known: {reason}\n", check.name),
            Outcome::Passed | Outcome::Skipped(_) => {}
        }
    }
    text += &skipped(checks, outcomes);
    text += &areas(checks, outcomes);
    let (tested, reference) = (bench.tested.interpreter.display(), bench.reference.interpreter.display());
    if outcomes.iter().all(|outcome| matches!(outcome, Outcome::Differed(_))) {
        text += &format!("\nNothing agrees: is {tested} a dynamic loader, and one for glibc's programs?\n");
    }
    text += &format!("\n{tested} compared with {reference}\n");
    print(&text)
}

fn differing(arguments: &Arguments, check: &Check, differences: &[Difference]) -> String {
    let mut text = format!("{} differs. The rule: {}\n", check.name, check.rule);
    let mut previous = String::new();
    for difference in differences {
        let details = difference.details();
        if details == previous {
            text += &format!("  {}: the same\n", difference.place());
            continue;
        }
        text += &format!("  {}:\n", difference.place());
        for observation in &difference.observations {
            text += &format!("{}\n", beside_each_other(observation));
        }
        let [reference, tested] = &difference.commands;
        text += &format!("  reference by hand: {reference}\n  tested by hand:    {tested}\n");
        previous = details;
    }
    text + &format!("  again: {}\n\n", again(arguments, &check.name))
}

/// The command line that repeats one check.
fn again(arguments: &Arguments, name: &str) -> String {
    let command = std::env::args().next().unwrap_or_else(|| "ldseal".into());
    let mut line = format!("{} conform", if command.contains(' ') { format!("'{command}'") } else { command });
    let paths = [("loader", &arguments.loader), ("reference", &arguments.reference), ("fixtures", &arguments.fixtures)];
    for (option, path) in paths {
        if let Some(path) = path {
            line += &format!(" --{option} '{}'", path.display());
        }
    }
    format!("{line} --filter '^{}$'", name.replace('.', r"\.").replace('+', r"\+").replace('[', r"\["))
}

fn beside_each_other(observation: &Observation) -> Table {
    let Observation { aspect, reference, tested } = observation;
    let lines = |text: &str| text.lines().map(|l| l.chars().take(WIDTH).collect()).collect::<Vec<String>>();
    let (left, right) = (lines(reference), lines(tested));
    let same = left.iter().zip(&right).take_while(|(a, b)| a == b).count();
    let part = |lines: &[String]| lines.iter().skip(same).take(SHOWN).cloned().collect::<Vec<_>>().join("\n");
    let mut table = Table::new();
    let title = if same == 0 { aspect.to_string() } else { format!("{aspect} from line {}", same + 1) };
    table.load_preset(presets::ASCII_FULL_CONDENSED);
    table.set_header([format!("{title}: reference"), "under test".to_string()]);
    table.add_row([part(&left), part(&right)]);
    table
}

/// The reasons for which checks were skipped, and how many for each.
fn skipped(checks: &[Check], outcomes: &[Outcome]) -> String {
    let mut reasons: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (check, outcome) in checks.iter().zip(outcomes) {
        if let Outcome::Skipped(reason) = outcome {
            reasons.entry(reason).or_default().push(&check.name);
        }
    }
    let line = |(reason, names): (&str, Vec<&str>)| match names.as_slice() {
        [name] => format!("skipped: {name}: {reason}\n"),
        names => format!("skipped: {} and {} more: {reason}\n", names[0], names.len() - 1),
    };
    reasons.into_iter().map(line).collect()
}

fn areas(checks: &[Check], outcomes: &[Outcome]) -> String {
    let mut tallies: BTreeMap<&str, Tally> = BTreeMap::new();
    let mut total = Tally::default();
    for (check, outcome) in checks.iter().zip(outcomes) {
        tallies.entry(check.area()).or_default().add(outcome);
        total.add(outcome);
    }
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    table.set_header(["area", "passed", "differed", "known", "skipped", "broken"]);
    for (name, tally) in tallies.into_iter().chain([("total", total)]) {
        let Tally { passed, differed, known, skipped, broken } = tally;
        let numbers = [passed, differed, known, skipped, broken].map(|n| n.to_string());
        table.add_row([name.to_string()].into_iter().chain(numbers));
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(comfy_table::CellAlignment::Right);
    }
    let lines: String = table.lines().map(|line| format!("{}\n", line.trim_end())).collect();
    format!("\n{lines}")
}

/// Prints; returns the exit status.
pub fn print(text: &str) -> u8 {
    match std::io::stdout().write_all(text.as_bytes()) {
        Ok(()) => 0,
        Err(error) => {
            eprintln!("ldseal: standard output: {error}");
            1
        }
    }
}
