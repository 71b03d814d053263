//! What a dlopen that fails takes back: its objects, and the memory that the interpreter's heap has taken for it.

use super::{debug, lazy, namespace, tlsdesc};
use crate::audit;
use crate::glibc::audit::Activity;
use crate::glibc::{debugger, find_object, locks, tls};
use crate::heap::{Mark, HEAP};
use crate::process::{self, Process};
use loader::error::LoadError;
use loader::linker::Transaction;
use loader::object::ObjectId;

/// Gives the memory back that was taken since a transaction began, whose objects are gone. What has to stay is moved: the tables of what is
/// loaded, if they have grown, and the error. The gate must not be held.
pub fn give_memory_back(mark: Mark, mut error: LoadError) -> LoadError {
    if !HEAP.leave(mark) {
        return error;
    }
    renew(&mut process::enter());
    error.renew();
    HEAP.left();
    error
}

fn renew(process: &mut Process) {
    process.linker.renew();
    process.finder.renew();
    process.maps.renew();
    audit::renew(process);
    let modules = &process.linker.tls_modules;
    tlsdesc::renew(|module| module.checked_sub(1).and_then(|at| modules.get(at)).is_some_and(Option::is_some));
    lazy::publish(&process.linker);
}

/// Takes back a transaction of whose objects audit modules have been told.
pub fn withdraw(transaction: &Transaction, error: &LoadError) {
    let namespace = transaction.namespace;
    let order = {
        let mut process = process::enter();
        for &id in &transaction.added {
            // A callback may close objects of its own, by which these must not go yet.
            process.linker.objects[id].open_count += 1;
        }
        process.linker.finalisation_order(namespace, &|id| !transaction.added.contains(&id))
    };
    audit::close_all(&order);
    if !order.is_empty() {
        audit::activity(namespace, Activity::Delete);
    }
    debug::taken_back(&process::enter().linker, &transaction.added, error);
    abandon(&transaction.added);
    if !order.is_empty() {
        audit::activity(namespace, Activity::Consistent);
    }
}

/// Takes out and unmaps objects that were not linked.
pub fn abandon(added: &[ObjectId]) {
    // Before the gate: callbacks of `dl_iterate_phdr`, which holds this lock, may come to the gate by lazy binding.
    let _write_lock = locks::write();
    let mut gate = process::enter();
    let process = &mut *gate;
    // A transaction has one namespace.
    let Some(namespace) = added.first().map(|id| process.linker.objects[*id].namespace) else {
        return;
    };
    debugger::state(namespace, debugger::State::Delete);
    process.linker.namespace_mut(namespace).list.retain(|id| !added.contains(id));
    process.maps.publish_list(process::layout(), &process.linker, namespace);
    for &id in added {
        tls::forget_module(process.linker.objects[id].tls_state.get().module());
    }
    for &id in added.iter().rev() {
        process.finder.forget(id);
        process.linker.unload(id);
        process.maps.remove(id);
        audit::forget(process, id);
    }
    namespace::tidy(process, [&namespace]);
    debugger::state(namespace, debugger::State::Consistent);
    find_object::publish(&process.linker, |id| process.maps.address(id));
}
