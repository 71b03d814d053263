//! `mseal(2)` as a function for programs: glibc has it since 2.43, so programs of an older one find this.

use crate::glibc::libc;
use loader::addr::Addr;
use loader::sys;

/// `mseal(addr, len, flags)`: 0, or -1 and `errno`.
#[cfg_attr(feature = "interpreter", export_name = "mseal")]
pub extern "C" fn mseal(start: usize, len: usize, flags: usize) -> i32 {
    match sys::mseal_with_flags(Addr(start), len, flags) {
        Ok(()) => 0,
        Err(errno) => {
            libc::set_errno(errno.raw_os_error());
            -1
        }
    }
}
