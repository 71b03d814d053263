//! What a lazily bound function costs at its first call, beside the system's ld.so.
//!
//! A program calls each of 2,000 functions of a generated library twice and measures both passes: the first binds, the second does
//! not, and their difference is the loader's. It is started under the system's loader and under `ld-seal.so` in alternation, and each
//! start is compared with its neighbour. At level 2 functions are bound at start-up, so there is nothing to measure.
//!
//! ```text
//! cargo bench --bench first_call                  a table
//! cargo bench --bench first_call -- --rounds 20   fewer rounds
//! ```

use conformance::{build, interp, Loader};
use std::error::Error;
use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::process::{Command, ExitCode};

const FUNCTIONS: usize = 2000;
const LEVELS: [u8; 2] = [0, 1];

fn main() -> ExitCode {
    match rounds().and_then(run) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("first_call: {error}");
            ExitCode::FAILURE
        }
    }
}

fn rounds() -> Result<usize, Box<dyn Error>> {
    let mut rounds = 100;
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        match word.as_str() {
            // What `cargo bench` adds.
            "--bench" => {}
            "--rounds" => rounds = words.next().ok_or("--rounds needs a number")?.parse()?,
            _ => return Err(format!("unknown word {word}").into()),
        }
    }
    Ok(rounds.max(1))
}

fn run(rounds: usize) -> Result<(), Box<dyn Error>> {
    let loader = Loader::under_test(option_env!("LDSEAL_INTERPRETER"), env!("CARGO_BIN_EXE_ldseal"))?;
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("first_call");
    fs::create_dir_all(&folder)?;
    build_program(&folder)?;
    // Both are copies, so that they differ by nothing but the name of the interpreter.
    let (system, tested) = (folder.join("system"), folder.join("tested"));
    fs::copy(folder.join("program"), &system)?;
    interp::replaced_copy(&folder.join("program"), &tested, &loader.interpreter)?;
    println!(
        "nanoseconds for the first call of one of {FUNCTIONS} functions: medians of {rounds} neighbouring starts\n"
    );
    println!("level  system  ld-seal.so  ratio      min..max");
    for level in LEVELS {
        let (mut theirs, mut ours, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..rounds {
            theirs.push(first_call(&system, level)?);
            ours.push(first_call(&tested, level)?);
            ratios.push(ours[ours.len() - 1] / theirs[theirs.len() - 1]);
        }
        let (ratio, min, max) = (median(&mut ratios), ratios[0], ratios[ratios.len() - 1]);
        let (theirs, ours) = (median(&mut theirs), median(&mut ours));
        println!("{level:>5}  {theirs:>6.0}  {ours:>10.0}  {ratio:>5.2}  {min:>6.2}..{max:.2}");
    }
    Ok(())
}

/// The middle of the values, which are in order afterwards.
fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Nanoseconds for one function, in one start.
fn first_call(program: &Path, level: u8) -> Result<f64, Box<dyn Error>> {
    let environment = [("PATH", "/usr/bin:/bin".into()), ("GLIBC_TUNABLES", format!("glibc.rtld.seal={level}"))];
    let output = Command::new(program).env_clear().envs(environment).output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let numbers: Vec<f64> = text.split_whitespace().map(str::parse).collect::<Result<_, _>>()?;
    match numbers[..] {
        [first, second] if output.status.success() && first > second => Ok((first - second) / FUNCTIONS as f64),
        _ => {
            Err(format!("{}: {}: {text}{}", program.display(), output.status, String::from_utf8_lossy(&output.stderr))
                .into())
        }
    }
}

fn build_program(folder: &Path) -> Result<(), Box<dyn Error>> {
    let (mut library, mut program) = (String::new(), String::from("#include <stdio.h>\n#include <time.h>\n"));
    let mut calls = String::new();
    for n in 0..FUNCTIONS {
        writeln!(library, "int function_number_{n}(int x) {{ return x + {n}; }}")?;
        writeln!(program, "extern int function_number_{n}(int);")?;
        writeln!(calls, "    x = function_number_{n}(x) & 0xffff;")?;
    }
    program += "static long now(void) {\n    struct timespec t;\n    clock_gettime(CLOCK_MONOTONIC, &t);\n";
    program += "    return t.tv_sec * 1000000000L + t.tv_nsec;\n}\n";
    program += "__attribute__((noinline)) static int call_all(int x) {\n";
    program += &calls;
    program += "    return x;\n}\nint main(void) {\n    long start = now();\n    int x = call_all(1);\n    long middle = now();\n";
    program +=
        "    int y = call_all(1);\n    long end = now();\n    printf(\"%ld %ld\\n\", middle - start, end - middle);\n";
    program += "    return x != y;\n}\n";
    let (sources, flags) = ([folder.join("library.c"), folder.join("program.c")], ["-O1", "-Wl,-z,lazy"]);
    fs::write(&sources[0], library)?;
    fs::write(&sources[1], program)?;
    build::compile(folder, "libfunctions.so", &sources[0], &[&flags[..], &["-Wl,-soname,libfunctions.so"]].concat())?;
    let needed = ["./libfunctions.so", "-Wl,-rpath,$ORIGIN"];
    Ok(build::compile(folder, "program", &sources[1], &[&flags[..], &needed].concat())?)
}
