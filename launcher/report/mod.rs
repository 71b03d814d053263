//! `ldseal report`: what is sealed in a process, per object and per region, and why the rest is not.
//!
//! * [`smaps`] reads the mappings, [`image`] what files say about their memory, [`process`] the rest of `/proc/PID`.
//! * [`objects`] brings mappings and files together.
//! * [`reason`] says why something is not sealed.
//! * [`model`] is the report as data, [`collect`] fills it in, [`render`] prints it.
//! * [`stopped`] starts a program and stops it at its entry point.
#![deny(unsafe_code)]

mod collect;
mod image;
mod model;
mod objects;
mod process;
mod reason;
mod render;
mod smaps;
mod stopped;

use crate::cli::{ReportArguments, ReportOf};
use process::Process;
use std::io::{self, Write};

/// Exit status when a process can't be looked at.
const FAILURE: u8 = 1;

/// Reports on a process; returns the exit status.
pub fn report(arguments: &ReportArguments) -> u8 {
    match &arguments.of {
        ReportOf::Process(pid) => show(arguments.json, collect::collect(&Process { pid: *pid }, None), *pid),
        ReportOf::Program(start) => match stopped::start(start) {
            Ok(stopped) => {
                let pid = stopped.pid();
                show(arguments.json, collect::collect(&Process { pid }, Some(start.level)), pid)
            }
            Err(failure) => {
                eprintln!("ldseal: {}", failure.message);
                failure.status
            }
        },
    }
}

fn show(json: bool, report: io::Result<model::Report>, pid: u32) -> u8 {
    let text = match report {
        Ok(report) if json => render::json(&report),
        Ok(report) => render::tables(&report),
        Err(error) => {
            let reason = match error.kind() {
                io::ErrorKind::NotFound => "no such process".into(),
                _ => crate::run::error_text(&error),
            };
            eprintln!("ldseal: process {pid}: {reason}");
            return FAILURE;
        }
    };
    match io::stdout().write_all(text.as_bytes()) {
        Ok(()) => 0,
        Err(error) => {
            eprintln!("ldseal: standard output: {error}");
            FAILURE
        }
    }
}
