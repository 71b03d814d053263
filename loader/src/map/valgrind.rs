//! Valgrind reads the symbols and line numbers of a library, and replaces its functions, once it has seen a mapping of the file's code and
//! one of its writable segment. RELRO and small data lie in anonymous memory here, so under valgrind the segment is mapped once from
//! the file before that, which costs a call that nobody else shall pay.

use core::arch::asm;

/// `VG_USERREQ__RUNNING_ON_VALGRIND`
const RUNNING_ON_VALGRIND: u64 = 0x1001;

/// Whether this process runs under valgrind.
///
/// This is the client request that `valgrind.h` documents for it: rotations that add up to a whole turn, and an exchange of a register
/// with itself. A processor does nothing, and valgrind recognises the sequence and answers.
pub fn runs_this() -> bool {
    let request = [RUNNING_ON_VALGRIND, 0, 0, 0, 0, 0];
    let answer: u64;
    // SAFETY: without valgrind the instructions leave every register but the flags as it was; with it rdx changes, and `request` is read.
    unsafe {
        asm!("rol rdi, 3", "rol rdi, 13", "rol rdi, 61", "rol rdi, 51", "xchg rbx, rbx",
             in("rax") request.as_ptr(), inlateout("rdx") 0u64 => answer, in("rdi") 0, options(nostack, readonly));
    }
    answer != 0
}

#[cfg(test)]
mod tests {
    #[test]
    fn tests_do_not_run_under_valgrind() {
        assert!(!super::runs_this());
    }
}
