//! `ldseal report`: what is sealed in a process, per object and per region, and why the rest is not.
//!
//! * [`smaps`] reads the mappings, [`image`] what files say about their memory, [`process`] the rest of `/proc/PID`.
//! * [`objects`] brings mappings and files together.
//! * [`memory`] finds objects that are copies in anonymous memory.
//! * [`verdict`] says whether a process is sealed as required, [`limits`] what seals don't stop on this kernel.
//! * [`reason`] says why something is not sealed.
//! * [`model`] is the report as data, [`collect`] fills it in, [`render`] prints it.
//! * [`stopped`] starts a program and stops it at its entry point.
//! * [`blame`] runs one to its end and lists the calls that its seals have refused.
#![deny(unsafe_code)]

mod blame;
mod collect;
mod image;
mod limits;
mod memory;
mod model;
mod objects;
mod process;
mod reason;
mod render;
mod smaps;
mod stopped;
mod verdict;

pub use image::Image;

use crate::cli::{ReportArguments, ReportOf};
use process::Process;
use std::io::{self, Write};

/// Exit status when a process can't be looked at.
const FAILURE: u8 = 1;
/// Exit status when it is not sealed as required.
const UNMET: u8 = 3;
/// Exit status when there is no right to look at it.
const FORBIDDEN: u8 = 4;

/// Reports on a process; returns the exit status.
pub fn report(arguments: &ReportArguments) -> u8 {
    match &arguments.of {
        ReportOf::Process(pid) => show(arguments, collect::collect(&Process { pid: *pid }, None), *pid),
        ReportOf::Blame(arguments) => blame::blame(arguments),
        ReportOf::Program(start) => match stopped::start(start) {
            Ok(stopped) => {
                let pid = stopped.pid();
                show(arguments, collect::collect(&Process { pid }, Some(start.level)), pid)
            }
            Err(failure) => {
                eprintln!("ldseal: {}", failure.message);
                failure.status
            }
        },
    }
}

fn show(arguments: &ReportArguments, report: io::Result<model::Report>, pid: u32) -> u8 {
    let report = match report {
        Ok(report) => report,
        Err(error) => {
            let (status, reason) = match error.kind() {
                io::ErrorKind::NotFound => (FAILURE, "no such process".into()),
                io::ErrorKind::PermissionDenied => (FORBIDDEN, Process { pid }.why_forbidden()),
                _ => (FAILURE, crate::run::error_text(&error)),
            };
            eprintln!("ldseal: process {pid}: {reason}");
            return status;
        }
    };
    let text = if arguments.json { render::json(&report) } else { render::tables(&report) };
    if let Err(error) = io::stdout().write_all(text.as_bytes()) {
        eprintln!("ldseal: standard output: {error}");
        return FAILURE;
    }
    match arguments.require {
        Some(requirement) if !report.verdict.meets(requirement) => {
            eprintln!("ldseal: process {pid}: not sealed as required ({requirement})");
            UNMET
        }
        _ => 0,
    }
}
