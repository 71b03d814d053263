//! Telling the modules what happens to objects.

use super::{audited, audited_in_gate, interfaces, is_active, is_own, know, Inside};
use crate::glibc::audit::{search, Activity};
use crate::process;
use alloc::ffi::CString;
use alloc::vec::Vec;
use core::ffi::{c_long, CStr};
use core::sync::atomic::Ordering;
use loader::linker::Transaction;
use loader::object::{NamespaceId, ObjectId};
use loader::search::finder::Step;
use loader::search::lookup::Source;

/// Tells that the list of a namespace begins to change or is complete again. The gate must not be held. The cookie is that of the list's
/// first object; where there is none any more nobody can be told.
pub fn activity(namespace: NamespaceId, activity: Activity) {
    if !is_active() || is_own(namespace) {
        return;
    }
    let head = {
        let mut process = process::enter();
        let first = process.linker.namespaces.get(usize::from(namespace.0)).and_then(|n| n.list.first()).copied();
        first.map(|id| know(&mut process, id))
    };
    let Some(head) = head else {
        return;
    };
    for (module, interface) in interfaces() {
        if let Some(function) = interface.activity {
            // SAFETY: `la_activity` of a module that was accepted.
            unsafe { function(head.cookie(module), activity as u32) };
        }
    }
}

/// Makes the link map of an object that a transaction has just added, and tells of the object; of the first one also, if `announces`,
/// that the list is changing. The gate must not be held.
pub fn added(transaction: &Transaction, id: ObjectId, announces: bool) {
    {
        let mut gate = process::enter();
        let process = &mut *gate;
        let layout = process::layout();
        process.maps.add(layout, &process.linker, id);
        process.maps.publish_list(layout, &process.linker, transaction.namespace);
    }
    if announces && transaction.added.first() == Some(&id) {
        activity(transaction.namespace, Activity::Add);
    }
    open(id);
}

/// Tells that the list is complete after an object has been opened with all that it needs: if something has come with it, and as glibc
/// does, when an object is opened for the first time that was there for the sake of others. The gate must not be held.
pub fn opened(root: ObjectId, has_new: bool) {
    if !is_active() {
        return;
    }
    let (object, namespace) = {
        let process = process::enter();
        let is_main = root == process.main;
        (audited(&process.linker, root).filter(|_| !is_main), process.linker.objects[root].namespace)
    };
    let is_first = object.is_some_and(|object| !object.is_root.swap(true, Ordering::Relaxed));
    if has_new || is_first {
        activity(namespace, Activity::Consistent);
    }
}

/// Tells that an object is there, which has a link map; the answers say whose bindings are of interest. The gate must not be held.
pub fn open(id: ObjectId) {
    if !is_active() {
        return;
    }
    let (object, map, namespace) = {
        let mut process = process::enter();
        let namespace = process.linker.objects[id].namespace;
        if is_own(namespace) {
            return;
        }
        (know(&mut process, id), process.maps.address(id), namespace)
    };
    for (module, interface) in interfaces() {
        if let Some(function) = interface.open {
            // SAFETY: `la_objopen` of a module that was accepted, with a link map that lives as long as the object.
            let interest = unsafe { function(map, c_long::from(namespace.0), object.cookie(module)) };
            object.set_interest(module, interest);
        }
    }
}

/// Tells that an object goes, after its destructors have run; once. The gate must not be held.
pub fn close(id: ObjectId) {
    if !is_active() {
        return;
    }
    let object = {
        let process = process::enter();
        audited(&process.linker, id).filter(|object| !is_own(object.namespace))
    };
    let Some(object) = object.filter(|object| !object.is_closed.swap(true, Ordering::Relaxed)) else {
        return;
    };
    for (module, interface) in interfaces() {
        if let Some(function) = interface.close {
            // SAFETY: `la_objclose` of a module that was accepted.
            unsafe { function(object.cookie(module)) };
        }
    }
}

/// Tells that objects go that have not been said to; after them the interpreter, in namespaces where only they need it. There it has a
/// link map of its own, of whose coming glibc does not tell. The gate must not be held.
pub fn close_all(dead: &[ObjectId]) {
    dead.iter().for_each(|id| close(*id));
    let stand_ins: Vec<usize> = {
        let process = process::enter();
        let linker = &process.linker;
        let mut namespaces: Vec<NamespaceId> = dead.iter().map(|id| linker.objects[*id].namespace).collect();
        namespaces.sort_unstable();
        namespaces.dedup();
        let interpreter = process.interpreter;
        let goes = |namespace: &NamespaceId| {
            let needs = |id: &ObjectId| !dead.contains(id) && linker.objects[*id].needed.contains(&interpreter);
            !is_own(*namespace) && !linker.namespace(*namespace).list.iter().any(needs)
        };
        let namespaces = namespaces.into_iter().filter(goes);
        namespaces.filter_map(|namespace| process.maps.stand_in_address(namespace)).map(|map| map.0).collect()
    };
    for mut cookie in stand_ins {
        for function in interfaces().filter_map(|(_, interface)| interface.close) {
            // SAFETY: `la_objclose` of a module that was accepted.
            unsafe { function(&mut cookie) };
        }
    }
}

/// Tells that the program is about to begin. The gate must not be held.
pub fn preinit() {
    if !is_active() {
        return;
    }
    let program = {
        let mut process = process::enter();
        let main = process.main;
        know(&mut process, main)
    };
    for (module, interface) in interfaces() {
        if let Some(function) = interface.preinit {
            // SAFETY: `la_preinit` of a module that was accepted.
            unsafe { function(program.cookie(module)) };
        }
    }
}

/// Tells which name is looked for or path is about to be tried for an object; the name to go on with, or `None` for none. Each module
/// gets the answer of the one before it. The finder calls this while the gate is held.
pub fn search(name: &[u8], asker: ObjectId, step: Step) -> Option<Vec<u8>> {
    let flag = match step {
        Step::Asked => search::ORIGINAL,
        Step::Path(Source::LibraryPath) => search::LIBRARY_PATH,
        Step::Path(Source::Rpath(_) | Source::Runpath) => search::RUNPATH,
        Step::Path(Source::Default) => search::DEFAULT,
        Step::Cache => search::CACHE,
    };
    // SAFETY: the finder works under the gate.
    let Some(object) = (unsafe { audited_in_gate(asker) }).filter(|object| !is_own(object.namespace)) else {
        return Some(name.to_vec());
    };
    let mut name = CString::new(name).ok()?;
    for (module, interface) in interfaces() {
        if let Some(function) = interface.search {
            let inside = Inside::begin();
            // SAFETY: `la_objsearch` of a module that was accepted.
            let answer = unsafe { function(name.as_ptr(), object.cookie(module), flag) };
            drop(inside);
            if answer.is_null() {
                return None;
            }
            if !core::ptr::eq(answer, name.as_ptr()) {
                // SAFETY: a module answers with a C string.
                name = unsafe { CStr::from_ptr(answer) }.into();
            }
        }
    }
    Some(name.into_bytes())
}
