//! Watching a process from outside and standing in its way: what it asks of the kernel, what is mapped, and calls that are refused.
//!
//! * [`trace`]: a process under ptrace(2), stopped at its system calls.
//! * [`maps`]: `/proc/PID/smaps`, read by itself so that it is a witness independent of the code under test.

pub mod maps;
pub mod trace;
