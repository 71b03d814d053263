//! A program attacks its own mappings under the loader, and the kernel is made to refuse seals.
//!
//! * [`stage`]: the programs of `fixtures/sealing`, and how they are started.
//! * [`rules`]: what must be sealed and what must stay open, by level and tunables.
//! * [`acceptance`]: the acceptance test of glibc's sealing patches, re-told.
//! * [`audited`]: what audit modules bring in.
//! * [`call`]: mseal for programs.
//! * [`exceptions`]: what people need to stay open, and what asks to be sealed.
//! * [`namespaces`]: what dlmopen brings in.
//! * [`refusals`]: seccomp filters.
//! * [`each`]: each single seal refused.
//! * [`pressure`]: as many mappings as the kernel allows.
//! * [`siege`]: every call on every sealed mapping, against a table.
//! * [`tunables`]: which level a string asks for.
//! * [`calls`]: how often and when mseal is called.

mod acceptance;
mod audited;
mod call;
mod calls;
mod each;
mod exceptions;
mod late;
mod namespaces;
mod pressure;
mod refusals;
mod rules;
mod siege;
mod stage;
mod tunables;

use conformance::attack::mseal;
use conformance::{suite, Loader, Way};
use libtest_mimic::{Completion, Trial};
use rules::Expected;
use stage::{Stage, Wish};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

/// One check: `Err` is what is wrong.
pub type Check = fn(&Stage, Way) -> Result<(), String>;

/// The ways in which the kernel or a command line starts the loader.
const WAYS: [Way; 2] = [Way::Interp, Way::Invoke];

/// How many of [`ATTACKS`], from the first, are tried with `ldseal run` too, which starts the loader in the second way.
const LAUNCHED: usize = 3;

fn main() -> ExitCode {
    suite::prepare();
    match trials() {
        Ok(trials) => suite::run(trials),
        Err(reason) => {
            eprintln!("sealing: {reason}");
            ExitCode::FAILURE
        }
    }
}

fn trials() -> Result<Vec<Trial>, String> {
    let loader = Loader::under_test(option_env!("LDSEAL_INTERPRETER"), env!("CARGO_BIN_EXE_ldseal"))?;
    let stage = Arc::new(Stage::build(loader, &Path::new(env!("CARGO_TARGET_TMPDIR")).join("sealing"))?);
    let kernel = mseal::probe();
    let unfit = pressure::unfit();
    let mut trials = Vec::new();
    for (index, (name, check)) in checks().into_iter().enumerate() {
        for way in WAYS.into_iter().chain((index < LAUNCHED).then_some(Way::Run)) {
            let stage = Arc::clone(&stage);
            let unfit = unfit.clone().filter(|_| pressure::CHECKS.iter().any(|check| check.0 == name));
            trials.push(Trial::ignorable_test(format!("{name} {way}"), move || match kernel {
                Ok(()) if way == Way::Run && !stage.has_launcher() => {
                    Ok(Completion::ignored_with("there is no launcher to test"))
                }
                Ok(()) if unfit.is_some() => Ok(Completion::ignored_with(unfit.unwrap_or_default())),
                Ok(()) => check(&stage, way).map(|()| Completion::Completed).map_err(Into::into),
                Err(errno) => {
                    Ok(Completion::ignored_with(format!("this kernel does not seal: mseal fails with {errno}")))
                }
            }));
        }
    }
    Ok(trials)
}

fn checks() -> Vec<(&'static str, Check)> {
    let own = [ATTACKS, call::CHECKS, calls::CHECKS, late::CHECKS, exceptions::CHECKS, namespaces::CHECKS].concat();
    let refused = [refusals::CHECKS, each::CHECKS, pressure::CHECKS].concat();
    [own, refused, [audited::CHECKS, siege::CHECKS, tunables::CHECKS].concat()].concat()
}

