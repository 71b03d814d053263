//! How many page faults a process takes.

#![allow(unsafe_code)]

use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

/// Runs a command without address space randomisation, which would change the number from start to start, and counts its minor faults.
///
/// # Errors
/// It can't be started, or does not end with status 0.
pub fn minor(command: &mut Command) -> io::Result<u64> {
    const ADDR_NO_RANDOMIZE: libc::c_ulong = 0x0004_0000;
    let fixed = || {
        // SAFETY: it changes how the next exec places mappings, and no memory.
        match unsafe { libc::personality(ADDR_NO_RANDOMIZE) } {
            -1 => Err(io::Error::last_os_error()),
            _ => Ok(()),
        }
    };
    // SAFETY: the closure makes one system call, which is allowed between fork and exec.
    let child = unsafe { command.pre_exec(fixed) }.stdin(Stdio::null()).stdout(Stdio::null()).spawn()?;
    let mut status = 0;
    // SAFETY: zeroes are a valid rusage.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: the child is this process's own and nobody else waits for it; both places are valid for writes.
    if unsafe { libc::wait4(child.id() as libc::pid_t, &raw mut status, 0, &raw mut usage) } < 0 {
        return Err(io::Error::last_os_error());
    }
    match status {
        0 => Ok(usage.ru_minflt as u64),
        _ => Err(io::Error::other(format!("ended with wait status {status:#x}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn touched_pages_are_counted() {
        let of = |size: &str| minor(Command::new("head").args(["-c", size, "/dev/zero"])).expect("it runs");
        assert!(of("1") > 0);
        assert!(minor(&mut Command::new("false")).is_err());
    }
}
