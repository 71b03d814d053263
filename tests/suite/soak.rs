//! Many threads for a long time: no crash, no lost value; ten thousand dlopens leave no more behind than one thousand; and signal handlers
//! and what they interrupt find the same thread-local variables.
//!
//! `LDSEAL_SOAK_SECONDS` makes the threads run for that long at each level, instead of the number of rounds that a short test takes.

use conformance::loader::Start;
use conformance::process::Ending;
use conformance::{build, interp, suite, Level, Loader, Way};
use libtest_mimic::Trial;
use std::env;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

/// Rounds of each of the eight threads, when no time is given.
const ROUNDS: u64 = 5_000;
const CYCLES: u64 = 10_000;
/// Longer than a machine under load takes for the rounds or the cycles.
const PATIENCE: u64 = 120;

struct Bench {
    loader: Loader,
    tree: PathBuf,
    replaced: PathBuf,
    seconds: u64,
}

fn main() -> ExitCode {
    suite::prepare();
    match trials() {
        Ok(trials) => suite::run(trials),
        Err(reason) => {
            eprintln!("soak: {reason}");
            ExitCode::FAILURE
        }
    }
}

fn trials() -> Result<Vec<Trial>, String> {
    let loader = Loader::under_test(option_env!("LDSEAL_INTERPRETER"), env!("CARGO_BIN_EXE_ldseal"))?;
    let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).join("soak");
    let [tree, replaced] = ["tree", "replaced"].map(|name| suite::scratch(&cache, name));
    let (tree, replaced) = (tree?, replaced?);
    build_tree(&tree)?;
    // The scratch folder exists already, and a copied tree must not.
    std::fs::remove_dir(&replaced).map_err(|e| format!("{}: {e}", replaced.display()))?;
    interp::replaced_tree(&tree, &replaced, &loader.interpreter).map_err(|e| format!("{}: {e}", replaced.display()))?;
    let seconds = match env::var("LDSEAL_SOAK_SECONDS") {
        Ok(text) => text.parse().map_err(|_| format!("LDSEAL_SOAK_SECONDS={text} is no number of seconds"))?,
        Err(_) => 0,
    };
    let bench = Arc::new(Bench { loader, tree, replaced, seconds });
    let mut trials = Vec::new();
    for level in (0..=2).map(Level) {
        for program in ["soak", "soak-now"] {
            let bench = Arc::clone(&bench);
            trials.push(Trial::test(format!("threads {program} {level}"), move || Ok(bench.threads(program, level)?)));
        }
        let [cycles, bench] = [Arc::clone(&bench), Arc::clone(&bench)];
        trials.push(Trial::test(format!("cycles {level}"), move || Ok(cycles.cycles(level)?)));
        trials.push(Trial::test(format!("handlers {level}"), move || Ok(bench.handlers(level)?)));
    }
    Ok(trials)
}

fn build_tree(tree: &Path) -> Result<(), String> {
    let sources = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/soak"));
    let library = |name: &str, flags: &[&str]| {
        let out = format!("lib{name}.so");
        let (soname, name) = (format!("-Wl,-soname,{out}"), format!("-DNAME={name}"));
        let fixed = [name.as_str(), &soname, "-Wl,-z,lazy", "-Wl,-rpath,$ORIGIN"];
        build::compile(tree, &out, &sources.join("library.cc"), &[&fixed, flags].concat())
    };
    let initial = "-DTLS_MODEL=__attribute__((tls_model(\"initial-exec\")))";
    library("here", &["-DTLS_MODEL="])?;
    library("general", &["-DTLS_MODEL="])?;
    library("initial", &[initial])?;
    library("descriptor", &["-DTLS_MODEL=", "-mtls-dialect=gnu2"])?;
    library("forked", &["-DTLS_MODEL=", "-Wl,--no-as-needed", "-lm"])?;
    library("needing", &["-DTLS_MODEL=", "-Wl,--no-as-needed", "./libgeneral.so", "-lm"])?;
    let program = ["-pthread", "./libhere.so", "-Wl,-rpath,$ORIGIN"];
    build::compile(tree, "soak", &sources.join("soak.cc"), &[&program[..], &["-Wl,-z,lazy"]].concat())?;
    build::compile(tree, "soak-now", &sources.join("soak.cc"), &[&program[..], &["-Wl,-z,now"]].concat())?;
    build_handlers(tree)
}

/// The fixture `tls/signal-handlers`, with copies of one library.
fn build_handlers(tree: &Path) -> Result<(), String> {
    let sources = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/tls/signal-handlers"));
    build::compile(tree, "libvalue1.so", &sources.join("lib.c"), &["-DNUMBER=1"])?;
    let names = (2..=40).map(|n| format!("libvalue{n}.so")).chain((1..=8).map(|n| format!("libpassing{n}.so")));
    for name in names {
        std::fs::copy(tree.join("libvalue1.so"), tree.join(&name)).map_err(|e| format!("{name}: {e}"))?;
    }
    let allocator = sources.join("allocator.c");
    build::compile(tree, "handlers", &sources.join("main.c"), &["-pthread", &allocator.to_string_lossy()])
}

