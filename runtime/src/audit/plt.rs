//! Calls through the PLT that modules watch (`la_x86_64_gnu_pltenter`, `la_x86_64_gnu_pltexit`).
//!
//! The slots of a watched object are never bound: each call comes to a trampoline, which asks `enter` where it goes. What a slot would be
//! bound to is found out at its first call and kept here. Where modules only want to know of bindings, not of calls, the first call
//! binds the slot as it does without modules.

use super::bindings::{self, Binding};
use super::{audited, interfaces, is_active, is_concerned, is_own, know, trampoline, Audited};
use crate::glibc::audit::{binding, Registers, ReturnValue};
use crate::logger;
use crate::process;
use crate::profile;
use crate::services::{self, close, lazy};
use alloc::boxed::Box;
use alloc::vec::Vec;
use core::ffi::c_long;
use core::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, Ordering};
use loader::addr::Addr;
use loader::error::{Consequence, LoadError, Lossy, Reason};
use loader::linker::Linker;
use loader::memory;
use loader::object::{Object, ObjectId};
use loader::reloc::{slots, Binder, PltMode};
use loader::seal::tunables::SealLevel;

/// The calls of an object by index of their relocation; none until the object is relocated.
#[derive(Default)]
pub struct Calls(AtomicPtr<Vec<Call>>);

impl Calls {
    fn prepare(&self, count: usize) -> Result<(), Reason> {
        if self.0.load(Ordering::Relaxed).is_null() {
            let mut calls: Vec<Call> = memory::with_capacity(count)?;
            calls.extend((0..count).map(|_| Call::default()));
            self.0.store(Box::into_raw(Box::new(calls)), Ordering::Release);
        }
        Ok(())
    }

    fn get(&self, index: u64) -> Option<&Call> {
        // SAFETY: null, or made by `prepare` and freed with this value only.
        let calls = unsafe { self.0.load(Ordering::Acquire).as_ref() }?;
        calls.get(usize::try_from(index).ok()?)
    }
}

impl Drop for Calls {
    fn drop(&mut self) {
        let calls = *self.0.get_mut();
        if !calls.is_null() {
            // SAFETY: made by `prepare`, and nobody else has it any more.
            drop(unsafe { Box::from_raw(calls) });
        }
    }
}

/// What is known of a call.
#[derive(Default)]
struct Call {
    /// The function's address; 0 until it is known, which is said by `binding`.
    address: AtomicU64,
    /// What it is bound to; null until the rest is complete.
    binding: AtomicPtr<Binding>,
    /// As in [`super::bindings::Answer`].
    refusals: AtomicU32,
    flags: AtomicU32,
}

impl Drop for Call {
    fn drop(&mut self) {
        let binding = *self.binding.get_mut();
        if !binding.is_null() {
            // SAFETY: made by `known`; the object goes, so no call from it is under way.
            drop(unsafe { Box::from_raw(binding) });
        }
    }
}

/// Whether calls between objects are watched.
pub fn is_watched() -> bool {
    is_active() && interfaces().any(|(_, i)| i.enter.is_some() || i.exit.is_some())
}

/// How the slots of an object are bound, when `usual` is how they would be without modules and `wanted` what the process asks for. As in
/// glibc an object's own wish to be bound at once does not count where calls are watched; everybody else's does. A module's own objects
/// are bound at once, so that no callback comes to the lazy binding of what it calls.
pub fn mode(object: &Object, usual: PltMode, wanted: PltMode) -> PltMode {
    if !is_active() {
        return usual;
    }
    if wanted == PltMode::Lazy && !is_own(object.namespace) && is_watched() {
        return PltMode::Lazy;
    }
    usual
}

/// The entry point and the cookie for the PLT header of an object whose bindings or calls concern modules; `None` for the usual ones.
/// Objects are relocated under the gate.
///
/// # Errors
/// There is no memory.
pub fn entry(linker: &Linker, id: ObjectId) -> Result<Option<(Addr, u64)>, LoadError> {
    if !is_active() || !is_concerned(linker, id) || !(is_watched() || bindings::are_wanted()) {
        return Ok(None);
    }
    let Some(audited) = audited(linker, id) else {
        return Ok(None);
    };
    let object = &linker.objects[id];
    audited.calls.prepare(slots::count(object)).map_err(|reason| LoadError::new(object.display_name(), reason))?;
    Ok(Some((trampoline::entry(), core::ptr::from_ref(audited) as u64)))
}

/// Which of [`Registers::general`] is the stack pointer.
const STACK_POINTER: usize = 7;

