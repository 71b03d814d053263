//! Every IFUNC of libc.so.6, libm.so.6 and libmvec.so.1 resolves to the implementation that it has under the system's loader.
//!
//! The program `fixtures/glibc/ifuncs.c` prints them as object+offset: all IRELATIVE slots and all exported IFUNC symbols. It is
//! started under both loaders, with the processor as it is and with features taken away or preferences set by tunables.

use conformance::compare::difference;
use conformance::loader::Start;
use conformance::process::{capture, Ending, Outcome};
use conformance::{interp, requirement, suite, Level, Loader, Way};
use libtest_mimic::{Completion, Failed, Trial};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

/// The libraries whose IFUNCs are compared.
const LIBRARIES: [&str; 3] = ["libc.so.6", "libm.so.6", "libmvec.so.1"];

/// Values of `glibc.cpu.hwcaps`. Names that a release or a processor does not know are ignored by glibc; that the values make
/// a difference at all is checked.
const HWCAPS: &[&str] = &[
    "-AVX2",
    "-AVX512F",
    "-AVX512VL",
    "-AVX512BW",
    "-AVX512DQ",
    "-AVX",
    "-BMI1",
    "-BMI2",
    "-ERMS",
    "-FSRM",
    "-FMA",
    "-FMA4",
    "-LZCNT",
    "-MOVBE",
    "-POPCNT",
    "-RTM",
    "-SSSE3",
    "-SSE4_1",
    "-SSE4_2",
    "-SSE2",
    "-XSAVE",
    "-XSAVEC",
    "-AVX2_Usable",
    "-AVX_Fast_Unaligned_Load",
    "AVX_Fast_Unaligned_Load",
    "Fast_Copy_Backward",
    "-Fast_Rep_String",
    "Fast_Unaligned_Copy",
    "-Fast_Unaligned_Load",
    "-Fast_Unaligned_Copy",
    "MathVec_Prefer_No_AVX512",
    "Prefer_ERMS",
    "Prefer_FSRM",
    "Prefer_No_VZEROUPPER",
    "-Prefer_No_VZEROUPPER",
    "Prefer_No_AVX512_Probing",
    "Prefer_PMINUB_for_stringop",
    "Slow_BSF",
    "Slow_SSE4_2",
    "-AVX2,-AVX512F,-AVX512VL,-ERMS,-FSRM",
    "-AVX512F,-AVX512VL,-FMA,Prefer_ERMS",
    "-SSE4_2,-SSE4_1,-AVX2,-SSSE3,Fast_Unaligned_Copy",
    "-AVX512VL,-AVX512BW,-RTM,Prefer_No_VZEROUPPER",
    "-AVX2,-BMI2,Slow_BSF,Nonsense,-",
];

fn main() -> ExitCode {
    suite::prepare();
    match Loader::under_test(option_env!("LDSEAL_INTERPRETER"), env!("CARGO_BIN_EXE_ldseal")) {
        Ok(loader) => suite::run(trials(&loader)),
        Err(reason) => {
            eprintln!("ifunc: {reason}");
            ExitCode::FAILURE
        }
    }
}

/// A check of one way in.
type Check = fn(&Program, &Loader, Way) -> Result<(), Failed>;

fn trials(loader: &Loader) -> Vec<Trial> {
    let checks: [(&str, Check); 3] =
        [("as it is", as_it_is), ("bound at once", bound_at_once), ("with hwcaps", with_hwcaps)];
    let trial = |way: Way, (name, check): (&'static str, Check)| {
        let loader = loader.clone();
        Trial::ignorable_test(format!("{name} {way}"), move || {
            if let Some(reason) = loader.missing(way).or_else(|| requirement::unmet("cc")) {
                return Ok(Completion::ignored_with(reason));
            }
            check(&Program::build(&loader, &format!("{name} {way}"))?, &loader, way)?;
            Ok(Completion::Completed)
        })
    };
    Way::ALL.into_iter().flat_map(|way| checks.map(|check| trial(way, check))).collect()
}

/// The built program, and a copy of it that names the interpreter under test.
struct Program {
    plain: PathBuf,
    replaced: PathBuf,
}

