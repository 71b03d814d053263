//! What is expected of a loader that was given a spoiled file, when it is known what the system's loader did with it.

use super::stage::Role;
use super::Freedom;
use crate::compare;
use crate::process::{Ending, Outcome};

/// What a loader did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Deed {
    /// It ended with status 127 and one line that names the object; nothing of the program ran.
    Refused,
    /// The program ran as if the file was sound, or without the library, after a warning about it.
    Ran,
    /// Anything else, in words.
    Failed(String),
}

impl Deed {
    /// What `outcome` is in `role`; `sound` is the standard output of a run with sound files.
    pub fn of(outcome: &Outcome, role: Role, sound: &[u8]) -> Deed {
        let stderr = String::from_utf8_lossy(&outcome.stderr);
        let lines: Vec<&str> = stderr.lines().collect();
        let whole = stderr.is_empty() || stderr.ends_with('\n');
        match (outcome.ending, lines.as_slice()) {
            _ if is_assertion(outcome) => Deed::Failed(format!("assertion: {stderr}")),
            (Ending::Exit(127), [line]) if whole && outcome.stdout.is_empty() => refusal(line, role),
            // What glibc's ld.so ends with when a version is missing in a directly invoked program.
            (Ending::Exit(1), [line]) if whole && outcome.stdout.is_empty() && line.contains(": version `") => {
                refusal(line, role)
            }
            (Ending::Exit(0), []) if outcome.stdout == sound => Deed::Ran,
            (Ending::Exit(0), [line]) if whole && role == Role::Preload && outcome.stdout == b"plain\n" => {
                warning(line, role)
            }
            (ending, _) => {
                Deed::Failed(format!("{ending}, {} bytes on stdout, stderr: {stderr}", outcome.stdout.len()))
            }
        }
    }
}

/// glibc's assertions end with status 127 and a line too; they are crashes with a text.
fn is_assertion(outcome: &Outcome) -> bool {
    String::from_utf8_lossy(&outcome.stderr).contains("Inconsistency detected by ld.so")
}

/// Whether a loader, or what it started, ended by a crash.
pub fn is_crash(outcome: &Outcome) -> bool {
    !matches!(outcome.ending, Ending::Exit(_)) || is_assertion(outcome)
}

/// Whether a loader refused as it should: with exit status 127 and one line that names one of the objects.
pub fn is_refusal(outcome: &Outcome, objects: &[&str]) -> bool {
    let stderr = String::from_utf8_lossy(&outcome.stderr);
    outcome.ending == Ending::Exit(127)
        && outcome.stdout.is_empty()
        && stderr.lines().count() == 1
        && !is_assertion(outcome)
        && objects.iter().any(|name| stderr.contains(name))
}

/// The program ran without the preloaded library, after a line that says why. [`Deed::of`] has read the line.
fn warned(outcome: &Outcome) -> bool {
    outcome.ending == Ending::Exit(0)
        && outcome.stdout == b"plain\n"
        && outcome.stderr.starts_with(b"ERROR: ld.so: object '")
}

fn refusal(line: &str, role: Role) -> Deed {
    let named = line.strip_prefix(role.program()).and_then(|rest| rest.strip_prefix(": "));
    match named.is_some_and(|rest| rest.contains(role.victim()) || rest.contains(role.program())) {
        true => Deed::Refused,
        false => Deed::Failed(format!("it refuses without naming program and object: {line}")),
    }
}

fn warning(line: &str, role: Role) -> Deed {
    let known = line.starts_with("ERROR: ld.so: object '") && line.ends_with("): ignored.");
    match known && line.contains(role.victim()) {
        true => Deed::Ran,
        false => Deed::Failed(format!("an unknown warning: {line}")),
    }
}

/// Judges `got` by `system`, the outcomes of the two loaders.
///
/// # Errors
/// What is wrong with it.
pub fn judge(freedom: Freedom, role: Role, sound: &[u8], system: &Outcome, got: &Outcome) -> Result<(), String> {
    let (expected, deed) = (Deed::of(system, role, sound), Deed::of(got, role, sound));
    // A loader that reads on where the file makes no sense may end in any way, and so may ours, but not by a crash.
    let clean = matches!(system.ending, Ending::Exit(_)) && !is_assertion(system);
    let refused = deed == Deed::Refused && got.ending == Ending::Exit(127);
    let lawful = match expected {
        _ if clean && system == got => true,
        Deed::Failed(_) => refused || warned(got) || (freedom >= Freedom::Accept && deed == Deed::Ran),
        Deed::Refused => {
            (freedom >= Freedom::Words && (refused || warned(got))) || (freedom >= Freedom::Accept && deed == Deed::Ran)
        }
        Deed::Ran => {
            (freedom >= Freedom::Refuse && (refused || warned(got)))
                || (freedom >= Freedom::Accept && deed == Deed::Ran)
        }
    };
    match lawful {
        true => Ok(()),
        false => Err(format!(
            "the system's loader: {}\nthe loader under test: {}\n{}",
            told(&expected, system),
            told(&deed, got),
            compare::difference(system, got).unwrap_or_default()
        )),
    }
}

