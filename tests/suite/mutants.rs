//! Whether the harness notices a broken loader: builds of `ld-seal.so` that break one rule each, which a case of the rule's own area must report.

use conformance::check::Bench;
use conformance::conform::{self, Outcome};
use conformance::{suite, Level, Loader};
use libtest_mimic::{Completion, Failed, Trial};
use loader::rule::{Rule, RULES, TEXT};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

fn folder() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("mutants")
}

fn main() -> ExitCode {
    suite::prepare();
    let sound = Trial::test("a build that breaks no rule", || Ok(sound_build()?));
    let broken = RULES
        .iter()
        .map(|&(rule, area, what)| Trial::ignorable_test(format!("{area}: not {what}"), move || noticed(rule, area)));
    suite::run([sound].into_iter().chain(broken).collect())
}

/// The loader that can break rules, with its bytes and the place of the byte that says which.
fn build() -> Result<(Vec<u8>, usize), String> {
    static BUILT: OnceLock<Result<(Vec<u8>, usize), String>> = OnceLock::new();
    BUILT.get_or_init(compile).clone()
}

fn compile() -> Result<(Vec<u8>, usize), String> {
    let target = folder().join("target");
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["build", "--release", "--package=runtime", "--bin=ld-seal", "--features=interpreter,mutants"]);
    cargo.arg("--manifest-path").arg(Path::new(ROOT).join("Cargo.toml")).arg("--target-dir").arg(&target);
    // Nothing is measured with it.
    cargo.envs([("CARGO_PROFILE_RELEASE_LTO", "off"), ("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "16")]);
    cargo.env("CARGO_ENCODED_RUSTFLAGS", "").env_remove("RUSTFLAGS");
    let output = cargo.output().map_err(|e| format!("{cargo:?}: {e}"))?;
    if !output.status.success() {
        return Err(format!("{cargo:?}:\n{}", String::from_utf8_lossy(&output.stderr)));
    }
    let path = target.join("release/ld-seal");
    let bytes = fs::read(&path).map_err(|e| format!("{}: {e}", path.display()))?;
    let places: Vec<usize> = (0..bytes.len() - TEXT.len()).filter(|&at| bytes[at..].starts_with(TEXT)).collect();
    match places.as_slice() {
        [at] => Ok((bytes, at + TEXT.len())),
        places => Err(format!("{}: the mark is there {} times", path.display(), places.len())),
    }
}

/// The loader that breaks this rule, or none.
fn loader(rule: Option<Rule>) -> Result<Loader, String> {
    let (mut bytes, at) = build()?;
    bytes[at] = rule.map_or(0, |rule| rule as u8 + 1);
    let interpreter = folder().join(rule.map_or("none".into(), |rule| format!("{rule:?}")));
    conformance::process::write_executable(&interpreter, &bytes)
        .and_then(|()| fs::set_permissions(&interpreter, fs::Permissions::from_mode(0o755)))
        .map_err(|e| format!("{}: {e}", interpreter.display()))?;
    Ok(Loader { interpreter, launcher: None })
}

/// The checks of an area, against a loader.
fn checks(loader: Loader, area: &str) -> Result<Vec<conform::Check>, String> {
    let cache = folder().join("cases");
    let bench = Arc::new(Bench::new(Loader::system(), loader, &[Level(1)], cache));
    let mut checks = conform::checks(&Path::new(ROOT).join("fixtures"), &bench)?;
    checks.retain(|check| check.area() == area);
    Ok(checks)
}

/// A switch that changes something by being there would be noticed for the wrong reason.
fn sound_build() -> Result<(), String> {
    let loader = loader(None)?;
    for area in ["symbols", "versions", "order", "search", "tls"] {
        let lock = area_lock(area);
        let _alone = lock.lock().unwrap_or_else(PoisonError::into_inner);
        for check in checks(loader.clone(), area)? {
            if let Outcome::Differed(differences) = check.run() {
                let what: String = differences.iter().map(|d| format!("{}:\n{}", d.place(), d.details())).collect();
                return Err(format!("{}: {what}", check.name));
            }
        }
    }
    Ok(())
}

/// Held while the cases of an area are built and run: what they are built in is theirs alone.
fn area_lock(area: &str) -> Arc<Mutex<()>> {
    static LOCKS: Mutex<BTreeMap<String, Arc<Mutex<()>>>> = Mutex::new(BTreeMap::new());
    let mut locks = LOCKS.lock().unwrap_or_else(PoisonError::into_inner);
    Arc::clone(locks.entry(area.to_string()).or_default())
}

fn noticed(rule: Rule, area: &str) -> Result<Completion, Failed> {
    let lock = area_lock(area);
    let _alone = lock.lock().unwrap_or_else(PoisonError::into_inner);
    let checks = checks(loader(Some(rule))?, area)?;
    let mut skipped = Vec::new();
    for check in &checks {
        match check.run() {
            Outcome::Differed(_) => return Ok(Completion::Completed),
            Outcome::Skipped(reason) => skipped.push(format!("{}: {reason}", check.name)),
            _ => {}
        }
    }
    match skipped.is_empty() {
        true => Err(format!("none of the {} checks of {area} differs", checks.len()).into()),
        false => {
            Ok(Completion::ignored_with(format!("what could notice it can't be run here: {}", skipped.join(", "))))
        }
    }
}
