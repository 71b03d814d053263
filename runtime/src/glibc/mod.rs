//! glibc's private ABI: the only place that names its structures, fields or versions.

pub mod layout;
pub mod tables;
