//! The rendezvous with debuggers: `_r_debug`, and a function on which they put a breakpoint.

use super::globals::R_DEBUG;
use crate::process;
use loader::addr::Addr;

/// What the list of objects is going through (`r_state`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    /// `RT_CONSISTENT`
    Consistent = 0,
    /// `RT_ADD`
    Add = 1,
    /// `RT_DELETE`
    Delete = 2,
}

/// Debuggers find this by `r_brk` or by name, and stop in it.
#[cfg_attr(feature = "interpreter", export_name = "_dl_debug_state")]
#[inline(never)]
pub extern "C" fn dl_debug_state() {
    // SAFETY: no instruction at all; it keeps calls of this function from being optimised away.
    unsafe { core::arch::asm!("", options(nomem, nostack, preserves_flags)) };
}

/// Fills the structure and tells the program's dynamic section where it is.
pub fn prepare(first_map: Addr, interpreter_base: Addr) {
    let fields = &process::layout().r_debug;
    let debug = R_DEBUG.structure();
    debug.put_u32(fields.r_version, 1);
    debug.put_addr(fields.r_map, first_map);
    debug.put_addr(fields.r_brk, Addr(dl_debug_state as *const () as usize));
    debug.put_addr(fields.r_ldbase, interpreter_base);
}

/// Announces a change of the list of objects.
pub fn state(state: State) {
    R_DEBUG.structure().put_u32(process::layout().r_debug.r_state, state as u32);
    dl_debug_state();
}
