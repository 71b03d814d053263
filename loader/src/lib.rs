//! The mechanism of a sealing dynamic loader.
//!
//! ```text
//! path → open → parse headers → map → (closure, scopes, versions) → TLS layout → relocate → RELRO → seal → constructors → entry
//! ```
//!
//! | stage | module | from | to |
//! |---|---|---|---|
//! | find | [`search::finder`] | a name, and who asks | [`file::Opened`] |
//! | parse headers | [`elf::header`] | bytes | [`elf::header::FileHeader`] and program headers |
//! | plan the image | [`map::plan`] | program headers | [`map::plan::MapPlan`] |
//! | map | [`map::apply`] | a plan and a file | [`image::Image`] |
//! | parse the image | [`object`] | an image | [`object::Object`] with its [`elf::dynamic`], [`elf::symbols`], [`elf::version`] |
//! | closure | [`linker`] | the roots | all [`object::Object`]s, breadth first |
//! | TLS layout | [`tls`] | the objects' `PT_TLS` | offsets below the thread pointer |
//! | relocate | [`reloc`], with [`lookup`] | objects and scopes | stores into the images |
//! | RELRO | [`relro`], [`got`] | program headers, slots of the PLT | pages that become read-only |
//! | seal | [`seal::plan`], [`seal::apply`] | objects and tunables | [`seal::plan::SealPlan`], then mseal(2) |
//! | constructors | [`order`] | the graph of `DT_NEEDED` | the order in which whoever uses this crate runs them |
//!
//! [`program`] puts the stages up to the closure together for a whole program; [`static_program`] maps one that needs nothing else. Parsers and plans are pure: no system calls, no panics. All
//! system calls are in [`sys`]. Nothing here knows a C library's private ABI: what relocation needs of threads is the trait
//! [`reloc::Services`].
#![no_std]
extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod addr;
pub mod elf;
pub mod errno;
pub mod error;
pub mod file;
pub mod got;
pub mod image;
pub mod linker;
pub mod lookup;
pub mod map;
pub mod memory;
pub mod object;
pub mod order;
pub mod program;
pub mod reloc;
pub mod relro;
pub mod rule;
pub mod seal;
pub mod search;
pub mod static_program;
pub mod statistics;
pub mod sys;
pub mod tls;
pub mod tunables;
mod versions;
