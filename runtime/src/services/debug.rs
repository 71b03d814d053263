//! What `LD_DEBUG` tells of dlopen and dlclose, in glibc's words.

use super::error;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use loader::error::{LoadError, Lossy};
use loader::linker::Linker;
use loader::object::{Kind, Object, ObjectId};
use log::Level::Debug;

/// The name of an object and its namespace, as messages have them.
fn place(object: &Object) -> String {
    alloc::format!("{} [{}]", Lossy(object.display_name()), object.namespace.0)
}

/// Tells `LD_DEBUG=scopes` where an object looks up its symbols.
pub fn scopes(linker: &Linker, id: ObjectId) {
    let object = &linker.objects[id];
    let name = |id: ObjectId| Lossy(linker.objects[id].display_name()).to_string();
    log::debug!(target: "scopes", "object={}", place(object));
    if object.kind == Kind::Interpreter {
        log::debug!(target: "scopes", " no scope\n");
        return;
    }
    let global = linker.namespace(object.namespace).global_scope.as_slice();
    let (before, behind) = object.local_scopes();
    let behind = if object.kind == Kind::Vdso { &[id][..] } else { behind };
    // The first object of a namespace, and what came with it, look in what is global there anyway.
    let [before, behind] = [before, behind].map(|own| if global.starts_with(own) { &[] } else { own });
    let first = if object.looks_into_itself_first() { &[id][..] } else { &[] };
    let order = [first, before, global, behind];
    let mut text = String::new();
    for (number, ids) in order.iter().filter(|ids| !ids.is_empty()).enumerate() {
        let names: Vec<String> = ids.iter().map(|id| name(*id)).collect();
        text += &alloc::format!(" scope {number}: {}\n", names.join(" "));
    }
    log::debug!(target: "scopes", "{text}");
}

/// Tells the same of an object that is opened for the first time, before it is relocated.
pub fn opened_scope(linker: &Linker, root: ObjectId) {
    if log::log_enabled!(target: "scopes", Debug) {
        scopes(linker, root);
    }
}

/// Tells the same of it and of everything that it needs, afterwards.
pub fn opened_scopes(linker: &Linker, closure: &[ObjectId]) {
    if log::log_enabled!(target: "scopes", Debug) {
        for &id in closure {
            scopes(linker, id);
        }
    }
}

/// Tells `LD_DEBUG=scopes` that the symbols of an object are visible to everybody from now on.
pub fn made_global(object: &Object) {
    if log::log_enabled!(target: "scopes", Debug) {
        log::debug!(target: "scopes", "\nadd {} to global scope", place(object));
    }
}

/// Tells `LD_DEBUG=files` on whose behalf a file is looked for.
pub fn loaded_by(linker: &Linker, name: &[u8], namespace: u8, asker: ObjectId) {
    if log::log_enabled!(target: "files", Debug) {
        let by = place(&linker.objects[asker]);
        log::debug!(target: "files", "\nfile={} [{namespace}];  dynamically loaded by {by}", Lossy(name));
    }
}

/// Tells `LD_DEBUG=files` that `to` comes to stay because `from`, which does, refers to it.
pub fn kept_by_reference(linker: &Linker, from: ObjectId, to: ObjectId) {
    if !log::log_enabled!(target: "files", Debug) {
        return;
    }
    let (from, to) = (&linker.objects[from], place(&linker.objects[to]));
    if from.kind == Kind::Executable {
        log::debug!(target: "files", "marking {to} as NODELETE due to reference from main program");
    } else {
        log::debug!(target: "files", "marking {to} as NODELETE due to reference from {}", place(from));
    }
}

/// Tells `LD_DEBUG=files` that `to` stays as long as `from`.
pub fn depends(linker: &Linker, from: ObjectId, to: ObjectId) {
    if log::log_enabled!(target: "files", Debug) {
        let (from, to) = (place(&linker.objects[from]), place(&linker.objects[to]));
        log::debug!(target: "files", "\nfile={to};  needed by {from} (relocation dependency)\n");
    }
}

/// Tells `LD_DEBUG` why a dlopen fails, and what it takes back.
pub fn taken_back(linker: &Linker, added: &[ObjectId], error: &LoadError) {
    error::tell(error);
    if log::log_enabled!(target: "files", Debug) {
        for &id in added {
            log::debug!(target: "files", "\nfile={};  destroying link map", place(&linker.objects[id]));
        }
    }
}

/// Tells `LD_DEBUG=files` that an object that was there is opened to stay.
pub fn kept(object: &Object) {
    if log::log_enabled!(target: "files", Debug) {
        let (name, at) = (Lossy(object.name.to_bytes()), object.namespace.0);
        log::debug!(target: "files", "marking {name} [{at}] as NODELETE");
    }
}

/// Tells `LD_DEBUG=files` which objects a dlopen makes stay: those of `ids`, in the order of their namespace's list.
pub fn keeps(linker: &Linker, ids: &[ObjectId]) {
    if !log::log_enabled!(target: "files", Debug) {
        return;
    }
    for namespace in &linker.namespaces {
        for &id in namespace.list.iter().filter(|id| ids.contains(id)) {
            log::debug!(target: "files", "activating NODELETE for {}", place(&linker.objects[id]));
        }
    }
}
