//! Real programs of this system under `ld-seal.so`, compared with a direct start: a list of them with real work to do,
//! every library, opened and closed, and every dynamically linked file of /usr/bin and /usr/sbin with `--version` and `--help`.

mod inputs;
mod libraries;
mod listed;

use conformance::check::Bench;
use conformance::{commands, suite, Level, Loader};
use libtest_mimic::Trial;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

/// Where the programs' inputs and working directories go.
pub fn cache() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("programs")
}

fn trials(loader: &Loader) -> Vec<Trial> {
    [listed::trials(loader), sweep(loader), libraries::trials(loader)].into_iter().flatten().collect()
}

/// A trial for each command of this machine.
fn sweep(loader: &Loader) -> Vec<Trial> {
    let (reference, tested) = (Loader::system(), loader.clone());
    let bench = Arc::new(Bench::new(reference, tested, &[Level(1)], cache()));
    let trial = |program: PathBuf| {
        let bench = Arc::clone(&bench);
        let name = format!("sweep {}", program.display());
        let check =
            move || suite::completion(commands::check(&program, &bench), "a program is as under glibc's loader", None);
        Trial::ignorable_test(name, check)
    };
    commands::installed().into_iter().map(trial).collect()
}

fn main() -> ExitCode {
    suite::prepare();
    let loader = Loader::under_test(option_env!("LDSEAL_INTERPRETER"), env!("CARGO_BIN_EXE_ldseal"));
    match loader {
        Ok(loader) => suite::run(trials(&loader)),
        Err(reason) => {
            eprintln!("programs: {reason}");
            ExitCode::FAILURE
        }
    }
}
