//! glibc's private ABI: the only place that names its structures, fields or versions.

pub mod audit;
pub mod cpu;
pub mod debugger;
pub mod diagnostics;
pub mod exports;
pub mod find_object;
pub mod globals;
pub mod gscope;
pub mod hook;
pub mod layout;
pub mod libc;
pub mod link_map;
pub mod locks;
pub mod stack;
pub mod start;
pub mod tables;
pub mod thread;
pub mod tls;
mod tls_block;
pub mod tls_modules;
pub mod tunables;

#[cfg(test)]
mod system_loader;
