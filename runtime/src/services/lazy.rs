//! Lazy binding: the first call through a PLT slot comes here (psABI, "Procedure Linkage Table").
//!
//! As in glibc, a call is looked up without a lock and without memory: a signal handler may make it over a dlopen of its own thread. The
//! lookup reads a [`Snapshot`], which whoever changes the linker's state replaces ([`publish`]). The gate is taken only for a call that has to
//! be noted: from one object to another that could be unloaded before it, or to an `STB_GNU_UNIQUE` function.

use super::close;
use crate::glibc::gscope;
use crate::process;
use crate::profile;
use alloc::boxed::Box;
use alloc::vec::Vec;
use core::arch::naked_asm;
use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicU64, Ordering};
use loader::addr::Addr;
use loader::error::{tell_undefined, Consequence, Lossy};
use loader::linker::Linker;
use loader::lookup::Class;
use loader::object::ObjectId;
use loader::reloc::lazy::{Direct, Snapshot, Target, Tie, Unbound};
use loader::reloc::{protected, Dependency};

/// The state components that a call may use: SSE, AVX, bounds, opmask and the rest of AVX-512. As in glibc, x87 is left out: a call finds
/// the x87 stack empty anyway.
pub(super) const STATE_MASK: u32 = 0b1110_1110;

/// Bytes that the trampoline needs to save the vector registers, a multiple of 64.
pub(super) static SAVE_AREA: AtomicU64 = AtomicU64::new(576);
/// 0: fxsave, 1: xsave, 2: xsavec.
pub(super) static SAVE_WITH: AtomicU32 = AtomicU32::new(0);

/// How vector registers are saved.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SaveWith {
    /// The CPU has no XSAVE.
    Fxsave,
    /// XSAVE.
    Xsave,
    /// XSAVEC.
    Xsavec,
}

/// Says how vector registers are saved, and how many bytes glibc needs for that: with XSAVE 64 more than the registers take, for those that
/// are pushed here.
pub fn set_save_area(with: SaveWith, size: u64) {
    let area = match with {
        SaveWith::Fxsave => LEGACY_AREA,
        SaveWith::Xsave | SaveWith::Xsavec => size.saturating_sub(64).max(LEGACY_AREA + 64),
    };
    SAVE_WITH.store(with as u32, Ordering::Relaxed);
    SAVE_AREA.store((area + 63) & !63, Ordering::Relaxed);
}

/// What FXSAVE writes, and the beginning of what XSAVE does, which has a header of 64 bytes behind it.
const LEGACY_AREA: u64 = 512;

/// The address that PLT headers jump to.
pub fn trampoline() -> Addr {
    Addr(trampoline_code as *const () as usize)
}

/// Saves the vector registers at `rsp` after making room; uses rax, rdx. `rbx` must hold the old stack pointer.
macro_rules! save_vectors {
    () => {
        "sub rsp, [rip + {area}]
         and rsp, -64
         mov edx, [rip + {with}]
         test edx, edx
         jz 20f
         xor eax, eax
         mov [rsp + 512], rax
         mov [rsp + 520], rax
         mov [rsp + 528], rax
         mov [rsp + 536], rax
         mov [rsp + 544], rax
         mov [rsp + 552], rax
         mov [rsp + 560], rax
         mov [rsp + 568], rax
         mov eax, {mask}
         cmp edx, 2
         mov edx, 0
         je 21f
         xsave [rsp]
         jmp 22f
         21: xsavec [rsp]
         jmp 22f
         20: fxsave [rsp]
         22:"
    };
}
pub(super) use save_vectors;

/// Restores what [`save_vectors`] saved; uses rax, rdx.
macro_rules! restore_vectors {
    () => {
        "mov edx, [rip + {with}]
         test edx, edx
         jz 23f
         mov eax, {mask}
         xor edx, edx
         xrstor [rsp]
         jmp 24f
         23: fxrstor [rsp]
         24:
         mov rsp, rbx"
    };
}
pub(super) use restore_vectors;

