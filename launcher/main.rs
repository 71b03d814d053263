//! `ldseal`: starts programs under the sealing loader `ld-seal.so`, and shows what is sealed in a process.
//!
//! * [`cli`] turns the command line into a [`cli::Command`].
//! * [`run`] decides what a direct start would run, refuses what can't be sealed, and becomes the interpreter.
//! * [`plan`] says what a start would map and seal, and runs nothing.
//! * [`report`] looks at a live process and says what is sealed.
//! * [`mark`] writes the note by which a file opts out of sealing.
//! * [`conform`] compares a loader with glibc's.
//! * [`interpreter`] knows where the interpreter is.
#![cfg_attr(not(test), no_main)]

mod cli;
mod conform;
mod elf;
mod interpreter;
mod mark;
mod plan;
mod report;
mod run;
mod sys;

use std::ffi::{c_char, c_int, OsString};

/// Exit status of a command line that makes no sense.
const EXIT_USAGE: u8 = 2;

/// The entry point that C's start-up code calls, instead of Rust's: that one ignores SIGPIPE and opens closed standard
/// descriptors, and the program that this process becomes would inherit both.
#[cfg_attr(not(test), unsafe(no_mangle))]
#[cfg_attr(test, allow(dead_code))]
extern "C" fn main(_argc: c_int, _argv: *const *const c_char) -> c_int {
    env_logger::Builder::from_default_env().format_timestamp(None).init();
    // glibc hands argc and argv to constructors too, and that is where std keeps its copy.
    c_int::from(ldseal(std::env::args_os().skip(1).collect()))
}

/// Does what the arguments ask for; returns the exit status.
fn ldseal(arguments: Vec<OsString>) -> u8 {
    match cli::parse(arguments) {
        Ok(cli::Command::Help(text)) => print(text),
        Ok(cli::Command::Version) => print(concat!("ldseal ", env!("CARGO_PKG_VERSION"), "\n")),
        Ok(cli::Command::Run(arguments)) => {
            let refusal = run::run(&arguments);
            eprintln!("ldseal: {refusal}");
            refusal.status
        }
        Ok(cli::Command::Plan(arguments)) => plan::plan(&arguments),
        Ok(cli::Command::Mark(arguments)) => mark::mark(&arguments),
        Ok(cli::Command::Report(arguments)) => report::report(&arguments),
        Ok(cli::Command::Conform(arguments)) => conform::conform(&arguments),
        Err(error) => {
            eprintln!("ldseal: {error}\nTry 'ldseal --help' for more information.");
            EXIT_USAGE
        }
    }
}

fn print(text: &str) -> u8 {
    use std::io::Write;
    match std::io::stdout().write_all(text.as_bytes()) {
        Ok(()) => 0,
        Err(error) => {
            eprintln!("ldseal: standard output: {error}");
            1
        }
    }
}