/// A deed in words.
pub fn told(deed: &Deed, outcome: &Outcome) -> String {
    let stderr = String::from_utf8_lossy(&outcome.stderr);
    match deed {
        Deed::Refused => format!("refused: {}", stderr.trim_end()),
        Deed::Ran if stderr.is_empty() => "ran".into(),
        Deed::Ran => format!("ran, after {}", stderr.trim_end()),
        Deed::Failed(how) => format!("FAILED: {}", how.trim_end()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(ending: Ending, stdout: &str, stderr: &str) -> Outcome {
        Outcome { ending, stdout: stdout.into(), stderr: stderr.into() }
    }

    const LINE: &str = "./user: error while loading shared libraries: /x/libvictim.so: invalid ELF header\n";

    #[test]
    fn deeds_are_told_apart() {
        let deed = |ending, stdout, stderr| Deed::of(&outcome(ending, stdout, stderr), Role::Needed, b"sound\n");
        assert_eq!(deed(Ending::Exit(127), "", LINE), Deed::Refused);
        assert_eq!(deed(Ending::Exit(0), "sound\n", ""), Deed::Ran);
        for (ending, stdout, stderr) in [
            (Ending::Signal(11), "", ""),
            (Ending::TimedOut, "", ""),
            (Ending::Exit(127), "constructor\n", LINE),
            (Ending::Exit(1), "", LINE),
            (Ending::Exit(127), "", ""),
            (Ending::Exit(127), "", "./user: something is wrong\n"),
            (Ending::Exit(127), "", "Inconsistency detected by ld.so: x.c: 1: f: libvictim.so\n"),
            (Ending::Exit(0), "sound\n", "noise\n"),
            (Ending::Exit(0), "unsound\n", ""),
        ] {
            assert!(matches!(deed(ending, stdout, stderr), Deed::Failed(_)), "{ending} {stdout} {stderr}");
        }
    }

    #[test]
    fn clean_refusals_are_compared_word_for_word() {
        let system = outcome(Ending::Exit(127), "", LINE);
        let other = outcome(Ending::Exit(127), "", &LINE.replace("invalid", "bad"));
        let judged = |freedom, got| judge(freedom, Role::Needed, b"", &system, got);
        assert!(judged(Freedom::None, &system).is_ok());
        assert!(judged(Freedom::None, &other).is_err());
        assert!(judged(Freedom::Words, &other).is_ok());
        assert!(judged(Freedom::Words, &outcome(Ending::Signal(11), "", "")).is_err());
    }

    #[test]
    fn refusals_are_told_from_crashes() {
        let assertion = "Inconsistency detected by ld.so: x.c: 1: f: libvictim.so\n";
        let refused = |ending, stdout, stderr| is_refusal(&outcome(ending, stdout, stderr), &["libvictim.so"]);
        assert!(refused(Ending::Exit(127), "", LINE));
        assert!(!refused(Ending::Exit(127), "", "./user: something is wrong\n"));
        assert!(!refused(Ending::Exit(127), "constructor\n", LINE) && !refused(Ending::Exit(1), "", LINE));
        assert!(!refused(Ending::Exit(127), "", assertion) && is_crash(&outcome(Ending::Exit(127), "", assertion)));
        assert!(is_crash(&outcome(Ending::Signal(11), "", "")) && !is_crash(&outcome(Ending::Exit(127), "", LINE)));
    }

    #[test]
    fn a_crash_of_the_system_s_loader_is_no_excuse() {
        let crash = outcome(Ending::Signal(11), "", "");
        assert!(judge(Freedom::Words, Role::Needed, b"", &crash, &crash).is_err());
        assert!(judge(Freedom::None, Role::Needed, b"", &crash, &outcome(Ending::Exit(127), "", LINE)).is_ok());
    }
}
