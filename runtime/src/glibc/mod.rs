//! glibc's private ABI: the only place that names its structures, fields or versions.

pub mod cpu;
pub mod layout;
pub mod tables;
pub mod tunables;

#[cfg(test)]
mod system_loader;
