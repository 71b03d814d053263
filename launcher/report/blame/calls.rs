//! The system calls that a seal can refuse: what their arguments mean, and whether a result can be a seal's refusal.
//!
//! Pure: from registers to values.

use super::filter::DISCARDING;
use crate::report::image::PAGE;
use std::fmt::Write;
use std::ops::Range;

/// A call as it was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Call {
    /// Its number.
    pub number: i64,
    /// The registers of its arguments.
    pub arguments: [u64; 6],
}

/// What must be read from elsewhere to know which memory a call is about.
#[derive(Debug, PartialEq, Eq)]
pub enum Ranges {
    /// These addresses.
    Here(Vec<Range<u64>>),
    /// Those of a list of `iovec`s in the caller's memory: its address and length. It is about the process of a pidfd.
    Vector(u64, u64),
    /// From an address as many bytes as a System V segment has: the address and the segment.
    Segment(u64, u64),
}

impl Call {
    /// Its name.
    pub fn name(&self) -> &'static str {
        match self.number {
            libc::SYS_munmap => "munmap",
            libc::SYS_mprotect => "mprotect",
            libc::SYS_pkey_mprotect => "pkey_mprotect",
            libc::SYS_mremap => "mremap",
            libc::SYS_brk => "brk",
            libc::SYS_remap_file_pages => "remap_file_pages",
            libc::SYS_mmap => "mmap",
            libc::SYS_shmat => "shmat",
            libc::SYS_madvise => "madvise",
            libc::SYS_process_madvise => "process_madvise",
            _ => "?",
        }
    }

    /// Whether this result can be a seal's refusal. The break is not moved when it is refused, and of a list of ranges those before the
    /// first that is refused count as done.
    pub fn may_be_refused(&self, result: i64) -> bool {
        match self.number {
            libc::SYS_brk => self.arguments[0] != 0 && (self.arguments[0] as i64) < result,
            libc::SYS_process_madvise if result >= 0 => true,
            _ => result == -i64::from(libc::EPERM),
        }
    }

    /// The memory that it is about; `result` is what it returned.
    pub fn ranges(&self, result: i64) -> Ranges {
        let [first, second, third, fourth, fifth, _] = self.arguments;
        let pages = |start: u64, length: u64| {
            let end = start.saturating_add(length).checked_next_multiple_of(PAGE).unwrap_or(u64::MAX);
            start & !(PAGE - 1)..end
        };
        Ranges::Here(match self.number {
            libc::SYS_brk => vec![pages(up(first), up(result as u64).saturating_sub(up(first)))],
            libc::SYS_shmat => return Ranges::Segment(second, first),
            libc::SYS_process_madvise => return Ranges::Vector(second, third),
            libc::SYS_mremap if fourth as i32 & libc::MREMAP_FIXED != 0 => {
                vec![pages(first, second.max(1)), pages(fifth, third)]
            }
            // A length of 0 asks for a second mapping of the same memory.
            libc::SYS_mremap => vec![pages(first, second.max(1))],
            _ => vec![pages(first, second)],
        })
    }

    /// What it asks for, apart from the addresses: what makes two calls equal.
    pub fn wish(&self) -> String {
        let [_, _, third, fourth, _, _] = self.arguments;
        match self.number {
            libc::SYS_mprotect | libc::SYS_pkey_mprotect => protection(third),
            libc::SYS_mmap => format!("{}, {}", protection(third), bits(fourth, &MAP)),
            libc::SYS_mremap => bits(fourth, &MREMAP),
            libc::SYS_madvise => advice(third),
            libc::SYS_process_madvise => advice(fourth),
            libc::SYS_shmat => bits(third, &SHM),
            _ => String::new(),
        }
    }

    /// It as strace(1) would show it.
    pub fn text(&self) -> String {
        let [first, second, third, fourth, fifth, sixth] = self.arguments;
        let arguments = match self.number {
            libc::SYS_brk => format!("{first:#x}"),
            libc::SYS_mprotect | libc::SYS_madvise => format!("{first:#x}, {second}, {}", self.wish()),
            libc::SYS_pkey_mprotect => format!("{first:#x}, {second}, {}, {}", self.wish(), fourth as i32),
            libc::SYS_mmap => format!("{first:#x}, {second}, {}, {}, {sixth:#x}", self.wish(), fifth as i32),
            libc::SYS_mremap if fourth as i32 & libc::MREMAP_FIXED != 0 => {
                format!("{first:#x}, {second}, {third}, {}, {fifth:#x}", self.wish())
            }
            libc::SYS_mremap => format!("{first:#x}, {second}, {third}, {}", self.wish()),
            libc::SYS_shmat => format!("{}, {second:#x}, {}", first as i32, self.wish()),
            libc::SYS_process_madvise => format!("{}, {second:#x}, {third}, {}, {fifth}", first as i32, self.wish()),
            libc::SYS_remap_file_pages => format!("{first:#x}, {second}, {third}, {fourth}, {fifth}"),
            _ => format!("{first:#x}, {second}"),
        };
        format!("{}({arguments})", self.name())
    }
}

