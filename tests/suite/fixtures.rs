//! Every case of `fixtures/` under the system's loader and under `ld-seal.so`, compared.

use conformance::{suite, Loader};
use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    suite::prepare();
    let fixtures = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures"));
    let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).join("conformance");
    let trials = Loader::under_test(option_env!("LDSEAL_INTERPRETER"), env!("CARGO_BIN_EXE_ldseal"))
        .and_then(|loader| suite::cases(fixtures, &cache, &loader));
    match trials {
        Ok(trials) => suite::run(trials),
        Err(reason) => {
            eprintln!("fixtures: {reason}");
            ExitCode::FAILURE
        }
    }
}
