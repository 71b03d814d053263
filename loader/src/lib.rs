//! The mechanism of a sealing dynamic loader.
#![no_std]
extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod addr;
pub mod elf;
pub mod errno;
pub mod error;
pub mod file;
pub mod image;
pub mod linker;
pub mod lookup;
pub mod map;
pub mod object;
pub mod order;
pub mod program;
pub mod reloc;
pub mod relro;
pub mod seal;
pub mod search;
pub mod sys;
pub mod tls;
pub mod tunables;