/// What a process holds.
#[derive(Debug, Clone, Copy)]
struct Held {
    /// KiB of memory.
    rss: i64,
    mappings: i64,
    descriptors: i64,
}

impl Bench {
    fn start(&self, tree: &Path, program: &str, args: &[&str]) -> Start {
        let mut start = Start::new(tree.join(program), tree);
        start.args = args.iter().map(ToString::to_string).collect();
        start.limit = Duration::from_secs(PATIENCE + self.seconds);
        start
    }

    fn threads(&self, program: &str, level: Level) -> Result<(), String> {
        let (rounds, seconds) = (ROUNDS.to_string(), self.seconds.to_string());
        let start = self.start(&self.replaced, program, &["threads", &rounds, &seconds]);
        let outcome = start.tested(&self.loader, Way::Interp, level).map_err(|e| e.to_string())?;
        let (stdout, stderr) = (String::from_utf8_lossy(&outcome.stdout), String::from_utf8_lossy(&outcome.stderr));
        match outcome.ending {
            Ending::Exit(0) if stdout.starts_with("good:") && stderr.is_empty() => {
                println!("{program} {level}: {}", stdout.trim());
                Ok(())
            }
            ending => Err(format!("{ending}\nstdout: {stdout}stderr: {stderr}")),
        }
    }

    /// Stricter than the fixture: glibc may give a thread two blocks of one module, one to the handler and one to what it has interrupted.
    fn handlers(&self, level: Level) -> Result<(), String> {
        let start = self.start(&self.replaced, "handlers", &["strictly"]);
        let outcome = start.tested(&self.loader, Way::Interp, level).map_err(|e| e.to_string())?;
        let stdout = String::from_utf8_lossy(&outcome.stdout);
        match outcome.ending {
            Ending::Exit(0) if stdout == "60 threads, 40 variables\n" => Ok(()),
            ending => Err(format!("{ending}: {stdout}{}", String::from_utf8_lossy(&outcome.stderr))),
        }
    }

    fn cycles(&self, level: Level) -> Result<(), String> {
        let number = CYCLES.to_string();
        let args = ["cycles", number.as_str()];
        let failed = |e: std::io::Error| e.to_string();
        // How many arenas the threads' malloc makes, two mappings each, is a matter of chance under either loader.
        let start = |tree| {
            let mut start = self.start(tree, "soak", &args);
            start.env.insert("MALLOC_ARENA_MAX".to_string(), "1".to_string());
            start
        };
        let reference = start(&self.tree).reference(Way::Interp, level).map_err(failed)?;
        let tested = start(&self.replaced).tested(&self.loader, Way::Interp, level);
        let [theirs, ours] = [reference, tested.map_err(failed)?].map(|outcome| match outcome.ending {
            Ending::Exit(0) => measured(&String::from_utf8_lossy(&outcome.stdout)),
            ending => Err(format!("{ending}: {}", String::from_utf8_lossy(&outcome.stdout))),
        });
        let (theirs, ours) = (theirs?, ours?);
        println!("{level}: {ours:?}, the system's loader: {theirs:?}");
        let grown = |[before, after]: [Held; 2]| {
            [after.rss - before.rss, after.mappings - before.mappings, after.descriptors - before.descriptors]
        };
        let [rss, mappings, descriptors] = grown(ours);
        let [their_rss, their_mappings, their_descriptors] = grown(theirs);
        let one_in_a_hundred = |held: i64, theirs: i64| (held / 100).max(theirs);
        match rss <= one_in_a_hundred(ours[0].rss, their_rss)
            && mappings <= one_in_a_hundred(ours[0].mappings, their_mappings)
            && descriptors <= one_in_a_hundred(ours[0].descriptors, their_descriptors)
        {
            true => Ok(()),
            false => Err(format!("growth from cycle 1,000 to 10,000: {ours:?}, the system's loader: {theirs:?}")),
        }
    }
}

/// At a tenth of the cycles and at their end.
fn measured(stdout: &str) -> Result<[Held; 2], String> {
    let at = |when: &str| {
        let line = stdout.lines().find_map(|l| l.strip_prefix(when))?;
        let mut numbers = line.split_whitespace().filter_map(|word| word.parse().ok());
        Some(Held { rss: numbers.next()?, mappings: numbers.next()?, descriptors: numbers.next()? })
    };
    match (at("tenth:"), at("end:")) {
        (Some(tenth), Some(end)) => Ok([tenth, end]),
        _ => Err(format!("not measured: {stdout}")),
    }
}
