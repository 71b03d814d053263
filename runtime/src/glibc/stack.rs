//! Executable stacks, for programs and libraries that ask for them (`PT_GNU_STACK` with `PF_X`, or none).

use super::globals::RTLD_GLOBAL;
use super::{exports, thread};
use crate::process;
use loader::addr::Addr;
use loader::sys;
use rustix::io::Errno;

/// `PF_X` in `_dl_stack_flags`.
const PF_X: u32 = 1;

/// Makes the main thread's stack executable: all of it, and what it grows by. `end` is an address in its first page.
///
/// # Errors
/// The kernel refuses.
pub fn make_executable(end: Addr) -> Result<(), Errno> {
    let page = end.page_floor();
    // SAFETY: more rights on the stack change no access that is allowed now.
    unsafe { sys::protect_downwards(page..Addr(page.0 + 4096)) }
}

/// Makes all stacks executable, and those of threads to come: a dlopened object asks for it.
///
/// # Errors
/// The kernel refuses.
pub fn make_all_executable(end: Addr) -> Result<(), Errno> {
    let layout = process::layout();
    let global = RTLD_GLOBAL.structure();
    let Some(flags) = layout.rtld_global.dl_stack_flags else {
        return Err(Errno::NOTSUP);
    };
    if global.get_u32(flags) & PF_X != 0 {
        return Ok(());
    }
    make_executable(end)?;
    global.put_u32(flags, global.get_u32(flags) | PF_X);
    let main = super::tls::main_thread();
    let mut outcome = Ok(());
    thread::for_each(layout, |tcb| {
        // The stacks of threads whose stacks are their creators' own are not the loader's business.
        // SAFETY: the list holds live threads.
        if tcb != main && unsafe { exports::nptl_change_stack_perm(tcb.as_mut_ptr()) } != 0 {
            outcome = Err(Errno::ACCESS);
        }
    });
    outcome
}