/// What a slot is bound to.
struct Bound {
    slot: slots::Slot,
    address: u64,
    binding: Option<Binding>,
}

/// Finds out what a slot is bound to.
fn resolve(id: ObjectId, index: u64) -> Result<Bound, LoadError> {
    let (slot, dependencies) = {
        let process = process::enter();
        let linker = &process.linker;
        let namespace = linker.namespace(linker.objects[id].namespace);
        let binder = Binder::new(&linker.objects, namespace.global_scope.iter().copied(), &namespace.unique);
        let slot = slots::slot(&binder.object(id), usize::try_from(index).unwrap_or(usize::MAX))?;
        let slot =
            slot.ok_or_else(|| LoadError::fault(linker.objects[id].display_name(), "unexpected PLT reloc type"))?;
        (slot, binder.dependencies.into_inner())
    };
    if !dependencies.is_empty() {
        close::note_dependencies(&mut process::enter(), dependencies);
    }
    let address = if slot.is_ifunc {
        // SAFETY: the symbol is a resolver of an object that is relocated, or its dependents' code would not be calling.
        unsafe { services::call_resolver(Addr(slot.address as usize)) }
    } else {
        slot.address
    };
    let mut process = process::enter();
    let binding = slot.definer.and_then(|(to, symbol)| {
        know(&mut process, to);
        Binding::new(&process.linker, id, to, symbol)
    });
    Ok(Bound { slot, address, binding })
}

/// Where the call of a slot goes, asked by the trampoline, and counts it. The parameters are those of [`destination`].
pub(super) unsafe extern "C" fn enter(
    object: &'static Audited,
    index: u64,
    registers: *mut Registers,
    frame: *mut c_long,
) -> u64 {
    // SAFETY: as here.
    let address = unsafe { destination(object, index, registers, frame) };
    // SAFETY: the registers are those of the call, where the stack pointer points to the return address.
    profile::call(unsafe { *((*registers).general[STACK_POINTER] as *const u64) }, address);
    address
}

/// Where the call of a slot goes: the function's address. `frame` becomes the number of bytes of arguments on the
/// stack that are to be copied, so that the call's return is seen; less than 0 if nobody wants to see it.
unsafe fn destination(object: &'static Audited, index: u64, registers: *mut Registers, frame: *mut c_long) -> u64 {
    // SAFETY: the trampoline passes a place on its stack.
    unsafe { *frame = -1 };
    let (call, binding, address) = match known(object, index) {
        Ok(Known { call, binding: Some(binding), address }) => (call, binding, address),
        Ok(Known { address, .. }) => return address,
        Err(error) => report(&error),
    };
    if !is_watched() || call.refusals.load(Ordering::Relaxed) & binding::NO_ENTER != 0 {
        return address;
    }
    // SAFETY: as above; the registers are those of the call.
    unsafe { announce(call, binding, address, registers, frame) }
}

/// Ends the program: a call goes nowhere.
fn report(error: &LoadError) -> ! {
    error.tell(Consequence::Fatal);
    logger::line(format_args!("{}: symbol lookup error: {error}", Lossy(logger::program_name())));
    loader::sys::exit(127)
}

/// A call of which it is known where it goes.
struct Known {
    call: &'static Call,
    /// `None`: it is not to be watched.
    binding: Option<&'static Binding>,
    address: u64,
}

fn known(object: &'static Audited, index: u64) -> Result<Known, LoadError> {
    let outside = || LoadError::fault(b"", "PLT relocation index outside the table");
    let call = object.calls.get(index).ok_or_else(outside)?;
    // SAFETY: null, or a binding that lives as long as the object.
    if let Some(binding) = unsafe { call.binding.load(Ordering::Acquire).as_ref() } {
        return Ok(Known { call, binding: Some(binding), address: call.address.load(Ordering::Relaxed) });
    }
    let bound = resolve(object.id, index)?;
    let Some(binding) = bound.binding else {
        return Ok(Known { call, binding: None, address: bound.address });
    };
    let answer = binding.ask(bound.address, false);
    if !is_watched() && !profile::is_wanted() {
        if lazy::writes_slots() {
            write_slot(object.id, &bound.slot, answer.value);
        }
        return Ok(Known { call, binding: None, address: answer.value });
    }
    call.address.store(answer.value, Ordering::Relaxed);
    call.refusals.store(answer.calls, Ordering::Relaxed);
    call.flags.store(answer.flags, Ordering::Relaxed);
    // What is not kept, or was put there by another thread meanwhile, is not freed: a call may be under way that refers to it.
    let binding = Box::into_raw(Box::new(binding));
    if lazy::notes_bindings() {
        call.binding.store(binding, Ordering::Release);
    }
    // SAFETY: it was just made.
    Ok(Known { call, binding: Some(unsafe { &*binding }), address: answer.value })
}

