//! Sealing: what is sealed, and how.

pub mod tunables;
