//! Sealing: what is sealed, and how.

pub mod glob;
pub mod tunables;
pub mod apply;
pub mod plan;
