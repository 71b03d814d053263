//! The conformance harness: the same program under two loaders, compared by everything that can be observed.
//!
//! glibc's `ld.so` is the specification. A *case* is a folder below `fixtures/` with sources and a manifest; the harness
//! builds it once, starts it under the system's loader and then under ours in each [`Way`] and at each seal level,
//! and compares stdout, stderr and the exit status or signal. Real programs are compared in the same manner.
//!
//! * [`manifest`]: what a `case.toml` says; [`known`]: which cases are known to differ.
//! * [`build`]: compiling a case, once per content.
//! * [`relocations`]: whether a built file holds the relocations that its case is about.
//! * [`written`]: ELF files made from nothing, of a description.
//! * [`edit`]: a program header changed into one that this machine's linker does not write.
//! * [`interp`]: a copy of a tree whose executables name another interpreter.
//! * [`process`]: one command, captured, with a time limit; [`tether`]: it does not outlive the harness.
//! * [`loader`]: the loader under test, and the command lines that put a program under it.
//! * [`check`]: a case under both loaders; [`verdict`]: what came of it.
//! * [`compare`]: what counts as a difference; [`bindings`]: which definition each reference was bound to;
//!   [`remains`]: mappings and descriptors at the end.
//! * [`requirement`]: what this machine lacks. A case that cannot run here is skipped, loudly, and counted.
//! * [`attack`]: a process watched from outside, and calls that are refused.
//! * [`hostile`]: files that no linker would write.
//! * [`commands`]: the commands of this machine.
//! * [`suite`]: cases and other checks as trials of a test binary; [`conform`]: all of them against any loader.

#![deny(unsafe_code)]

pub mod attack;
pub mod bindings;
pub mod build;
pub mod check;
pub mod commands;
pub mod compare;
pub mod conform;
pub mod edit;
pub mod hostile;
pub mod interp;
pub mod known;
pub mod loader;
pub mod manifest;
pub mod process;
pub mod relocations;
pub mod remains;
pub mod requirement;
pub mod suite;
pub mod tether;
pub mod verdict;
pub mod written;

pub use loader::{Level, Loader, Way};
