//! The mechanism of a sealing dynamic loader.
#![no_std]
extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod addr;
pub mod elf;
pub mod errno;
pub mod error;
pub mod seal;
pub mod search;
pub mod sys;
pub mod tunables;