fn up(address: u64) -> u64 {
    address.checked_next_multiple_of(PAGE).unwrap_or(address)
}

const MAP: [(i32, &str); 7] = [
    (libc::MAP_SHARED, "MAP_SHARED"),
    (libc::MAP_PRIVATE, "MAP_PRIVATE"),
    (libc::MAP_FIXED, "MAP_FIXED"),
    (libc::MAP_ANONYMOUS, "MAP_ANONYMOUS"),
    (libc::MAP_DENYWRITE, "MAP_DENYWRITE"),
    (libc::MAP_NORESERVE, "MAP_NORESERVE"),
    (libc::MAP_POPULATE, "MAP_POPULATE"),
];
const MREMAP: [(i32, &str); 3] = [
    (libc::MREMAP_MAYMOVE, "MREMAP_MAYMOVE"),
    (libc::MREMAP_FIXED, "MREMAP_FIXED"),
    (libc::MREMAP_DONTUNMAP, "MREMAP_DONTUNMAP"),
];
const SHM: [(i32, &str); 4] = [
    (libc::SHM_RDONLY, "SHM_RDONLY"),
    (libc::SHM_RND, "SHM_RND"),
    (libc::SHM_REMAP, "SHM_REMAP"),
    (libc::SHM_EXEC, "SHM_EXEC"),
];
const PROT: [(i32, &str); 5] = [
    (libc::PROT_READ, "PROT_READ"),
    (libc::PROT_WRITE, "PROT_WRITE"),
    (libc::PROT_EXEC, "PROT_EXEC"),
    (libc::PROT_GROWSDOWN, "PROT_GROWSDOWN"),
    (libc::PROT_GROWSUP, "PROT_GROWSUP"),
];

fn protection(value: u64) -> String {
    if value == 0 {
        "PROT_NONE".into()
    } else {
        bits(value, &PROT)
    }
}

fn advice(value: u64) -> String {
    let known = DISCARDING.iter().find(|(number, _)| *number as u64 == value & 0xffff_ffff);
    known.map_or_else(|| value.to_string(), |(_, name)| (*name).to_owned())
}

