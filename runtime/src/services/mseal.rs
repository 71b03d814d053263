//! `mseal(2)` as a function for programs: glibc has it since 2.43, so programs of an older one find this.

use crate::glibc::{find_object, libc};
use core::arch::naked_asm;
use loader::addr::Addr;
use loader::sys;

/// `mseal(addr, len, flags)`: 0, or -1 and the `errno` of the caller's C library.
///
/// # Safety
/// For callers in C: it passes on where it returns to, by which the caller's namespace is known.
#[unsafe(naked)]
#[cfg_attr(feature = "interpreter", unsafe(export_name = "mseal"))]
pub unsafe extern "C" fn mseal(start: usize, len: usize, flags: usize) -> i32 {
    naked_asm!("mov rcx, [rsp]", "jmp {mseal_for}", mseal_for = sym mseal_for)
}

extern "C" fn mseal_for(start: usize, len: usize, flags: usize, caller: usize) -> i32 {
    match sys::mseal_with_flags(Addr(start), len, flags) {
        Ok(()) => 0,
        Err(errno) => {
            libc::set_errno_in(find_object::namespace_of(Addr(caller)), errno.raw_os_error());
            -1
        }
    }
}
