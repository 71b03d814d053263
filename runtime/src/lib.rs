//! `ld-seal.so`: the interpreter that the kernel starts in place of glibc's ld.so, and the services that stay behind in the process.
//!
//! [`start::start`] is the whole story in the order of events. What glibc's private ABI asks for is in [`glibc`] and nowhere else;
//! what programs ask of a loader while they run is in [`services`].
#![cfg_attr(not(test), no_std)]

extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod audit;
pub mod auxv;
pub mod environment;
pub mod glibc;
pub mod heap;
pub mod initial_stack;
pub mod logger;
mod mem;
pub mod options;
pub mod process;
pub mod profile;
pub mod services;
pub mod start;
pub mod statistics;
pub mod word;

use loader::sys;

/// Ends the process with one line on standard error and the exit status of a loader that fails.
pub fn fatal(message: core::fmt::Arguments<'_>) -> ! {
    logger::line(format_args!("ld-seal.so: {message}"));
    sys::exit(127)
}
