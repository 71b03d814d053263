//! Executable stacks, for programs and libraries that ask for them (`PT_GNU_STACK` with `PF_X`, or none).

use super::exports;
use super::globals::RTLD_GLOBAL;
use super::thread::Stacks;
use crate::process;
use loader::addr::Addr;
use loader::rule::{holds, Rule};
use loader::sys::{self, Prot};
use rustix::io::Errno;

/// `PF_X` in `_dl_stack_flags`.
const PF_X: u32 = 1;

/// Makes the main thread's stack executable: all of it, and what it grows by. `end` is an address in its first page.
///
/// # Errors
/// The kernel refuses.
pub fn make_executable(end: Addr) -> Result<(), Errno> {
    change_main(end, true)
}

fn change_main(end: Addr, executable: bool) -> Result<(), Errno> {
    if !holds(Rule::ExecutableStack) {
        return Ok(());
    }
    let page = end.page_floor();
    // SAFETY: no code lies on a stack that was not executable before.
    unsafe { sys::protect_downwards(page..Addr(page.0 + 4096), executable) }
}

/// Changes the stacks that libc has made; goes on after a failure.
fn change_others(stacks: &Stacks, executable: bool) -> Result<(), Errno> {
    let prot = Prot { exec: executable, ..Prot::READ_WRITE };
    let mut outcome = Ok(());
    stacks.each_own(|tcb| {
        // SAFETY: the list holds stacks that are mapped.
        if let Err(errno) = unsafe { exports::protect_stack(tcb, prot) } {
            outcome = Err(errno);
        }
    });
    outcome
}

/// Makes all stacks executable, and those of threads to come: a dlopened object asks for it.
///
/// # Errors
/// The kernel refuses; the stacks are then as they were.
pub fn make_all_executable(stacks: &Stacks, end: Addr) -> Result<(), Errno> {
    let global = RTLD_GLOBAL.structure();
    let Some(flags) = process::layout().rtld_global.dl_stack_flags else {
        return Err(Errno::NOTSUP);
    };
    let before = global.get_u32(flags);
    if before & PF_X != 0 {
        return Ok(());
    }
    change_main(end, true)?;
    // Stacks that are made from now on are executable, and those that are there follow.
    global.put_u32(flags, before | PF_X);
    change_others(stacks, true).inspect_err(|_| {
        global.put_u32(flags, before);
        // There is no recourse if these fail.
        let _ = change_others(stacks, false);
        let _ = change_main(end, false);
    })
}
