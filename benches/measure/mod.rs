//! The parts of a start-up measurement.

pub mod patched;
pub mod report;
pub mod rounds;
pub mod spawn;
pub mod traps;
