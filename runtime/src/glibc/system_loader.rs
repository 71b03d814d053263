//! The system's ld.so, for tests that compare with it.

use std::process::Command;
use std::string::String;

const LOADER: &str = "/lib64/ld-linux-x86-64.so.2";

/// What the system's ld.so prints when run with one option and an environment of nothing but these variables.
pub fn run(option: &str, environment: &[(&str, &str)]) -> String {
    let mut command = Command::new(LOADER);
    command.arg(option).env_clear().envs(environment.iter().copied());
    let output = command.output().expect("the system's ld.so");
    assert!(output.status.success(), "{LOADER} {option}: {}", output.status);
    String::from_utf8(output.stdout).expect("text")
}

/// Whether the system's ld.so is of the release that is compared with. If it isn't, says that `test` is skipped.
pub fn is_glibc_2_36(test: &str) -> bool {
    let is = std::path::Path::new(LOADER).exists()
        && run("--list-diagnostics", &[]).lines().any(|line| line == "version.version=\"2.36\"");
    if !is {
        std::eprintln!("SKIPPED {test}: {LOADER} is not glibc 2.36");
    }
    is
}
