//! What `/proc` shows of a program that was started through the launcher: its own name and arguments, not the interpreter's.

use crate::initial_stack::InitialStack;
use alloc::vec::Vec;
use core::ffi::CStr;
use loader::sys::{self, MemoryMap};
use rustix::fd::AsFd;

/// Replaces the arguments by copies, so that nothing refers to the area of the originals any more. The copies live as long as the process.
pub fn copy_arguments(stack: &mut InitialStack) {
    for index in 0..stack.argc() {
        if let Some(argument) = stack.arg(index) {
            let copy = Vec::leak(argument.to_bytes_with_nul().to_vec());
            // SAFETY: the index is within the argument array.
            unsafe { *stack.argv().add(index) = copy.as_mut_ptr() };
        }
    }
}

/// Sets the name of the process and the arguments that `/proc/PID/cmdline` shows. The arguments must be copies, and the interpreter's own
/// be off the stack's argument array; `argv0` is what the program is to be called.
///
/// The result is what the kernel shows of the process now, if it lets that be changed.
pub fn as_direct_start(
    stack: &InitialStack,
    program: &'static CStr,
    argv0: Option<&'static CStr>,
) -> Option<MemoryMap> {
    set_name(program);
    // Without /proc the arguments are shown as they were.
    move_argument_strings(stack, argv0)
}

/// Lets `/proc/PID/auxv` show the auxiliary vector as the program sees it.
pub fn show_auxv(stack: &InitialStack, shown: Option<MemoryMap>) {
    if let Some(map) = shown {
        let map = MemoryMap { auxv: stack.auxv().0 as u64, auxv_size: stack.auxv_size() as u32, ..map };
        // Where the kernel refuses, it shows the interpreter's.
        let _ = sys::set_memory_map(&map);
    }
}

/// The name in `/proc/PID/comm`: as exec sets it, the file's.
fn set_name(program: &CStr) {
    const PR_SET_NAME: usize = 15;
    let path = program.to_bytes_with_nul();
    let base = path.iter().rposition(|&b| b == b'/').map_or(0, |slash| slash + 1);
    // SAFETY: PR_SET_NAME reads a C string. It can't fail.
    let _ = unsafe { sys::prctl(PR_SET_NAME, [path[base..].as_ptr() as usize, 0, 0, 0]) };
}

/// Moves the strings of the arguments to the end of the area in which the kernel has put them, next to the environment, and tells the kernel
/// that they begin there. Where it refuses, they move to the start of the area, followed by zero bytes.
fn move_argument_strings(stack: &InitialStack, argv0: Option<&'static CStr>) -> Option<MemoryMap> {
    let stat = Stat::read()?;
    let (start, end) = (stat.field(48)? as usize, stat.field(49)? as usize);
    let mut strings: Vec<u8> = Vec::with_capacity(end - start);
    let mut offsets = Vec::with_capacity(stack.argc());
    for index in 0..stack.argc() {
        let argument = stack.arg(index)?;
        let shown = if index == 0 { argv0.unwrap_or(argument) } else { argument };
        offsets.push(strings.len());
        strings.extend_from_slice(shown.to_bytes_with_nul());
    }
    let wanted = end.checked_sub(strings.len()).filter(|at| *at >= start)?;
    let shown = show_arguments(&stat, wanted);
    let target = if shown.is_some() { wanted } else { start };
    // SAFETY: the area held the original strings, which nothing refers to any more, and the strings fit.
    unsafe {
        core::ptr::write_bytes(start as *mut u8, 0, end - start);
        core::ptr::copy_nonoverlapping(strings.as_ptr(), target as *mut u8, strings.len());
        for (index, offset) in offsets.iter().enumerate() {
            *stack.argv().add(index) = (target + offset) as *mut u8;
        }
    }
    shown
}

/// The numbers of `/proc/self/stat` from the fourth on (proc_pid_stat(5)), by their field number there.
struct Stat {
    fields: Vec<u64>,
}

impl Stat {
    fn read() -> Option<Stat> {
        let fd = sys::open_read(c"/proc/self/stat").ok()?;
        let mut buffer = [0u8; 1024];
        let read = sys::read(fd.as_fd(), &mut buffer).ok()?;
        Stat::parse(&buffer[..read])
    }

    fn parse(text: &[u8]) -> Option<Stat> {
        // The name in parentheses may hold anything; the last parenthesis ends it. What follows is the state, then numbers.
        let after = text.iter().rposition(|&b| b == b')')?;
        let numbers = core::str::from_utf8(text.get(after + 4..)?).ok()?;
        let fields =
            numbers.split_ascii_whitespace().map(|n| n.parse::<i64>().map(|v| v as u64).or_else(|_| n.parse()).ok());
        Some(Stat { fields: fields.collect::<Option<_>>()? })
    }

    fn field(&self, number: usize) -> Option<u64> {
        self.fields.get(number.checked_sub(4)?).copied()
    }
}

/// Tells the kernel where the arguments begin now.
fn show_arguments(stat: &Stat, arg_start: usize) -> Option<MemoryMap> {
    let map = MemoryMap {
        start_code: stat.field(26)?,
        end_code: stat.field(27)?,
        start_stack: stat.field(28)?,
        start_data: stat.field(45)?,
        end_data: stat.field(46)?,
        start_brk: stat.field(47)?,
        brk: sys::program_break(),
        arg_start: arg_start as u64,
        arg_end: stat.field(49)?,
        env_start: stat.field(50)?,
        env_end: stat.field(51)?,
        auxv: 0,
        auxv_size: 0,
        exe_fd: u32::MAX,
    };
    sys::set_memory_map(&map).ok()?;
    Some(map)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::format;

    #[test]
    fn fields_are_counted_behind_the_name() {
        for name in ["cat", "a b", ") R 1 2 3", "(", ""] {
            let numbers: std::vec::Vec<_> = (4..=52).map(|n| format!("{}", n * 1000)).collect();
            let stat = Stat::parse(format!("1 ({name}) R {}\n", numbers.join(" ")).as_bytes()).expect("complete");
            assert_eq!((stat.field(26), stat.field(51), stat.field(53)), (Some(26_000), Some(51_000), None), "{name}");
        }
        assert!(Stat::parse(b"1 (x)").is_none());
    }
}
