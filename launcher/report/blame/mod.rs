//! `ldseal report --blame`: a program runs to its end, and the calls that its seals have refused are listed.
//!
//! * [`spawn`] starts the program with a filter, [`filter`], that stops it at the calls in question only.
//! * [`trace`] follows it and all that it starts; [`signals`] says what signals to this process are for.
//! * [`calls`] knows what the calls mean, [`space`] the memory that they are about, [`unwind`] and [`symbols`] who made them.
//! * [`collector`] puts equal ones together, [`remedy`] says what helps.
//! * [`model`] is the result as data, [`render`] prints it.

// Lists of address ranges often have one element, and it is the range that is meant.
#![allow(clippy::single_range_in_vec_init)]

mod calls;
mod collector;
mod filter;
mod model;
mod remedy;
mod render;
mod signals;
mod space;
mod spawn;
mod symbols;
mod trace;
mod unwind;

use super::collect;
use super::stopped::Failure;
use super::FAILURE;
use crate::cli::BlameArguments;
use crate::{interpreter, run, sys};
use collector::{Circumstances, Collector};
use loader::seal::tunables::SealLevel;
use model::{Blame, Ending};
use std::fs::File;
use std::io::{self, Write};
use trace::End;

/// Runs a program and reports what it was refused; returns its exit status. If a signal has killed it, the same kills this process.
pub fn blame(arguments: &BlameArguments) -> u8 {
    match run(arguments) {
        Ok(Some(End::Status(status))) => status as u8,
        Ok(Some(End::Signal(signal))) => {
            sys::die_of(signal);
            128u8.wrapping_add(signal as u8)
        }
        Ok(None) => FAILURE,
        Err(failure) => {
            eprintln!("ldseal: {}", failure.message);
            failure.status
        }
    }
}

fn run(arguments: &BlameArguments) -> Result<Option<End>, Failure> {
    let start = run::resolve(&arguments.start.program, &arguments.start.arguments)
        .map_err(|refusal| Failure::new(refusal.status, refusal.to_string()))?;
    let failed = |what: &str, error: io::Error| Failure::new(FAILURE, format!("{what}: {}", run::error_text(&error)));
    let mut output: Box<dyn Write> = match &arguments.output {
        None => Box::new(io::stderr()),
        Some(path) => Box::new(File::create(path).map_err(|error| failed(&path.to_string_lossy(), error))?),
    };
    let kernel = collect::kernel().map_err(|error| failed("/proc/self/smaps", error))?;
    let started = spawn::spawn(&interpreter::arguments(&start, arguments.start.level))?;
    let mut collector = Collector::new(Circumstances {
        program: started.process.as_raw().unsigned_abs(),
        path: interpreter::program_name(&start).to_string_lossy().into_owned(),
        level: arguments.start.level,
        kernel,
        tells_seals: sys::smaps_tells_seals(),
    });
    let end = trace::follow(&started, &mut collector).map_err(|error| failed("waiting for the program", error))?;
    if !collector.started() {
        return Ok(end);
    }
    let (level, level_source) = collector.level();
    let command = start.argv.iter().map(|word| word.to_string_lossy().into_owned()).collect();
    let blame = Blame {
        version: model::VERSION,
        command,
        level: level.map(SealLevel::number),
        level_source,
        ended: end.map(Ending::from),
        calls: collector.calls,
        refused: collector.refused,
        unsealed: collector.unsealed.into_iter().collect(),
    };
    let text = if arguments.json { render::json(&blame) } else { render::text(&blame) };
    output.write_all(text.as_bytes()).map_err(|error| failed("the report can't be written", error))?;
    Ok(end)
}
