//! Whether this kernel seals.

#![allow(unsafe_code)]

use super::trace::MSEAL;

/// Asks for a seal of nothing.
///
/// # Errors
/// The error number: ENOSYS of a kernel before Linux 6.10, or what a filter says.
pub fn probe() -> Result<(), i32> {
    // SAFETY: a range of length 0 holds no memory, so nothing is changed.
    match unsafe { libc::syscall(MSEAL as libc::c_long, 0usize, 0usize, 0usize) } {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error().raw_os_error().unwrap_or(0)),
    }
}