/// Entered by the PLT header with the object's cookie and the index of the relocation on the stack, above them the return address of the
/// call. Every register that can carry an argument is kept, the vector registers in full width.
#[unsafe(naked)]
unsafe extern "C" fn trampoline_code() {
    naked_asm!(
        "push rax",
        "push rcx",
        "push rdx",
        "push rsi",
        "push rdi",
        "push r8",
        "push r9",
        "push r10",
        "push rbx",
        "mov rbx, rsp",
        "mov rdi, [rsp + 72]",
        "mov rsi, [rsp + 80]",
        save_vectors!(),
        "mov rdx, [rbx + 88]",
        "call {bind}",
        "mov r11, rax",
        restore_vectors!(),
        "pop rbx",
        "pop r10",
        "pop r9",
        "pop r8",
        "pop rdi",
        "pop rsi",
        "pop rdx",
        "pop rcx",
        "pop rax",
        "add rsp, 16",
        "jmp r11",
        area = sym SAVE_AREA,
        with = sym SAVE_WITH,
        mask = const STATE_MASK,
        bind = sym bind,
    )
}

/// `LD_BIND_NOT`: nobody remembers what a call is bound to.
static BIND_NOT: AtomicBool = AtomicBool::new(false);
/// Slots are not written, so that every call comes here.
static STAY_UNBOUND: AtomicBool = AtomicBool::new(false);
/// Whether pages of bound slots are read-only.
static SLOTS_ARE_BOUND: AtomicBool = AtomicBool::new(false);

/// Says how slots are treated: `bind_not` is `LD_BIND_NOT`, which leaves them as they are, as profiling does; `are_bound` that pages on
/// which there is nothing else become read-only once an object is relocated (level 2).
pub fn set_slots(bind_not: bool, are_bound: bool) {
    BIND_NOT.store(bind_not, Ordering::Relaxed);
    STAY_UNBOUND.store(bind_not || profile::is_wanted(), Ordering::Relaxed);
    SLOTS_ARE_BOUND.store(are_bound, Ordering::Relaxed);
}

/// Whether it is noted what a call is bound to: not with `LD_BIND_NOT`.
pub fn notes_bindings() -> bool {
    !BIND_NOT.load(Ordering::Relaxed)
}

/// Whether a slot is written once it is known what it is bound to.
pub fn writes_slots() -> bool {
    !STAY_UNBOUND.load(Ordering::Relaxed)
}

/// What lazily bound calls are looked up in; never null once a call can come.
static CURRENT: AtomicPtr<Snapshot> = AtomicPtr::new(core::ptr::null_mut());

/// What else belongs to it.
#[derive(Default)]
struct Publisher {
    /// Snapshots that were replaced, and that somebody may still be reading; from boxes.
    replaced: Vec<*mut Snapshot>,
    /// Objects that are in the linker's tables and are about to be unloaded.
    withdrawn: Vec<ObjectId>,
}

struct PublisherCell(UnsafeCell<Publisher>);
// SAFETY: touched while the gate is held only.
unsafe impl Sync for PublisherCell {}

static PUBLISHER: PublisherCell =
    PublisherCell(UnsafeCell::new(Publisher { replaced: Vec::new(), withdrawn: Vec::new() }));

/// Binds a slot; ends the program if there is no definition. The call returns to `from`. With the search this is all that a usual call needs
/// of the stack, which may be a signal handler's: what else may be to do is in functions of its own.
extern "C" fn bind(cookie: u64, index: u64, from: u64) -> u64 {
    let id = ObjectId(cookie as u32);
    let searching = gscope::enter();
    // SAFETY: a snapshot is there before the first call, and stays for as long as this thread is known to be searching.
    let found = unsafe { &*CURRENT.load(Ordering::SeqCst) }.find(id, index, None);
    let target = match &found {
        Ok(target) => target,
        Err(unbound) => report(unbound),
    };
    drop(searching);
    let address = match target.is_plain() {
        true => store(target, target.address.0 as u64),
        false => bind_with_more(id, index, target),
    };
    profile::call(from, address);
    address
}

/// Stores what a call is bound to in its slot.
fn store(target: &Target, address: u64) -> u64 {
    if let Some(slot) = target.slot.filter(|_| address != 0 && writes_slots()) {
        // SAFETY: the slot lies in a writable segment of the object that calls. Another thread that binds it stores the same.
        unsafe { slot.as_mut_ptr::<u64>().write_unaligned(address) };
    }
    address
}

/// Binds a slot where the address is not all.
#[inline(never)]
fn bind_with_more(id: ObjectId, index: u64, target: &Target) -> u64 {
    let noted = target.tie.map(|_| bind_and_note(id, index));
    let target = noted.as_ref().unwrap_or(target);
    if let Some(direct) = target.direct {
        warn_of_direct(direct);
    }
    let mut address = target.address.0 as u64;
    if target.is_resolver {
        // SAFETY: the resolver is one of an object that is relocated, or its code could not be found; no lock is held.
        address = unsafe { super::call_resolver(target.address) };
    }
    store(target, address)
}

