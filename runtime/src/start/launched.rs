//! `--launched`: a process that `ldseal run` has started looks like a direct start of its program.

use crate::initial_stack::InitialStack;
use core::ffi::CStr;
use loader::sys;
use rustix::fd::AsFd;

const PR_SET_NAME: usize = 15;
const PR_SET_MM: usize = 35;
const PR_SET_MM_ARG_START: usize = 8;
const PR_SET_MM_MAP: usize = 14;

/// Sets the process's name (`/proc/PID/comm`) and the start of its arguments (`/proc/PID/cmdline`) as a direct start would.
/// `named` is the file that the process is named after, `argv0` what its program is called. What the kernel refuses stays as
/// it is.
pub fn dress_up(stack: &InitialStack, named: &'static CStr, argv0: Option<&'static CStr>) {
    let path = named.to_bytes_with_nul();
    let base = path.iter().rposition(|&b| b == b'/').map_or(0, |slash| slash + 1);
    // SAFETY: PR_SET_NAME reads a C string.
    let _ = unsafe { sys::prctl(PR_SET_NAME, [path[base..].as_ptr() as usize, 0, 0, 0]) };
    let Some(first) = stack.arg(0) else {
        return;
    };
    // The strings of the arguments lie behind one another; those of the program are the last. If it is to be called otherwise, that name
    // takes the place of the bytes just before the second argument: there are enough of them.
    let mut start = first.as_ptr() as usize;
    if let Some(name) = argv0 {
        let name = name.to_bytes_with_nul();
        let end = start + first.to_bytes_with_nul().len();
        start = end - name.len();
        // SAFETY: these are bytes of the argument area: before the program's name lie the interpreter's own arguments, among them this
        // very name. They may overlap.
        unsafe { core::ptr::copy(name.as_ptr(), start as *mut u8, name.len()) };
    }
    // SAFETY: moves the start of the argument area that the kernel shows.
    if unsafe { sys::prctl(PR_SET_MM, [PR_SET_MM_ARG_START, start, 0, 0]) }.is_err() {
        set_memory_map(start);
    }
}

/// `struct prctl_mm_map` (`linux/prctl.h`).
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct MemoryMap {
    start_code: u64,
    end_code: u64,
    start_data: u64,
    end_data: u64,
    start_brk: u64,
    brk: u64,
    start_stack: u64,
    arg_start: u64,
    arg_end: u64,
    env_start: u64,
    env_end: u64,
    auxv: u64,
    auxv_size: u32,
    exe_fd: u32,
}

impl MemoryMap {
    /// Reads `/proc/PID/stat` (proc_pid_stat(5)) of a process that has not moved its break yet.
    fn parse(stat: &[u8]) -> Option<MemoryMap> {
        // The second field is a name in parentheses, which can hold anything.
        let end_of_name = stat.iter().rposition(|&b| b == b')')?;
        let mut fields = stat.get(end_of_name + 2..)?.split(|&b| b == b' ' || b == b'\n');
        let mut next_field = 3;
        let mut field = |number: usize| {
            let text = fields.nth(number.checked_sub(next_field)?)?;
            next_field = number + 1;
            core::str::from_utf8(text).ok()?.parse::<u64>().ok()
        };
        let (start_code, end_code, start_stack) = (field(26)?, field(27)?, field(28)?);
        let (start_data, end_data, start_brk) = (field(45)?, field(46)?, field(47)?);
        let (arg_start, arg_end, env_start, env_end) = (field(48)?, field(49)?, field(50)?, field(51)?);
        Some(MemoryMap {
            start_code,
            end_code,
            start_data,
            end_data,
            start_brk,
            brk: start_brk,
            start_stack,
            arg_start,
            arg_end,
            env_start,
            env_end,
            auxv: 0,
            auxv_size: 0,
            exe_fd: u32::MAX,
        })
    }
}

/// Moves the start of the arguments by setting the whole map at once: the way that needs no privilege.
fn set_memory_map(arg_start: usize) {
    let mut text = [0; 1024];
    let read = sys::open_read(c"/proc/self/stat").and_then(|file| sys::read(file.as_fd(), &mut text));
    let stat = read.ok().and_then(|length| text.get(..length));
    let Some(map) = stat.and_then(MemoryMap::parse) else {
        return;
    };
    let map = MemoryMap { arg_start: arg_start as u64, ..map };
    let (address, size) = (&raw const map as usize, size_of::<MemoryMap>());
    // SAFETY: reads the structure; what it holds is what the kernel has told, but for the start of the arguments.
    let _ = unsafe { sys::prctl(PR_SET_MM, [PR_SET_MM_MAP, address, size, 0]) };
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::format;
    use std::string::String;
    use std::vec::Vec;

    fn stat(name: &str, count: u64) -> String {
        let fields: Vec<String> = (4..=count).map(|number| format!("{}", number * 1000)).collect();
        format!("1 ({name}) R {}\n", fields.join(" "))
    }

    #[test]
    fn fields_are_counted_behind_the_name() {
        for name in ["cat", "a b", ") R 1 2 3", "(", ""] {
            let map = MemoryMap::parse(stat(name, 52).as_bytes()).expect("complete");
            assert_eq!((map.start_code, map.end_code, map.start_stack), (26_000, 27_000, 28_000), "{name}");
            assert_eq!((map.start_brk, map.brk, map.env_end), (47_000, 47_000, 51_000), "{name}");
        }
    }

    #[test]
    fn what_is_cut_short_is_no_map() {
        assert_eq!(MemoryMap::parse(b""), None);
        assert_eq!(MemoryMap::parse(b"1 (x)"), None);
        assert_eq!(MemoryMap::parse(stat("x", 50).as_bytes()), None);
    }

    #[test]
    fn this_process_has_one() {
        let text = std::fs::read("/proc/self/stat").expect("stat");
        let map = MemoryMap::parse(&text).expect("complete");
        assert!(map.start_code < map.end_code && map.arg_start < map.arg_end && map.env_start <= map.env_end);
    }
}
