//! Where objects look up their symbols, as dlopen changes it: the global scope, and the closures behind it.

use super::{debug, lazy};
use crate::process::{self, Process};
use alloc::vec::Vec;
use loader::linker::Linker;
use loader::object::{NamespaceId, ObjectId};

/// Puts an object and its closure at the end of the global scope.
pub fn make_global(process: &mut Process, root: ObjectId) {
    let closure = process.linker.closure_of(root);
    let namespace = process.linker.objects[root].namespace;
    for id in closure {
        if process.linker.objects[id].global {
            continue;
        }
        process.linker.objects[id].global = true;
        debug::made_global(&process.linker.objects[id]);
        process.linker.namespace_mut(namespace).global_scope.push(id);
        process.maps.refresh(process::layout(), &process.linker, id);
    }
    lazy::publish(&process.linker);
}

/// Lets objects of earlier dlopens look their symbols up in the closure that has come to need them too, behind their own: as in glibc,
/// where the scope of the closure is added to them.
pub fn widen(linker: &mut Linker, closure: &[ObjectId], new: &[ObjectId]) {
    let mut is_changed = false;
    for &id in closure.iter().filter(|id| !new.contains(id)) {
        let object = &mut linker.objects[id];
        // Those of the start look everything up in the global scope alone.
        if !object.local_scope.is_empty() {
            let more: Vec<ObjectId> = closure.iter().copied().filter(|id| !object.local_scope.contains(id)).collect();
            is_changed |= !more.is_empty();
            object.local_scope.extend(more);
        }
    }
    if is_changed {
        lazy::publish(linker);
    }
}

/// The objects that are not undeletable themselves and whose definition of an `STB_GNU_UNIQUE` symbol is in use: as in glibc they stay.
pub fn unique_definers(process: &Process, namespace: NamespaceId) -> Vec<ObjectId> {
    let unique = process.linker.namespace(namespace).unique.borrow();
    let mut definers: Vec<ObjectId> = unique.values().map(|d| d.object).collect();
    definers.sort_unstable();
    definers.dedup();
    definers.retain(|id| process.linker.objects[*id].counts_references());
    definers
}
