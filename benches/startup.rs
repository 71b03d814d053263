//! What the loader itself costs: from exec to the first instruction of the program, beside the system's ld.so.
//!
//! Each program is copied and the copy's first instructions replaced by `exit_group`, so that mapping, relocation, sealing
//! and constructors are in and `main` is out. The copy is started under the system's loader and under `ld-seal.so`
//! in alternation, and every start is compared with its neighbour: load on the machine hits both alike.
//!
//! ```text
//! cargo bench --bench startup                          a table
//! cargo bench --bench startup -- --json                everything measured, as JSON on stdout
//! cargo bench --bench startup -- --rounds 20 git gdb   fewer rounds, chosen programs
//! ```

mod measure;

use conformance::Loader;
use measure::patched::{self, Program};
use measure::rounds::{self, Group, Limits};
use measure::{report, spawn};
use std::error::Error;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

/// Programs of one to about sixty libraries.
const PROGRAMS: [&str; 6] = ["true", "python3", "git", "curl", "perf", "gdb"];

/// What all programs together may take.
const TIME: Duration = Duration::from_secs(150);

struct Options {
    json: bool,
    rounds: usize,
    programs: Vec<String>,
}

fn main() -> ExitCode {
    match options().and_then(|options| run(&options)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("startup: {error}");
            ExitCode::FAILURE
        }
    }
}

fn options() -> Result<Options, Box<dyn Error>> {
    let mut options = Options { json: false, rounds: 150, programs: Vec::new() };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        match word.as_str() {
            // What `cargo bench` adds.
            "--bench" => {}
            "--json" => options.json = true,
            "--rounds" => options.rounds = words.next().ok_or("--rounds needs a number")?.parse()?,
            _ if word.starts_with('-') => return Err(format!("unknown option {word}").into()),
            _ => options.programs.push(word),
        }
    }
    if options.programs.is_empty() {
        options.programs = PROGRAMS.map(String::from).to_vec();
    }
    Ok(options)
}

/// Says whether all that could be measured was.
fn run(options: &Options) -> Result<bool, Box<dyn Error>> {
    let loader = Loader::under_test(option_env!("LDSEAL_INTERPRETER"), env!("CARGO_BIN_EXE_ldseal"))?;
    let scratch = Path::new(env!("CARGO_TARGET_TMPDIR")).join("startup");
    std::fs::create_dir_all(&scratch)?;
    let floor = rounds::floor(&patched::nothing(&scratch)?, options.rounds)?;
    let (mut groups, mut complete) = (Vec::new(), true);
    let limits = Limits { rounds: options.rounds, time: TIME / (2 * options.programs.len() as u32) };
    for name in &options.programs {
        let program = match Program::prepare(name, &scratch, &loader.interpreter) {
            Ok(program) => program,
            Err(reason) => {
                eprintln!("startup: SKIPPED {name}: {reason}");
                continue;
            }
        };
        for way in spawn::Way::ALL {
            match Group::measure(&program, way, &loader.interpreter, floor.median, limits) {
                Ok(group) => groups.push(group),
                Err(reason) => {
                    eprintln!("startup: FAILED {name} {}: {reason}", way.word());
                    complete = false;
                }
            }
        }
    }
    match options.json {
        true => println!("{}", report::json(&floor, &groups)),
        false => println!("{}", report::table(&floor, &groups)),
    }
    Ok(complete)
}
