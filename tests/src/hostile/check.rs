//! A hostile file given to both loaders.

use super::judge::judge;
use super::stage::{self, Role, Sound};
use super::Case;
use crate::check::Bench;
use crate::compare;
use crate::loader::{self, Level, Loader, Way};
use crate::process::Outcome;
use crate::suite;
use crate::verdict::{Difference, Observation, Verdict};
use std::io;
use std::path::Path;

/// Gives the file of `case` to both loaders and judges the one under test by the reference. Of a loader that seals it is expected that it
/// refuses cleanly what the reference crashes on; any other may crash there in the same way.
pub fn check(case: &Case, role: Role, sound: &Sound, bench: &Bench) -> Verdict {
    let name = format!("{}.{}", case.name.replace('/', "."), role.word());
    let staged = suite::scratch(&bench.cache, &name).and_then(|folder| {
        sound.stage(case, role, &folder).map_err(|e| format!("{}: {e}", folder.display()))?;
        Ok(folder)
    });
    let folder = match staged {
        Ok(folder) => folder,
        Err(reason) => return Verdict::Broken(reason),
    };
    match stage::missing(case, &bench.tested.interpreter, &folder) {
        Some(reason) => Verdict::Skipped(reason),
        None => compared(case, role, bench, &folder).unwrap_or_else(|e| Verdict::Broken(e.to_string())),
    }
}

fn compared(case: &Case, role: Role, bench: &Bench, folder: &Path) -> io::Result<Verdict> {
    let expected = stage::start(&bench.reference.interpreter, case, role, folder, 1)?;
    for &level in bench.levels.iter().filter(|level| level.0 != 0) {
        let got = stage::start(&bench.tested.interpreter, case, role, folder, level.0)?;
        let got = in_terms_of(&bench.reference, &bench.tested, got);
        if !bench.seals && (got == expected || !is_settled(case, role, bench, folder, &expected)?) {
            continue;
        }
        if let Err(reason) = judge(case.freedom, role, Sound::output(role), &expected, &got) {
            return Ok(Verdict::Differs(vec![difference(role, level, bench, folder, &expected, &got, reason)]));
        }
    }
    Ok(Verdict::Agrees)
}

/// Whether the reference says the same twice: what it reads outside a file is not.
fn is_settled(case: &Case, role: Role, bench: &Bench, folder: &Path, expected: &Outcome) -> io::Result<bool> {
    Ok(stage::start(&bench.reference.interpreter, case, role, folder, 1)? == *expected)
}

/// A message may name the loader: as the object that lacks a version.
fn in_terms_of(reference: &Loader, tested: &Loader, mut outcome: Outcome) -> Outcome {
    let text = String::from_utf8_lossy(&outcome.stderr);
    let (own, other) = (tested.interpreter.to_string_lossy(), reference.interpreter.to_string_lossy());
    outcome.stderr = text.replace(&*own, &other).into_bytes();
    outcome
}

fn difference(
    role: Role,
    level: Level,
    bench: &Bench,
    folder: &Path,
    expected: &Outcome,
    got: &Outcome,
    reason: String,
) -> Difference {
    let mut observations = compare::observations(expected, got);
    observations.push(Observation { aspect: "judged", reference: String::new(), tested: reason });
    let by_hand = |loader: &Loader| loader::by_hand(&stage::command(&loader.interpreter, role, folder, level.0), b"");
    Difference {
        run: role.word().into(),
        way: Way::Invoke,
        level,
        start: (1, 1),
        observations,
        commands: [by_hand(&bench.reference), by_hand(&bench.tested)],
    }
}
