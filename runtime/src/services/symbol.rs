//! `dlsym(3)` and `dlvsym(3)`.

use crate::audit;
use crate::glibc::tls;
use crate::process::{self, Process};
use alloc::vec::Vec;
use goblin::elf::sym::STB_GNU_UNIQUE;
use loader::addr::Addr;
use loader::elf::hash;
use loader::elf::symbols::HashedName;
use loader::elf::version::{Version, Wanted};
use loader::error::{LoadError, Lossy, Reason};
use loader::linker::Linker;
use loader::lookup::{Class, Definition, Query, Scope};
use loader::memory;
use loader::object::ObjectId;
use loader::reloc::{self, Dependency};
use loader::rule::{holds, Rule};
use loader::statistics::LOOKUPS;

/// Where to look.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Where {
    /// `RTLD_DEFAULT`: as a reference in the calling object.
    Default,
    /// `RTLD_NEXT`: behind the calling object.
    Next,
    /// In an object and its closure.
    Object(ObjectId),
}

/// The address of a symbol.
///
/// # Errors
/// There is none.
pub fn find(place: Where, name: &[u8], version: Option<&[u8]>, caller: Addr) -> Result<u64, LoadError> {
    let mut gate = process::enter();
    let process = &mut *gate;
    let calling = process.linker.find_by_address(caller);
    let asker = calling.unwrap_or(process.main);
    let (ids, skip, label) = match place {
        Where::Default => (default_scope(process, asker), None, asker),
        Where::Object(id) => (handle_scope(process, id), None, id),
        Where::Next => {
            if calling.is_none() {
                let what = "RTLD_NEXT used in code not dynamically loaded";
                return Err(LoadError::fault(process.linker.objects[process.main].display_name(), what));
            }
            (next_scope(process, asker), Some(asker).filter(|_| holds(Rule::NextIsBehind)), asker)
        }
    };
    let wanted = version.map(|name| Wanted { version: Version { name, hash: hash::sysv(name) }, exact: true });
    let query = Query { name: HashedName::new(name), version: wanted, class: Class::Data, newest: true };
    let linker = &process.linker;
    let namespace = linker.namespace(linker.objects[label].namespace);
    LOOKUPS.add(1);
    let found = Scope::new(&linker.objects, ids).find_after(skip, &query, &namespace.unique);
    let Some(found) = found else {
        let reason = Reason::UndefinedSymbol { symbol: memory::copy_of(name), version: version.map(memory::copy_of) };
        return Err(LoadError::new(linker.objects[label].display_name(), reason));
    };
    if log::log_enabled!(target: "bindings", log::Level::Trace) {
        log_binding(linker, label, found.object, name, version);
    }
    if linker.objects[found.object].counts_references() && found.object != asker && place == Where::Default {
        super::close::note_dependencies(process, [Dependency::Reference(asker, found.object)]);
    }
    if found.symbol.st_info >> 4 == STB_GNU_UNIQUE && process.linker.objects[found.object].counts_references() {
        super::close::promote(process, &[found.object]);
    }
    let kind = value(process, &found);
    drop(gate);
    let value = match kind {
        Value::Address(address) => address,
        // SAFETY: the symbol is a resolver of a relocated object.
        Value::Resolver(resolver) => unsafe { super::call_resolver(resolver) },
        Value::ThreadLocal { module, offset } => (tls::current_block(module) as u64).wrapping_add(offset),
    };
    Ok(audit::bindings::looked_up(asker, found.object, found.symbol, value))
}

/// Tells what was found, as for references.
#[cold]
fn log_binding(linker: &Linker, from: ObjectId, to: ObjectId, name: &[u8], version: Option<&[u8]>) {
    let (from, to) = (&linker.objects[from], &linker.objects[to]);
    log::trace!(
        target: "bindings",
        "binding file {} [{}] to {} [{}]: normal symbol `{}'{}{}{}",
        Lossy(from.display_name()),
        from.namespace.0,
        Lossy(to.display_name()),
        to.namespace.0,
        Lossy(name),
        if version.is_some() { " [" } else { "" },
        Lossy(version.unwrap_or_default()),
        if version.is_some() { "]" } else { "" },
    );
}

enum Value {
    Address(u64),
    Resolver(Addr),
    ThreadLocal { module: usize, offset: u64 },
}

fn value(process: &Process, found: &Definition) -> Value {
    const STT_TLS: u8 = 6;
    let object = &process.linker.objects[found.object];
    if found.symbol.st_info & 0xf == STT_TLS {
        return Value::ThreadLocal { module: object.tls_state.get().module(), offset: found.symbol.st_value };
    }
    let address = reloc::value_of(object, found.symbol);
    if reloc::is_ifunc(found.symbol) {
        Value::Resolver(Addr(address as usize))
    } else {
        Value::Address(address)
    }
}

/// Where the references of an object are looked up.
fn default_scope(process: &Process, asker: ObjectId) -> Vec<ObjectId> {
    let object = &process.linker.objects[asker];
    let mut ids = Vec::new();
    if object.looks_into_itself_first() {
        ids.push(asker);
    }
    let (before, behind) = object.local_scopes();
    ids.extend(before);
    ids.extend(&process.linker.namespace(object.namespace).global_scope);
    ids.extend(behind);
    ids
}

/// Where a handle is looked up: the program's stands for the global scope.
fn handle_scope(process: &Process, id: ObjectId) -> Vec<ObjectId> {
    if id == process.main {
        process.linker.namespace(process.linker.objects[id].namespace).global_scope.clone()
    } else {
        process.linker.closure_of(id)
    }
}

/// The list in which `RTLD_NEXT` goes on behind the caller: that of the object which brought it in.
fn next_scope(process: &Process, asker: ObjectId) -> Vec<ObjectId> {
    let mut root = asker;
    while let Some(loader) = process.linker.objects[root].loader {
        root = loader;
    }
    handle_scope(process, root)
}
