//! Watching a process from outside and standing in its way: what it asks of the kernel, what is mapped, and calls that are refused.
//!
//! * [`trace`]: a process under ptrace(2), stopped at its system calls, which may be refused one by one.
//! * [`maps`]: `/proc/PID/smaps`, read by itself so that it is a witness independent of the code under test.
//! * [`faults`]: how many page faults a process takes.
//! * [`filter`]: seccomp filters that refuse a system call.
//! * [`mseal`]: whether this kernel seals.
//! * [`table`]: what the program of `fixtures/sealing` found when it attacked its own mappings.

pub mod faults;
pub mod filter;
pub mod maps;
pub mod mseal;
pub mod table;
pub mod trace;