/// Binds a slot for good, unless it is read-only. At level 2 its page may be.
fn write_slot(id: ObjectId, slot: &slots::Slot, value: u64) {
    let process = process::enter();
    let object = &process.linker.objects[id];
    let read_only = object.relro.as_ref().is_some_and(|r| r.contains(&slot.at));
    if !read_only && value != 0 && process.level() != SealLevel::Enforced {
        object.image.write_u64(slot.at, value);
    }
}

/// Tells of a call.
///
/// # Safety
/// `registers` and `frame` must be the trampoline's.
unsafe fn announce(call: &Call, bound: &Binding, address: u64, registers: *mut Registers, frame: *mut c_long) -> u64 {
    let mut definition = bound.definition(address);
    let mut flags = call.flags.load(Ordering::Relaxed);
    // SAFETY: the caller's contract.
    let before = unsafe { (*registers).xmm };
    let mut wanted: c_long = -1;
    for (module, interface) in interfaces() {
        let shift = 2 * (module + 1);
        let Some(function) =
            interface.enter.filter(|_| call.refusals.load(Ordering::Relaxed) & (binding::NO_ENTER << shift) == 0)
        else {
            continue;
        };
        let mut size: c_long = -1;
        let (from, to) = (bound.from.cookie(module), bound.to.cookie(module));
        // SAFETY: `la_x86_64_gnu_pltenter` of a module that was accepted.
        let chosen =
            unsafe { function(&mut definition, bound.index, from, to, registers, &mut flags, bound.name, &mut size) };
        if chosen != definition.st_value {
            flags |= binding::ALTERED;
            definition.st_value = chosen;
        }
        let refused = (flags & (binding::NO_ENTER | binding::NO_EXIT)) << shift;
        let refusals = call.refusals.fetch_or(refused, Ordering::Relaxed) | refused;
        if refusals & (binding::NO_EXIT << shift) == 0 && size != -1 {
            wanted = wanted.max(size);
        }
    }
    // SAFETY: the caller's contract.
    unsafe {
        let registers = &mut *registers;
        merge(&before, &mut registers.xmm, &mut registers.vector);
        *frame = wanted;
    }
    definition.st_value
}

/// Registers are shown twice, as xmm and in full width: what a module has changed in the first counts, else the second.
fn merge<const N: usize>(before: &[u128; N], xmm: &mut [u128; N], vector: &mut [[u128; 4]; N]) {
    for ((before, xmm), vector) in before.iter().zip(xmm).zip(vector) {
        if xmm == before {
            *xmm = vector[0];
        } else {
            vector[0] = *xmm;
        }
    }
}

/// Tells of a call's return; asked by the trampoline when [`enter`] wanted it. As in glibc only the first module can be spared by a flag.
pub(super) unsafe extern "C" fn exit(
    object: &'static Audited,
    index: u64,
    registers: *const Registers,
    result: &mut ReturnValue,
) {
    let Ok(Known { call, binding: Some(bound), address }) = known(object, index) else {
        return;
    };
    let mut definition = bound.definition(address);
    let before = result.xmm;
    for (module, interface) in interfaces() {
        let refused = binding::NO_EXIT.checked_shr(2 * module as u32).unwrap_or(0);
        let Some(function) = interface.exit.filter(|_| call.refusals.load(Ordering::Relaxed) & refused == 0) else {
            continue;
        };
        let (from, to) = (bound.from.cookie(module), bound.to.cookie(module));
        // SAFETY: `la_x86_64_gnu_pltexit` of a module that was accepted.
        unsafe { function(&mut definition, bound.index, from, to, registers, result, bound.name) };
    }
    merge(&before, &mut result.xmm, &mut result.vector);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_changed_counts() {
        let before = [1, 2, 3];
        let (mut xmm, mut vector) = ([1, 20, 3], [[1, 9, 9, 9], [2, 9, 9, 9], [30, 9, 9, 9]]);
        merge(&before, &mut xmm, &mut vector);
        assert_eq!(xmm, [1, 20, 30]);
        assert_eq!(vector.map(|v| v[0]), [1, 20, 30]);
        assert!(vector.iter().all(|v| v[1..] == [9, 9, 9]));
    }
}
