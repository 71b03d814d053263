//! `dlclose(3)`: what nobody holds any more is unloaded; and promotion, by which an object comes to stay for ever.

use super::{debug, init, lazy, namespace, open};
use crate::audit;
use crate::glibc::audit::Activity;
use crate::glibc::tls_modules::Module;
use crate::glibc::{debugger, find_object, locks, tls};
use crate::process::{self, Process};
use alloc::collections::BTreeSet;
use alloc::vec::Vec;
use goblin::elf64::dynamic::DF_1_NODELETE;
use loader::error::{LoadError, Lossy};
use loader::linker::Linker;
use loader::object::{NamespaceId, ObjectId, Stage, Stay, BASE_NAMESPACE};
use loader::reloc::Dependency;
use loader::rule::{holds, Rule};

/// What stays at least as long as an object: what it needs, and what it refers to.
pub fn held_by(linker: &Linker, id: ObjectId) -> Vec<ObjectId> {
    let mut held = linker.closure_of(id);
    held.extend(linker.objects[id].references());
    held
}

/// Takes note of what references mean, in their order: objects stay at least as long as what refers to them, and for ever if that is the
/// start-up closure. The objects of which that is so.
pub fn note_dependencies(process: &mut Process, met: impl IntoIterator<Item = Dependency>) -> Vec<ObjectId> {
    let mut kept = Vec::new();
    for dependency in met {
        let (from, to) = match dependency {
            Dependency::Unique(definer) => {
                promote(process, &[definer]);
                continue;
            }
            Dependency::Reference(from, to) => (from, to),
        };
        if !process.linker.objects[to].counts_references() {
            continue;
        }
        if process.linker.objects[from].is_of_the_start() {
            debug::kept_by_reference(&process.linker, from, to);
            promote(process, &[to]);
            kept.push(to);
            continue;
        }
        let object = &mut process.linker.objects[from];
        // The order of destructors heeds what is noted: as in glibc that is all but what the object itself asks for.
        if !object.initialised_before().contains(&to) && !object.references().contains(&to) {
            object.references.get_or_insert_default().push(to);
            let stays = object.stay == Stay::Forever;
            debug::depends(&process.linker, from, to);
            lazy::publish(&process.linker);
            if stays {
                let kept = hold(process, &[to]);
                open::seal_kept(process, &kept);
            }
        }
    }
    kept
}

/// Makes objects undeletable, so that they and their closures stay for ever, and seals them.
pub fn promote(process: &mut Process, roots: &[ObjectId]) {
    let kept = keep(process, roots);
    open::seal_kept(process, &kept);
}

/// Makes objects undeletable, so that they and their closures stay for ever; those that could have gone before.
pub fn keep(process: &mut Process, roots: &[ObjectId]) -> Vec<ObjectId> {
    for &id in roots {
        process.linker.objects[id].undeletable = true;
    }
    let held = hold(process, roots);
    if held.is_empty() {
        // References to them are no longer taken note of.
        lazy::publish(&process.linker);
    }
    held
}

/// Makes objects and their closures stay for ever; those that could have gone before.
fn hold(process: &mut Process, roots: &[ObjectId]) -> Vec<ObjectId> {
    let mut promoted = Vec::new();
    let mut work = roots.to_vec();
    while let Some(id) = work.pop() {
        let object = &mut process.linker.objects[id];
        if object.stay == Stay::Forever {
            continue;
        }
        object.stay = Stay::Forever;
        promoted.push(id);
        work.extend(&object.needed);
        work.extend(object.references());
    }
    if !promoted.is_empty() {
        lazy::publish(&process.linker);
    }
    promoted
}

/// Closes an object once.
///
/// # Errors
/// It is not open.
pub fn close(id: ObjectId) -> Result<(), LoadError> {
    audit::allow_changes(b"")?;
    let load_lock = locks::load();
    {
        let mut process = process::enter();
        let is_nested = process.collector != 0;
        let object = &mut process.linker.objects[id];
        // What is undeletable itself can be closed any number of times; what stays for another reason counts, as in glibc.
        if object.undeletable || object.dynamic.has_flag_1(DF_1_NODELETE) {
            return Ok(());
        }
        if object.open_count == 0 {
            return Err(super::error::fault(object.name.to_bytes(), "shared object not open"));
        }
        object.open_count -= 1;
        if object.open_count > 0 || object.is_of_the_start() || is_nested {
            let name = Lossy(object.name.to_bytes());
            log::debug!(target: "files", "\nclosing file={name}; direct_opencount={}", object.open_count);
        }
        if object.stay == Stay::Forever {
            return Ok(());
        }
        // A destructor that closes another object: whoever runs it looks again when it returns.
        if is_nested {
            return Ok(());
        }
        process.collector = tls::thread_pointer().0;
    }
    collect();
    process::enter().collector = 0;
    drop(load_lock);
    Ok(())
}

/// Unloads whatever is not held: directly, by what is needed, by references, or by thread-local destructors that have yet to run.
fn collect() {
    loop {
        let dead = {
            let mut process = process::enter();
            let dead = dead_objects(&process);
            process.linker.settle_orders(&dead);
            dead
        };
        if dead.is_empty() {
            return;
        }
        let pending: Vec<ObjectId> = {
            let process = process::enter();
            dead.iter().copied().filter(|id| process.linker.objects[*id].stage == Stage::Initialised).collect()
        };
        if pending.is_empty() {
            tell_and_unload(&dead);
            if audit::is_active() {
                // What its callbacks have closed.
                continue;
            }
            return;
        }
        // A destructor may open or close objects: look again afterwards.
        for id in pending {
            // SAFETY: the load lock is held, so nobody unmaps the object.
            unsafe { init::run_destructors(id) };
            audit::close(id);
        }
    }
}

