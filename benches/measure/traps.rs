//! Page faults that interrupt a process, counted by the kernel (perf_event_open(2), PERF_COUNT_SW_PAGE_FAULTS).
//!
//! `ru_minflt` counts the pages that mmap(MAP_POPULATE) or read(2) brought in as well, which cost much less.

#![allow(unsafe_code)]

use super::spawn::Start;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::FromRawFd;

/// The first version of `struct perf_event_attr` (linux/perf_event.h), which every kernel takes.
#[repr(C)]
#[derive(Default)]
struct Attributes {
    kind: u32,
    size: u32,
    config: u64,
    period: u64,
    sample_type: u64,
    read_format: u64,
    flags: u64,
    wakeup: u32,
    breakpoint_type: u32,
    breakpoint_address: u64,
}

const SOFTWARE: u32 = 1;
const PAGE_FAULTS: u64 = 2;

/// `disabled | inherit | enable_on_exec`: nothing of this process is counted, and of a child only what follows its execve.
const FLAGS: u64 = 1 | 1 << 1 | 1 << 12;

/// Starts `start` and counts. `None` if this process may not count.
///
/// # Errors
/// It can't be started.
pub fn count(start: &Start) -> io::Result<Option<u64>> {
    let attributes = Attributes {
        kind: SOFTWARE,
        size: size_of::<Attributes>() as u32,
        config: PAGE_FAULTS,
        flags: FLAGS,
        ..Attributes::default()
    };
    // SAFETY: the kernel reads `size` bytes of a structure that is that large.
    let counter = unsafe { libc::syscall(libc::SYS_perf_event_open, &raw const attributes, 0, -1, -1, 0) };
    if counter < 0 {
        return Ok(None);
    }
    // SAFETY: the descriptor is new and nobody else's.
    let mut counter = unsafe { File::from_raw_fd(counter as i32) };
    start.run()?;
    let mut count = [0; 8];
    counter.read_exact(&mut count)?;
    Ok(Some(u64::from_ne_bytes(count)))
}