/// Looks it up again where nothing can change meanwhile, and takes note of what it is bound to.
#[cold]
fn bind_and_note(id: ObjectId, index: u64) -> Target {
    let mut gate = process::enter();
    let process = &mut *gate;
    let namespace = process.linker.objects[id].namespace;
    // SAFETY: who replaces and frees snapshots holds the gate, and this thread does.
    let snapshot = unsafe { &*CURRENT.load(Ordering::Relaxed) };
    let unique = &process.linker.namespace(namespace).unique;
    let target = snapshot.find(id, index, Some(unique)).unwrap_or_else(|unbound| report(&unbound));
    match target.tie {
        None => return target,
        Some(Tie::Dependency(definer)) => drop(close::note_dependencies(process, [Dependency::Reference(id, definer)])),
        Some(Tie::Unique(definer)) => close::promote(process, &[definer]),
    }
    target
}

/// Says that the program refers directly to a protected function; ends the program if the library does not allow that.
#[cold]
fn warn_of_direct(Direct { definer, name }: Direct) {
    let gate = process::enter();
    if let Err(error) = protected::warn_of_direct(name, Class::Plt, &gate.linker.objects[definer]) {
        crate::logger::line(format_args!("{}: {}: {error}", Lossy(crate::logger::program_name()), Lossy(name)));
        loader::sys::exit(127)
    }
}

/// Lets lazily bound calls see the linker's state as it is. The gate must be held.
pub fn publish(linker: &Linker) {
    // SAFETY: the caller holds the gate.
    let publisher = unsafe { &mut *PUBLISHER.0.get() };
    let held = |id| close::held_by(linker, id);
    let are_bound = SLOTS_ARE_BOUND.load(Ordering::Relaxed);
    let new = Box::into_raw(Box::new(Snapshot::new(linker, &publisher.withdrawn, are_bound, held)));
    let old = CURRENT.swap(new, Ordering::SeqCst);
    if old.is_null() {
        return;
    }
    publisher.replaced.push(old);
    if gscope::nobody_searches() {
        for old in publisher.replaced.drain(..) {
            // SAFETY: the pointer came from a box. Nobody finds it any more, and those who had found it have left since.
            drop(unsafe { Box::from_raw(old) });
        }
        // Its memory may be of a transaction that fails.
        publisher.replaced.shrink_to_fit();
    }
}

/// Hides objects that are about to be unloaded from lazily bound calls, and waits until none reads them; `choose` says which, under the
/// gate. The second value is false if somebody may read them for ever: then they must stay mapped.
pub fn withdraw(choose: impl FnOnce(&process::Process) -> Vec<ObjectId>) -> (Vec<ObjectId>, bool) {
    let chosen = {
        let process = process::enter();
        let chosen = choose(&process);
        // SAFETY: the gate is held.
        unsafe { (*PUBLISHER.0.get()).withdrawn.clone_from(&chosen) };
        publish(&process.linker);
        chosen
    };
    // Without the gate: a handler that has interrupted a search may want it.
    let quiet = gscope::wait_for_others();
    (chosen, quiet)
}

/// Says that the objects that were withdrawn are out of the linker's tables. The gate must be held.
pub fn withdrawn_are_gone() {
    // SAFETY: the caller holds the gate.
    unsafe { (*PUBLISHER.0.get()).withdrawn.clear() };
}

/// Shows again what a thread has withdrawn that is not there any more, after a fork, to unload it. The gate must be held.
pub fn forget_withdrawal(linker: &Linker) {
    // SAFETY: the caller holds the gate.
    let withdrawn = unsafe { &mut (*PUBLISHER.0.get()).withdrawn };
    if !withdrawn.is_empty() {
        withdrawn.clear();
        publish(linker);
    }
}

/// Says what is missing, as glibc does, and ends the program.
fn report(unbound: &Unbound<'_>) -> ! {
    if let Unbound::Undefined { object, what } = *unbound {
        tell_undefined(object, what, Consequence::Fatal);
    }
    crate::logger::line(format_args!("{}: symbol lookup error: {unbound}", Lossy(crate::logger::program_name())));
    loader::sys::exit(127)
}
