//! Files that no linker would write, given to the loader as program, as library and by LD_PRELOAD.
//!
//! What the system's loader refuses cleanly is refused in the same words, what it accepts is accepted, and what it crashes on
//! is refused with one line: `conformance::hostile` has the rules. `BAD_INPUT_SURVEY=1` prints what the system's loader does.

use conformance::hostile::judge::{judge, told, Deed};
use conformance::hostile::stage::{self, Role, Sound};
use conformance::hostile::{self, Case};
use conformance::loader::SYSTEM;
use conformance::{suite, Loader};
use libtest_mimic::{Completion, Failed, Trial};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

/// What the checks share.
struct Bench {
    loader: Loader,
    cache: PathBuf,
    sound: Sound,
}

fn main() -> ExitCode {
    suite::prepare();
    match trials() {
        Ok(trials) => suite::run(trials),
        Err(reason) => {
            eprintln!("bad_input: {reason}");
            ExitCode::FAILURE
        }
    }
}

fn trials() -> Result<Vec<Trial>, String> {
    let loader = Loader::under_test(option_env!("LDSEAL_INTERPRETER"), env!("CARGO_BIN_EXE_ldseal"))?;
    let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).join("bad_input");
    let sound = Sound::build(&suite::scratch(&cache, "sound")?)?;
    let bench = Arc::new(Bench { loader, cache, sound });
    if std::env::var_os("BAD_INPUT_SURVEY").is_some() {
        survey(&bench)?;
    }
    let mut trials = Vec::new();
    for case in hostile::cases() {
        for &role in case.roles {
            let bench = Arc::clone(&bench);
            let name = format!("{} {}", case.name, role.word());
            trials.push(Trial::ignorable_test(name, move || bench.check(&case, role)));
        }
    }
    Ok(trials)
}

impl Bench {
    fn check(&self, case: &Case, role: Role) -> Result<Completion, Failed> {
        let folder = self.folder(case, role)?;
        if let Some(reason) = stage::missing(case, &self.loader.interpreter, &folder) {
            return Ok(Completion::ignored_with(reason));
        }
        let sound = self.sound_output(role)?;
        let failed = |e: std::io::Error| format!("{}: {e}", folder.display());
        let system = stage::start(Path::new(SYSTEM), case, role, &folder, 1).map_err(failed)?;
        // A message may name the loader: as the object that lacks a version.
        let interpreter = self.loader.interpreter.to_string_lossy();
        for level in [1, 2] {
            let mut got = stage::start(&self.loader.interpreter, case, role, &folder, level).map_err(failed)?;
            got.stderr = String::from_utf8_lossy(&got.stderr).replace(&*interpreter, SYSTEM).into_bytes();
            judge(case.freedom, role, &sound, &system, &got)
                .map_err(|e| format!("level {level}, {}:\n{e}", folder.display()))?;
        }
        Ok(Completion::Completed)
    }

    fn folder(&self, case: &Case, role: Role) -> Result<PathBuf, String> {
        let folder = suite::scratch(&self.cache, &format!("{}.{}", case.name.replace('/', "."), role.word()))?;
        self.sound.stage(case, role, &folder).map_err(|e| format!("{}: {e}", folder.display()))?;
        Ok(folder)
    }

    /// What a run with sound files prints under the system's loader.
    fn sound_output(&self, role: Role) -> Result<Vec<u8>, String> {
        Ok(match role {
            Role::Main | Role::Needed => b"constructor\nb\nmain 13\n".to_vec(),
            Role::Preload => b"constructor\nplain\n".to_vec(),
        })
    }
}

/// Prints what the system's loader does with each case.
fn survey(bench: &Bench) -> Result<(), String> {
    for case in hostile::cases() {
        for &role in case.roles {
            let folder = bench.folder(&case, role)?;
            let system = stage::start(Path::new(SYSTEM), &case, role, &folder, 1).map_err(|e| e.to_string())?;
            let deed = Deed::of(&system, role, &bench.sound_output(role)?);
            println!("{:<45} {:<8} {:?} {}", case.name, role.word(), case.freedom, told(&deed, &system));
        }
    }
    Ok(())
}
