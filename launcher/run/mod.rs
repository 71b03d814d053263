//! `ldseal run`: becomes the interpreter, which runs what a direct start would have run.
#![deny(unsafe_code)]

mod find;
mod fitness;
mod privilege;
mod resolve;
mod shebang;

pub use find::text as error_text;
pub use resolve::{resolve, Start};

use crate::cli::RunArguments;
use crate::interpreter;
use std::ffi::OsString;
use std::fmt;

/// Why a program is not run, in the words and with the exit status of a shell.
#[derive(Debug, PartialEq, Eq)]
pub struct Refusal {
    /// 127 when there is no such program, 126 when there is but it can't be run.
    pub status: u8,
    subject: OsString,
    reason: String,
}

/// Exit status for a program that is there and can't be run (POSIX, "Exit Status for Commands").
pub const NOT_EXECUTABLE: u8 = 126;
/// Exit status for a program that is not there.
pub const NOT_FOUND: u8 = 127;

impl Refusal {
    fn new(status: u8, subject: impl Into<OsString>, reason: impl Into<String>) -> Refusal {
        Refusal { status, subject: subject.into(), reason: reason.into() }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.subject.to_string_lossy(), self.reason)
    }
}

/// Replaces this process by the program under the interpreter; returns only with the reason why that can't be.
pub fn run(arguments: &RunArguments) -> Refusal {
    let start = match resolve(&arguments.program, &arguments.arguments) {
        Ok(start) => start,
        Err(refusal) => return refusal,
    };
    let argv = interpreter::arguments(&start, arguments.level);
    log::debug!("arguments of the interpreter: {argv:?}");
    let error = interpreter::execute(&argv);
    Refusal::new(NOT_EXECUTABLE, interpreter::NAME, error)
}
