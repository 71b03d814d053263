//! Telling the modules what a reference is bound to (`la_symbind64`), which they may change.

use super::{audited, interfaces, is_active, is_concerned, Audited, Inside};
use crate::glibc::audit::binding;
use crate::process;
use crate::services::link;
use alloc::vec::Vec;
use core::ffi::c_char;
use core::sync::atomic::Ordering;
use loader::addr::VAddr;
use loader::elf::symbols::Sym;
use loader::linker::Linker;
use loader::object::ObjectId;
use loader::reloc::{slots, Binder, PltMode};

/// A binding that modules are told of.
pub(super) struct Binding {
    /// Who refers.
    pub from: &'static Audited,
    /// Who defines.
    pub to: &'static Audited,
    /// The definition in the table of its object.
    pub symbol: &'static Sym,
    /// Its index there.
    pub index: u32,
    /// Its name, a C string.
    pub name: *const c_char,
}

/// What the modules have said to a binding.
pub(super) struct Answer {
    /// The address to use.
    pub value: u64,
    /// The modules that do not want to know of calls, two bits (`NO_ENTER`, `NO_EXIT`) each from the third bit on; the first two say
    /// that for all.
    pub calls: u32,
    /// The flags as the last module left them.
    pub flags: u32,
}

impl Binding {
    /// The binding of a reference in `from` to a definition.
    pub fn new(linker: &Linker, from: ObjectId, to: ObjectId, symbol: &'static Sym) -> Option<Binding> {
        let symbols = &linker.objects[to].symbols;
        let first: *const Sym = symbols.get(0)?;
        let index = (core::ptr::from_ref(symbol) as usize).wrapping_sub(first as usize) / size_of::<Sym>();
        let name = symbols.name(symbol);
        let name = if name.is_empty() { c"".as_ptr() } else { name.as_ptr().cast() };
        Some(Binding { from: audited(linker, from)?, to: audited(linker, to)?, symbol, index: index as u32, name })
    }

    fn is_interesting(&self) -> bool {
        self.from.is_interesting.load(Ordering::Relaxed) || self.to.is_interesting.load(Ordering::Relaxed)
    }

    /// The definition as modules see it: its value is the address that the reference is bound to.
    pub fn definition(&self, value: u64) -> Sym {
        Sym { st_value: value, ..*self.symbol }
    }

    /// Asks the modules. With `is_final` calls will not be seen, since the slot is bound for good.
    pub fn ask(&self, value: u64, is_final: bool) -> Answer {
        const NONE: u32 = binding::NO_ENTER | binding::NO_EXIT;
        if !self.is_interesting() {
            return Answer { value, calls: u32::MAX, flags: 0 };
        }
        let mut definition = self.definition(value);
        let (mut calls, mut flags) = (NONE, 0);
        for (module, interface) in interfaces() {
            let mut refused = NONE;
            if self.from.wants_from(module) && self.to.wants_to(module) {
                if let Some(function) = interface.bind {
                    flags |= if is_final { NONE } else { 0 };
                    let (from, to) = (self.from.cookie(module), self.to.cookie(module));
                    // SAFETY: `la_symbind64` of a module that was accepted.
                    let chosen = unsafe { function(&mut definition, self.index, from, to, &mut flags, self.name) };
                    if chosen != definition.st_value {
                        flags |= binding::ALTERED;
                        definition.st_value = chosen;
                    }
                }
                refused = flags & NONE;
                calls &= refused | !NONE;
            }
            calls |= refused << (2 * (module + 1));
        }
        Answer { value: definition.st_value, calls, flags }
    }
}

/// Tells of a symbol that `dlsym` has found for an object; the address to answer. It is of interest if either object is. The gate must not
/// be held.
pub fn looked_up(from: ObjectId, to: ObjectId, symbol: &'static Sym, value: u64) -> u64 {
    if !is_active() {
        return value;
    }
    let binding = Binding::new(&process::enter().linker, from, to, symbol);
    let Some(binding) = binding.filter(Binding::is_interesting) else {
        return value;
    };
    let mut definition = binding.definition(value);
    let mut altered = 0;
    for (module, interface) in interfaces() {
        let wanted = binding.from.wants_from(module) || binding.to.wants_to(module);
        // glibc asks the same module again in the place of one that follows an uninterested one, with a cookie that is not its own.
        if let Some(function) = interface.bind.filter(|_| wanted) {
            let mut flags = altered | binding::DLSYM;
            let (from, to) = (binding.from.cookie(module), binding.to.cookie(module));
            // SAFETY: `la_symbind64` of a module that was accepted.
            let chosen = unsafe { function(&mut definition, binding.index, from, to, &mut flags, binding.name) };
            if chosen != definition.st_value {
                altered = binding::ALTERED;
                definition.st_value = chosen;
            }
        }
    }
    definition.st_value
}

/// Whether a module wants to know of bindings.
pub fn are_wanted() -> bool {
    is_active() && interfaces().any(|(_, interface)| interface.bind.is_some())
}

/// Tells of the slots that were bound while these objects were relocated, as `wanted` asks for, and writes what the modules have put in
/// their place. RELRO must still be writable. The gate is held.
pub fn bound_at_once(linker: &Linker, objects: &[ObjectId], wanted: PltMode) {
    if are_wanted() {
        for &id in objects {
            if link::plt_mode(&linker.objects[id], wanted) != PltMode::Lazy {
                object_bound_at_once(linker, id);
            }
        }
    }
}

fn object_bound_at_once(linker: &Linker, id: ObjectId) {
    let object = &linker.objects[id];
    if !is_concerned(linker, id) {
        return;
    }
    let namespace = linker.namespace(object.namespace);
    let binder = Binder::new(&linker.objects, namespace.global_scope.iter().copied(), &namespace.unique);
    let references = binder.object(id);
    let bound: Vec<(VAddr, ObjectId, &'static Sym)> = (0..slots::count(object))
        .filter_map(|index| slots::slot(&references, index).ok().flatten())
        .filter_map(|slot| slot.definer.map(|(to, symbol)| (slot.at, to, symbol)))
        .collect();
    for (at, to, symbol) in bound {
        let (Some(value), Some(binding)) = (object.image.read_u64(at), Binding::new(linker, id, to, symbol)) else {
            continue;
        };
        let inside = Inside::begin();
        let answer = binding.ask(value, true);
        drop(inside);
        if answer.value != value {
            object.image.write_u64(at, answer.value);
        }
    }
}
