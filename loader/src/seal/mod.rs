//! Sealing: what is sealed, and how.

pub mod apply;
pub mod glob;
pub mod marks;
pub mod plan;
pub mod tunables;
pub mod vvar;
