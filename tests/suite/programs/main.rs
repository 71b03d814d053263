//! Real programs of this system under `ld-seal.so`, compared with a direct start: a list of them with real work to do,
//! every library, opened and closed, and every dynamically linked file of /usr/bin and /usr/sbin with `--version` and `--help`.

mod inputs;
mod libraries;
mod listed;
mod sweep;

use conformance::{suite, Loader};
use libtest_mimic::Trial;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Where the programs' inputs and working directories go.
pub fn cache() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("programs")
}

fn trials(loader: &Loader) -> Vec<Trial> {
    [listed::trials(loader), sweep::trials(loader), libraries::trials(loader)].into_iter().flatten().collect()
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
