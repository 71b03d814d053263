//! The seccomp filter by which the kernel stops a program at the calls that a seal may refuse, and at no others.

use libc::{
    sock_filter, BPF_ABS, BPF_JEQ, BPF_JMP, BPF_JSET, BPF_K, BPF_LD, BPF_RET, BPF_W, MAP_FIXED, SECCOMP_RET_ALLOW,
    SECCOMP_RET_TRACE, SHM_REMAP,
};

/// What this filter adds to `SECCOMP_RET_TRACE`, by which a stop of its own is told from one of a filter that the program has set up.
pub const MARK: u16 = 0x5ea1;

/// `AUDIT_ARCH_X86_64` (linux/audit.h); calls of 32 bits come with another number.
const X86_64: u32 = 0xc000_003e;

/// Offsets in `struct seccomp_data` (linux/seccomp.h).
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;

/// The low half of an argument.
const fn argument(index: u32) -> u32 {
    16 + 8 * index
}

/// The advice of madvise(2) that can be refused on sealed memory: what discards contents.
pub const DISCARDING: [(i32, &str); 7] = [
    (libc::MADV_DONTNEED, "MADV_DONTNEED"),
    (libc::MADV_FREE, "MADV_FREE"),
    (libc::MADV_REMOVE, "MADV_REMOVE"),
    (libc::MADV_DONTFORK, "MADV_DONTFORK"),
    (libc::MADV_WIPEONFORK, "MADV_WIPEONFORK"),
    (libc::MADV_DONTNEED_LOCKED, "MADV_DONTNEED_LOCKED"),
    (102, "MADV_GUARD_INSTALL"),
];

/// Calls at which the kernel stops whatever their arguments are.
const ALWAYS: [i64; 6] = [
    libc::SYS_munmap,
    libc::SYS_mprotect,
    libc::SYS_pkey_mprotect,
    libc::SYS_mremap,
    libc::SYS_brk,
    libc::SYS_remap_file_pages,
];

/// The filter.
pub fn program() -> Vec<sock_filter> {
    let (allow, trace) = (ret(SECCOMP_RET_ALLOW), ret(SECCOMP_RET_TRACE | u32::from(MARK)));
    let mut program = vec![load(ARCHITECTURE), jump(BPF_JEQ, X86_64, 1, 0), allow, load(NUMBER)];
    for call in ALWAYS {
        program.extend([jump(BPF_JEQ, call as u32, 0, 1), trace]);
    }
    let with_flag = [(libc::SYS_mmap, 3, MAP_FIXED), (libc::SYS_shmat, 2, SHM_REMAP)];
    for (call, index, flag) in with_flag {
        let body = [load(argument(index)), jump(BPF_JSET, flag as u32, 0, 1), trace, allow];
        program.push(jump(BPF_JEQ, call as u32, 0, body.len() as u8));
        program.extend(body);
    }
    for (call, index) in [(libc::SYS_madvise, 2), (libc::SYS_process_madvise, 3)] {
        let mut body = vec![load(argument(index))];
        for (advice, _) in DISCARDING {
            body.extend([jump(BPF_JEQ, advice as u32, 0, 1), trace]);
        }
        body.push(allow);
        program.push(jump(BPF_JEQ, call as u32, 0, body.len() as u8));
        program.extend(body);
    }
    program.push(allow);
    program
}

fn load(offset: u32) -> sock_filter {
    sock_filter { code: (BPF_LD | BPF_W | BPF_ABS) as u16, jt: 0, jf: 0, k: offset }
}

/// Skips so many instructions if the comparison holds, and so many if it does not.
fn jump(comparison: u32, with: u32, holds: u8, fails: u8) -> sock_filter {
    sock_filter { code: (BPF_JMP | comparison | BPF_K) as u16, jt: holds, jf: fails, k: with }
}

fn ret(value: u32) -> sock_filter {
    sock_filter { code: (BPF_RET | BPF_K) as u16, jt: 0, jf: 0, k: value }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the filter answers, by the rules of classic BPF.
    fn answer(architecture: u32, number: i64, arguments: [u64; 6]) -> u32 {
        let mut data = [0u8; 64];
        data[..4].copy_from_slice(&(number as u32).to_le_bytes());
        data[4..8].copy_from_slice(&architecture.to_le_bytes());
        for (slot, argument) in data[16..].chunks_exact_mut(8).zip(arguments) {
            slot.copy_from_slice(&argument.to_le_bytes());
        }
        let (program, mut at, mut accumulator) = (program(), 0, 0);
        loop {
            let instruction = program[at];
            at += 1;
            let code = u32::from(instruction.code);
            if code == BPF_RET | BPF_K {
                return instruction.k;
            } else if code == BPF_LD | BPF_W | BPF_ABS {
                let offset = instruction.k as usize;
                accumulator = u32::from_le_bytes([data[offset], data[offset + 1], data[offset + 2], data[offset + 3]]);
            } else {
                let holds = if code == BPF_JMP | BPF_JSET | BPF_K {
                    accumulator & instruction.k != 0
                } else {
                    assert_eq!(code, BPF_JMP | BPF_JEQ | BPF_K);
                    accumulator == instruction.k
                };
                at += usize::from(if holds { instruction.jt } else { instruction.jf });
            }
        }
    }

    fn stops(number: i64, arguments: [u64; 6]) -> bool {
        let answer = answer(X86_64, number, arguments);
        assert!([SECCOMP_RET_ALLOW, SECCOMP_RET_TRACE | u32::from(MARK)].contains(&answer), "{answer:#x}");
        answer != SECCOMP_RET_ALLOW
    }

    #[test]
    fn only_what_a_seal_may_refuse() {
        for call in ALWAYS {
            assert!(stops(call, [0; 6]), "{call}");
        }
        for call in [libc::SYS_read, libc::SYS_mseal, libc::SYS_mlock, libc::SYS_execve, libc::SYS_ptrace] {
            assert!(!stops(call, [u64::MAX; 6]), "{call}");
        }
        assert!(stops(libc::SYS_mmap, [0, 0, 0, 0x32, 0, 0]) && !stops(libc::SYS_mmap, [16, 16, 16, 0x22, 16, 16]));
        assert!(
            stops(libc::SYS_shmat, [0, 0, 0x4000, 0, 0, 0]) && !stops(libc::SYS_shmat, [0x4000, 0x4000, 0, 0, 0, 0])
        );
        for (advice, name) in DISCARDING {
            assert!(stops(libc::SYS_madvise, [0, 0, advice as u64, 0, 0, 0]), "{name}");
            assert!(stops(libc::SYS_process_madvise, [0, 0, 0, advice as u64, 0, 0]), "{name}");
        }
        let harmless = libc::MADV_WILLNEED as u64;
        assert!(!stops(libc::SYS_madvise, [4, 4, harmless, 4, 4, 4]));
        assert!(!stops(libc::SYS_process_madvise, [4, 4, 4, harmless, 4, 4]));
    }

    #[test]
    fn calls_of_32_bits_are_let_through() {
        // munmap's number of 32 bits, and x86-64's.
        for number in [91, libc::SYS_munmap] {
            assert_eq!(answer(0x4000_0003, number, [0; 6]), SECCOMP_RET_ALLOW);
        }
    }
}