impl Program {
    fn build(loader: &Loader, name: &str) -> Result<Program, Failed> {
        let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).join("ifunc");
        let folder = suite::scratch(&cache, &name.replace(' ', "-"))?;
        let (plain, replaced) = (folder.join("plain"), folder.join("replaced"));
        fs::create_dir_all(&plain)?;
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/glibc/ifuncs.c");
        let mut command = Command::new("cc");
        command.args(["-O1", "-o", "ifuncs"]).arg(source);
        command.args(["-Wl,--no-as-needed", "-lm", "-l:libmvec.so.1"]).current_dir(&plain);
        let outcome = capture(&mut command, b"", Duration::from_secs(300))?;
        if outcome.ending != Ending::Exit(0) {
            return Err(String::from_utf8_lossy(&outcome.stderr).into_owned().into());
        }
        interp::replaced_tree(&plain, &replaced, &loader.interpreter)?;
        Ok(Program { plain, replaced })
    }

    /// What it prints under the system's loader and under the one under test, which must be the same.
    fn compare(&self, loader: &Loader, way: Way, env: &[(&str, &str)]) -> Result<Outcome, Failed> {
        let start = |folder: &Path| {
            let mut start = Start::new("./ifuncs", folder);
            start.args = LIBRARIES.map(String::from).into();
            start.env.extend(env.iter().map(|(name, value)| (name.to_string(), value.to_string())));
            start
        };
        let expected = start(&self.plain).reference(way, Level(1))?;
        let tested = start(if way == Way::Interp { &self.replaced } else { &self.plain });
        match difference(&expected, &tested.tested(loader, way, Level(1))?) {
            Some(difference) => Err(format!("{env:?}:\n{difference}").into()),
            None if expected.ending != Ending::Exit(0) => Err(format!("{env:?}: {}", expected.ending).into()),
            None => Ok(expected),
        }
    }
}

/// How many lines say something of `library` of this sort.
fn count(outcome: &Outcome, library: &str, sort: &str) -> usize {
    let head = format!("{library} {sort} ");
    String::from_utf8_lossy(&outcome.stdout).lines().filter(|line| line.starts_with(&head)).count()
}

/// A comparison of nothing would succeed too.
fn assert_counts(outcome: &Outcome, sorts: &[&str]) -> Result<(), Failed> {
    for library in LIBRARIES {
        for sort in sorts {
            let count = count(outcome, library, sort);
            log::info!("{library}: {count} {sort}");
            if count == 0 {
                return Err(format!("no {sort} IFUNC of {library} was compared").into());
            }
        }
    }
    Ok(())
}

fn as_it_is(program: &Program, loader: &Loader, way: Way) -> Result<(), Failed> {
    assert_counts(&program.compare(loader, way, &[])?, &["irelative", "exported"])
}

fn bound_at_once(program: &Program, loader: &Loader, way: Way) -> Result<(), Failed> {
    let outcome = program.compare(loader, way, &[("LD_BIND_NOW", "1")])?;
    assert_counts(&outcome, &["irelative", "exported", "bound"])
}

fn with_hwcaps(program: &Program, loader: &Loader, way: Way) -> Result<(), Failed> {
    let mut outputs = BTreeSet::new();
    let mut failures = String::new();
    for hwcaps in HWCAPS {
        let tunables = format!("glibc.cpu.hwcaps={hwcaps}");
        match program.compare(loader, way, &[("GLIBC_TUNABLES", &tunables)]) {
            Ok(outcome) => drop(outputs.insert(outcome.stdout)),
            Err(failure) => failures += failure.message().unwrap_or("failed"),
        }
    }
    match (failures.is_empty(), outputs.len()) {
        (false, _) => Err(failures.into()),
        // On any processor with AVX2 a dozen of them choose differently; on the simplest, SSE4.2 and the preferences do.
        (true, 0 | 1) => Err("no tunable changed any choice: nothing was compared".into()),
        (true, different) => {
            log::info!("{different} different sets of choices");
            Ok(())
        }
    }
}