/// The closable objects that nothing holds, dependents first.
fn dead_objects(process: &Process) -> Vec<ObjectId> {
    let linker = &process.linker;
    let held = |id: ObjectId| {
        let object = &linker.objects[id];
        object.stay == Stay::Forever
            || (object.open_count > 0 && holds(Rule::CountedOpens))
            || (process.maps.tls_destructors(process::layout(), id) > 0 && holds(Rule::ThreadDestructorsHold))
    };
    let mut alive: BTreeSet<ObjectId> = BTreeSet::new();
    let mut work: Vec<ObjectId> = linker.objects.iter().map(|(id, _)| id).filter(|id| held(*id)).collect();
    while let Some(id) = work.pop() {
        if alive.insert(id) {
            work.extend(&linker.objects[id].needed);
            work.extend(linker.objects[id].references());
        }
    }
    let dead = linker.objects.iter().map(|(id, _)| id).filter(|id| !alive.contains(id));
    let namespaces: BTreeSet<NamespaceId> = dead.map(|id| linker.objects[id].namespace).collect();
    namespaces.iter().flat_map(|at| linker.finalisation_order(*at, &|id| alive.contains(&id))).collect()
}

/// Unloads dead objects and tells audit modules of it.
fn tell_and_unload(dead: &[ObjectId]) {
    if !audit::is_active() {
        return unload();
    }
    let namespaces: BTreeSet<NamespaceId> = {
        let process = process::enter();
        dead.iter().map(|id| process.linker.objects[*id].namespace).collect()
    };
    audit::close_all(dead);
    namespaces.iter().for_each(|namespace| audit::activity(*namespace, Activity::Delete));
    // A callback may have opened one of them again: it looks itself.
    unload();
    namespaces.iter().for_each(|namespace| audit::activity(*namespace, Activity::Consistent));
}

/// Unloads what is dead and has nothing left to run.
fn unload() {
    let (dead, unread) = lazy::withdraw(|process| {
        let mut dead = dead_objects(process);
        dead.retain(|id| process.linker.objects[*id].stage != Stage::Initialised);
        dead
    });
    let dead = dead.as_slice();
    // Before the gate: callbacks of `dl_iterate_phdr`, which holds this lock, may come to the gate by lazy binding.
    let _write_lock = locks::write();
    let mut gate = process::enter();
    let process = &mut *gate;
    let layout = process::layout();
    let namespaces: BTreeSet<NamespaceId> = dead.iter().map(|id| process.linker.objects[*id].namespace).collect();
    namespace::announce(&namespaces, debugger::State::Delete);
    let generation = tls::generation() + 1;
    let mut had_tls = false;
    for &id in dead {
        let object = &process.linker.objects[id];
        let (name, at) = (Lossy(object.name.to_bytes()), object.namespace.0);
        log::debug!(target: "files", "\nfile={name} [{at}];  destroying link map");
        let namespace = object.namespace;
        let module = object.tls_state.get().module();
        if module != 0 {
            tls::set_module(module, Module { generation, ..Module::FREE });
            had_tls = true;
        }
        forget_first(process, namespace, id);
        process.linker.namespace_mut(namespace).list.retain(|&o| o != id);
    }
    for &namespace in &namespaces {
        process.maps.publish_list(layout, &process.linker, namespace);
    }
    if had_tls {
        tls::set_generation(generation);
    }
    find_object::publish_without(&process.linker, dead, |id| process.maps.address(id));
    for &id in dead {
        process.finder.forget(id);
        if unread {
            process.linker.unload(id);
        } else {
            drop(process.linker.forget(id));
        }
        process.maps.remove(id);
        audit::forget(process, id);
    }
    lazy::withdrawn_are_gone();
    // The end of static TLS that nobody uses any more is free again.
    let in_use = process.linker.objects.iter().filter_map(|(_, o)| o.tls_state.get().static_offset()).max();
    process.static_tls.layout.used = in_use.unwrap_or(0);
    namespace::tidy(process, &namespaces);
    for object in process.linker.objects.iter_mut() {
        // The scope of the root goes with it; what is left is the scope that the object has in its own right.
        let is_left = |id: &&ObjectId| !dead.contains(id);
        let deep = object.local_scopes().0;
        let goes = deep.first().is_some_and(|root| dead.contains(root)) && !object.initialisation_order.is_empty();
        object.deep = if goes { 0 } else { deep.iter().filter(is_left).count() };
        object.local_scope.retain(|id| !dead.contains(id));
    }
    for (id, _) in process.linker.objects.iter() {
        process.maps.refresh(layout, &process.linker, id);
    }
    if had_tls {
        crate::glibc::start::publish_modules(process);
    }
    namespace::announce(&namespaces, debugger::State::Consistent);
}

/// What the first object of a namespace brought in was visible to everybody in it for its sake.
fn forget_first(process: &mut Process, namespace: NamespaceId, id: ObjectId) {
    let linker = &mut process.linker;
    if namespace != BASE_NAMESPACE && linker.namespace(namespace).list.first() == Some(&id) {
        let mut scope = core::mem::take(&mut linker.namespace_mut(namespace).global_scope);
        scope.retain(|id| linker.objects[*id].global);
        linker.namespace_mut(namespace).global_scope = scope;
    }
}
