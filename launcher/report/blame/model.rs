//! The refused calls as data: what the text shows and the JSON holds.

use crate::report::model::{Address, Kind, Role};
use serde::Serialize;

/// The version of the JSON: as with [`crate::report::model::VERSION`].
pub const VERSION: u32 = 1;

/// What a program was refused.
#[derive(Debug, Serialize)]
pub struct Blame {
    /// The version of this shape ([`VERSION`]).
    pub version: u32,
    /// The command line as it was given.
    pub command: Vec<String>,
    /// `glibc.rtld.seal`, when it can be known.
    pub level: Option<u8>,
    /// Where the level is known from, or why it is not.
    pub level_source: &'static str,
    /// How the program ended.
    pub ended: Option<Ending>,
    /// How many calls were refused.
    pub calls: u64,
    /// The calls, equal ones together, in the order of their first.
    pub refused: Vec<Refusal>,
    /// Programs among those that ran whose loader is not `ld-seal.so`.
    pub unsealed: Vec<String>,
}

/// How a process has ended: one of the two.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Ending {
    /// Its exit status.
    pub status: Option<i32>,
    /// The name of the signal that has killed it.
    pub signal: Option<String>,
}

/// Calls of one sort, refused on the same memory of an object, from the same place.
#[derive(Debug, Serialize)]
pub struct Refusal {
    /// The system call.
    pub call: &'static str,
    /// The first one with all its arguments.
    pub first: String,
    /// How many there were.
    pub count: u64,
    /// Whether the memory is sealed; None where that can't be known.
    pub sealed: Option<bool>,
    /// The sealed memory that the first one was about.
    pub memory: Vec<Memory>,
    /// What each asked for, as far as they differ.
    pub ranges: Vec<Asked>,
    /// Who is to blame: an index into `frames`.
    pub caller: usize,
    /// The place of the system call, then its callers.
    pub frames: Vec<Frame>,
    /// Who made them.
    pub processes: Vec<Caller>,
    /// What would let the calls through.
    pub remedies: Vec<Remedy>,
}

/// A part of an object, or memory that belongs to none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Memory {
    /// The object's path, or a name in brackets.
    pub object: String,
    /// What it is in the process.
    pub role: Role,
    /// What the memory is for.
    pub kind: Kind,
    /// The first address.
    pub start: Address,
    /// The address after the last.
    pub end: Address,
    /// The first address as the object's file has it; None outside of objects.
    pub file_address: Option<Address>,
}

/// Addresses that a call was about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Asked {
    /// The first.
    pub start: Address,
    /// The one after the last.
    pub end: Address,
    /// In how many calls.
    pub count: u64,
}

/// An instruction on the way to a call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Frame {
    /// Where it is.
    pub address: Address,
    /// The object it is in.
    pub object: Option<String>,
    /// The same as the object's file has it.
    pub file_address: Option<Address>,
    /// The function.
    pub symbol: Option<String>,
    /// Bytes from the function's start.
    pub offset: Option<u64>,
}

/// A process that was refused something.
#[derive(Debug, Clone, Serialize)]
pub struct Caller {
    /// The process.
    pub pid: u32,
    /// Its threads that made the calls.
    pub threads: Vec<u32>,
    /// Its command line.
    pub command: Vec<String>,
    /// How many calls.
    pub count: u64,
    /// How it ended.
    pub ended: Option<Ending>,
}

/// Something that helps.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Remedy {
    /// What is to be set or done: an item of `GLIBC_TUNABLES`, or a command. None when nothing helps.
    pub set: Option<String>,
    /// What comes of it.
    pub effect: String,
}