const ATTACKS: &[(&str, Check)] = &[
    ("level 0 leaves everything open", |s, w| attacked(s, w, "attack", "glibc.rtld.seal=0", &[], Expected::NOTHING)),
    ("level 1 seals what is read-only", |s, w| attacked(s, w, "attack", "glibc.rtld.seal=1", &[], Expected::LEVEL_1)),
    ("level 2 seals data too", |s, w| attacked(s, w, "attack", "glibc.rtld.seal=2", &[], Expected::LEVEL_2)),
    ("level 1 without PIE", |s, w| attacked(s, w, "attack-no-pie", "glibc.rtld.seal=1", &[], Expected::LEVEL_1)),
    ("level 2 without PIE", |s, w| attacked(s, w, "attack-no-pie", "glibc.rtld.seal=2", &[], Expected::LEVEL_2)),
    ("level 1 with holes", |s, w| attacked(s, w, "attack-holes", "glibc.rtld.seal=1", &[], Expected::LEVEL_1)),
    ("level 2 with holes", |s, w| attacked(s, w, "attack-holes", "glibc.rtld.seal=2", &[], Expected::LEVEL_2)),
    ("level 2 with holes, without PIE", |s, w| {
        attacked(s, w, "attack-holes-no-pie", "glibc.rtld.seal=2", &[], Expected::LEVEL_2)
    }),
    ("level 2 bound lazily by wish", |s, w| attacked(s, w, "attack-lazy", "glibc.rtld.seal=2", &[], Expected::LEVEL_2)),
    ("ldseal.data=1 at level 1", |s, w| {
        attacked(s, w, "attack", "glibc.rtld.seal=1:ldseal.data=1", &[], Expected::LEVEL_2)
    }),
    ("ldseal.data=0 at level 2", |s, w| {
        attacked(s, w, "attack", "glibc.rtld.seal=2:ldseal.data=0", &[], Expected::LEVEL_1)
    }),
    ("ldseal.data=auto at level 1", |s, w| {
        attacked(s, w, "attack", "ldseal.data=1:ldseal.data=auto", &[], Expected::LEVEL_1)
    }),
    ("ldseal.data=1 at level 0", |s, w| {
        attacked(s, w, "attack", "glibc.rtld.seal=0:ldseal.data=1", &[], Expected::NOTHING)
    }),
    ("ldseal.vdso=0 at level 1", |s, w| {
        attacked(s, w, "attack", "ldseal.vdso=0", &[], Expected { vdso: false, ..Expected::LEVEL_1 })
    }),
    ("ldseal.vdso=0 at level 2", |s, w| {
        attacked(s, w, "attack", "glibc.rtld.seal=2:ldseal.vdso=0", &[], Expected { vdso: false, ..Expected::LEVEL_2 })
    }),
    ("ldseal.exclude at level 1", |s, w| {
        attacked(
            s,
            w,
            "attack",
            "ldseal.exclude=libneeded.*",
            &[],
            Expected { excluded: &["libneeded.so"], ..Expected::LEVEL_1 },
        )
    }),
    ("ldseal.exclude at level 2", |s, w| {
        let excluded = &["libneeded.so", "libpreloaded.so"];
        let expected = Expected { excluded, ..Expected::LEVEL_2 };
        attacked(s, w, "attack", "glibc.rtld.seal=2:ldseal.exclude=*/lib*[de]ed.so", &[], expected)
    }),
    ("a plugin stays open at level 1", |s, w| {
        attacked(s, w, "attack", "glibc.rtld.seal=1", &["open", "./libplugin.so"], Expected::LEVEL_1)
    }),
    ("a plugin stays open at level 2", |s, w| {
        attacked(s, w, "attack", "glibc.rtld.seal=2", &["open", "./libplugin.so"], Expected::LEVEL_2)
    }),
    ("a closed plugin is gone at level 2", |s, w| {
        let table = s.table(w, &Wish::new("attack", "glibc.rtld.seal=2", &["shut", "./libplugin.so"]))?;
        match table.regions.iter().find(|a| a.region.name.contains("libplug")) {
            None => Ok(()),
            Some(left) => Err(format!("still mapped: {}", left.told())),
        }
    }),
    ("the acceptance test of glibc's patches", acceptance::check),
];

/// Starts a program of the stage and compares what it found with what is expected.
fn attacked(
    stage: &Stage,
    way: Way,
    program: &'static str,
    tunables: &str,
    arguments: &'static [&'static str],
    expected: Expected,
) -> Result<(), String> {
    let table = stage.table(way, &Wish::new(program, tunables, arguments))?;
    let violations = rules::violations(&table, &expected, stage.interpreter_name());
    match violations.is_empty() {
        true => Ok(()),
        false => Err(violations.join("\n")),
    }
}