/// The names of the bits that are set, what has none as a number.
fn bits(value: u64, names: &[(i32, &str)]) -> String {
    let mut rest = value as u32;
    let mut text = String::new();
    for (bit, name) in names.iter().filter(|(bit, _)| value as i32 & bit == *bit) {
        let bar = if text.is_empty() { "" } else { "|" };
        let _ = write!(text, "{bar}{name}");
        rest &= !(*bit as u32);
    }
    match (text.is_empty(), rest) {
        (true, _) => format!("{rest:#x}").replace("0x0", "0"),
        (false, 0) => text,
        (false, _) => format!("{text}|{rest:#x}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(number: i64, arguments: &[u64]) -> Call {
        let mut all = [0; 6];
        all[..arguments.len()].copy_from_slice(arguments);
        Call { number, arguments: all }
    }

    #[test]
    fn shown_as_strace_would() {
        for (number, arguments, expected) in [
            (libc::SYS_munmap, &[0x1000, 4096][..], "munmap(0x1000, 4096)"),
            (libc::SYS_mprotect, &[0x1000, 1, 3], "mprotect(0x1000, 1, PROT_READ|PROT_WRITE)"),
            (libc::SYS_mprotect, &[0x1000, 1, 0], "mprotect(0x1000, 1, PROT_NONE)"),
            (libc::SYS_pkey_mprotect, &[0x1000, 1, 5, u64::MAX], "pkey_mprotect(0x1000, 1, PROT_READ|PROT_EXEC, -1)"),
            (
                libc::SYS_mmap,
                &[0x1000, 1, 1, 0x100032, u64::MAX, 0],
                "mmap(0x1000, 1, PROT_READ, MAP_PRIVATE|MAP_FIXED|MAP_ANONYMOUS|0x100000, -1, 0x0)",
            ),
            (libc::SYS_mremap, &[0x1000, 1, 2, 0, 9], "mremap(0x1000, 1, 2, 0)"),
            (libc::SYS_mremap, &[0x1000, 1, 2, 3, 9], "mremap(0x1000, 1, 2, MREMAP_MAYMOVE|MREMAP_FIXED, 0x9)"),
            (libc::SYS_brk, &[0x1000, 7], "brk(0x1000)"),
            (libc::SYS_madvise, &[0x1000, 1, 4], "madvise(0x1000, 1, MADV_DONTNEED)"),
            (libc::SYS_process_madvise, &[3, 8, 1, 102, 0], "process_madvise(3, 0x8, 1, MADV_GUARD_INSTALL, 0)"),
            (libc::SYS_shmat, &[3, 0x1000, 0x4000], "shmat(3, 0x1000, SHM_REMAP)"),
            (libc::SYS_remap_file_pages, &[0x1000, 1, 0, 2, 0], "remap_file_pages(0x1000, 1, 0, 2, 0)"),
        ] {
            assert_eq!(call(number, arguments).text(), expected);
        }
    }

    #[test]
    fn ranges_are_whole_pages() {
        let here = |number, arguments: &[u64], result| match call(number, arguments).ranges(result) {
            Ranges::Here(ranges) => ranges,
            other => panic!("{other:?}"),
        };
        assert_eq!(here(libc::SYS_mprotect, &[0x1000, 1, 0], -1), [0x1000..0x2000]);
        assert_eq!(here(libc::SYS_munmap, &[0x1000, u64::MAX], -1), [0x1000..u64::MAX]);
        assert_eq!(here(libc::SYS_mremap, &[0x1000, 0, 4096, 1], -1), [0x1000..0x2000]);
        assert_eq!(here(libc::SYS_mremap, &[0x1000, 4096, 8192, 3, 0x9000], -1), [0x1000..0x2000, 0x9000..0xb000]);
        assert_eq!(here(libc::SYS_brk, &[0x1800], 0x5000), [0x2000..0x5000]);
        assert_eq!(call(libc::SYS_process_madvise, &[3, 0x10, 2]).ranges(-1), Ranges::Vector(0x10, 2));
        assert_eq!(call(libc::SYS_shmat, &[7, 0x10]).ranges(-1), Ranges::Segment(0x10, 7));
    }

    #[test]
    fn only_eperm_is_a_refusal() {
        let mprotect = call(libc::SYS_mprotect, &[0x1000, 1, 3]);
        assert!(mprotect.may_be_refused(-1) && !mprotect.may_be_refused(0) && !mprotect.may_be_refused(-13));
        let brk = |wanted, result| call(libc::SYS_brk, &[wanted]).may_be_refused(result);
        assert!(brk(0x1000, 0x5000) && !brk(0x5000, 0x5000) && !brk(0, 0x5000) && !brk(0x9000, 0x5000));
        assert!(call(libc::SYS_process_madvise, &[]).may_be_refused(4096));
    }
}
