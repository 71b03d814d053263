//! The rendezvous with debuggers: `_r_debug`, and a function on which they put a breakpoint.

use super::globals::{Structure, RTLD_GLOBAL, R_DEBUG};
use super::layout::{RDebug, RDebugExtended};
use crate::process;
use alloc::boxed::Box;
use alloc::ffi::CString;
use alloc::vec;
use loader::addr::Addr;
use loader::object::{NamespaceId, BASE_NAMESPACE};
use loader::rule::{holds, Rule};

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

/// The structure of a namespace; `None` where the C library has no room for any but the program's (before 2.35).
fn structure(namespace: NamespaceId) -> Option<Structure> {
    if namespace == BASE_NAMESPACE {
        return Some(R_DEBUG.structure());
    }
    let layout = process::layout();
    let namespaces = &layout.link_namespaces;
    let at = layout.rtld_global.dl_ns + usize::from(namespace.0) * namespaces.size + namespaces.ns_debug?;
    let size = layout.r_debug_extended.as_ref()?.size;
    // SAFETY: the structure lies in `_rtld_global`, which lives as long as the process.
    Some(unsafe { Structure::at(RTLD_GLOBAL.structure().field(at).as_mut_ptr(), size) })
}

/// Shows a namespace's list to debuggers: when it is the namespace's first, at the end of the chain of namespaces, in which it stays even
/// when it is empty.
pub fn publish_list(namespace: NamespaceId, first_map: Addr) {
    let layout = process::layout();
    let (Some(debug), Some(extended)) = (structure(namespace), layout.r_debug_extended.as_ref()) else {
        return;
    };
    let fields = &layout.r_debug;
    debug.put_addr(fields.r_map, first_map);
    if debug.get_u64(fields.r_brk) == 0 && first_map != Addr(0) {
        chain(&debug, fields, extended);
    }
}

/// Puts a list at the end of the chain of lists.
fn chain(debug: &Structure, fields: &RDebug, extended: &RDebugExtended) {
    let base = R_DEBUG.structure();
    debug.put_u32(fields.r_version, 2);
    debug.put_u64(fields.r_brk, base.get_u64(fields.r_brk));
    debug.put_u64(fields.r_ldbase, base.get_u64(fields.r_ldbase));
    let mut last = base;
    while let next @ 1.. = last.get_u64(extended.r_next) {
        // SAFETY: the chain holds only structures that this function has put there, and they live as long as the process.
        last = unsafe { Structure::at(next as *mut u8, extended.size) };
    }
    last.put_addr(extended.r_next, debug.addr());
    base.put_u32(fields.r_version, 2);
}

/// Shows debuggers the program that a command line of the loader has named, under its path, in a list of its own. To them the loader is the
/// executable then, and the first object of the program's list, which never has a name, is what they leave out as the executable's: they
/// would know nothing of the program. Where there is no chain of lists (before 2.35) there is nothing to be done.
pub fn show_program(map: Structure, path: CString) {
    let layout = process::layout();
    let Some(extended) = layout.r_debug_extended.as_ref() else {
        return;
    };
    let (fields, map_fields) = (&layout.r_debug, &layout.link_map);
    let size = map_fields.size.next_multiple_of(16);
    let memory = Box::leak(vec![0u8; size + extended.size].into_boxed_slice());
    let start = memory.as_mut_ptr();
    // SAFETY: the memory is never freed, both structures lie in it, and nobody else refers to it.
    let (shown, debug) =
        unsafe { (Structure::at(start, map_fields.size), Structure::at(start.add(size), extended.size)) };
    for at in (0..map_fields.size).step_by(8) {
        shown.put_u64(at, map.get_u64(at));
    }
    shown.put_addr(map_fields.l_name, Addr(path.into_raw() as usize));
    shown.put_u64(map_fields.l_next, 0);
    shown.put_u64(map_fields.l_prev, 0);
    debug.put_addr(fields.r_map, shown.addr());
    chain(&debug, fields, extended);
}

/// Announces a change of the list of objects of a namespace.
pub fn state(namespace: NamespaceId, state: State) {
    if let Some(debug) = structure(namespace) {
        debug.put_u32(process::layout().r_debug.r_state, state as u32);
    }
    if holds(Rule::ChangesAnnounced) {
        dl_debug_state();
    }
}
