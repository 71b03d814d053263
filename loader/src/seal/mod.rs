//! Sealing: what is sealed, and how.

pub mod apply;
pub mod call;
pub mod glob;
pub mod marks;
pub mod plan;
pub mod tunables;
pub mod vvar;
