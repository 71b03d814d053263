//! What this command needs of the kernel that no crate offers in a safe form.

use std::ffi::{c_char, CStr, CString};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::ptr;

use nix::unistd::{ForkResult, Pid};

extern "C" {
    static environ: *const *const c_char;
}

/// Replaces this process by the program in an open file (execveat(2)); the environment is the one this process got, the
/// very strings. Returns only with the error.
pub fn execute(image: &OwnedFd, argv: &[CString]) -> io::Error {
    let mut pointers: Vec<*const c_char> = argv.iter().map(|argument| argument.as_ptr()).collect();
    pointers.push(ptr::null());
    let empty: &CStr = c"";
    // SAFETY: the path and the arguments are NUL-terminated strings and the array of arguments ends in a null pointer, all
    // alive for the call; `environ` is libc's own array, which this process, having a single thread, does not change.
    unsafe {
        let (fd, flags) = (image.as_raw_fd(), libc::AT_EMPTY_PATH);
        libc::syscall(libc::SYS_execveat, fd, empty.as_ptr(), pointers.as_ptr(), environ, flags);
    }
    io::Error::last_os_error()
}

/// Runs `child` in a new process, which ends with the status that it returns.
///
/// # Errors
/// The kernel's.
pub fn fork(child: impl FnOnce() -> u8) -> nix::Result<Pid> {
    // SAFETY: this process has a single thread, so the child finds no lock held by a thread that it does not have.
    match unsafe { nix::unistd::fork() }? {
        ForkResult::Parent { child } => Ok(child),
        ForkResult::Child => std::process::exit(child().into()),
    }
}
