//! `dlopen(3)`: a transaction that loads an object and its closure, or leaves nothing behind.

use super::namespace::Target;
use super::{close, debug, init, link, namespace, rollback, scopes, seal};
use crate::audit;
use crate::glibc::thread::{self, Stacks};
use crate::glibc::tls_modules::{Module, Place};
use crate::glibc::{debugger, find_object, locks, tls};
use crate::heap::{self, HEAP};
use crate::process::{self, Process};
use crate::profile;
use alloc::vec::Vec;
use core::ffi::CStr;
use loader::addr::Addr;
use loader::error::{LoadError, Lossy, Reason};
use loader::linker::{self, Transaction, Walk};
use loader::memory;
use loader::object::{NamespaceId, Object, ObjectId, Stage, Stay, BASE_NAMESPACE};
use loader::program;
use loader::reloc::{Dependency, PltMode};
use loader::rule::{holds, Rule};
use loader::seal::plan;
use loader::tls::TlsState;
use rustix::io::Errno;

/// Bits of the mode argument (`dlfcn.h`).
pub mod mode {
    /// `RTLD_LAZY`
    pub const LAZY: i32 = 1;
    /// `RTLD_NOW`
    pub const NOW: i32 = 2;
    /// `RTLD_NOLOAD`
    pub const NOLOAD: i32 = 4;
    /// `RTLD_DEEPBIND`
    pub const DEEPBIND: i32 = 8;
    /// `RTLD_GLOBAL`
    pub const GLOBAL: i32 = 0x100;
    /// `RTLD_NODELETE`
    pub const NODELETE: i32 = 0x1000;
    /// It is an audit module (glibc's `__RTLD_AUDIT`); nobody outside can ask for that.
    pub const AUDIT: i32 = 0x0800_0000;
}

/// A request.
#[derive(Clone, Copy)]
pub struct Request<'r> {
    /// The name, `None` or empty for the program.
    pub name: Option<&'r CStr>,
    /// Mode bits.
    pub mode: i32,
    /// An address in the object that asks.
    pub caller: Addr,
    /// The namespace to open it in.
    pub target: Target,
}

/// Opens an object; `None` for one that is not loaded, with `RTLD_NOLOAD`.
///
/// # Errors
/// Whatever keeps it or its closure from being loaded. Everything is then as before.
pub fn open(request: &Request<'_>) -> Result<Option<ObjectId>, LoadError> {
    let name = request.name.map_or(&b""[..], CStr::to_bytes);
    if request.mode & (mode::LAZY | mode::NOW) == 0 {
        return Err(LoadError::system(name, "invalid mode for dlopen()", Errno::INVAL));
    }
    audit::allow_changes(name)?;
    let load_lock = locks::load();
    let mark = HEAP.begin();
    let linked = link(name, request).map_err(|error| rollback::give_memory_back(mark, error))?;
    let Some(Linked { root, order, comes_to_stay }) = linked else {
        return Ok(None);
    };
    // SAFETY: the transaction is committed: all new objects are relocated.
    unsafe {
        init::run_first_constructors(&order);
        init::run_constructors(&order);
    }
    // Which comes first of the two lines that LD_DEBUG may have is glibc's.
    let was_open = process::enter().linker.objects[root].open_count > 1;
    if was_open {
        tell_opened(root, comes_to_stay);
    }
    if request.mode & mode::GLOBAL != 0 && holds(Rule::GlobalPromotion) {
        scopes::make_global(&mut process::enter(), root);
    }
    if !was_open {
        tell_opened(root, comes_to_stay);
    }
    drop(load_lock);
    heap::prepare_for_failure();
    Ok(Some(root))
}

/// Tells `LD_DEBUG=files` how often an object is open now.
fn tell_opened(root: ObjectId, comes_to_stay: bool) {
    if log::log_enabled!(target: "files", log::Level::Debug) {
        let process = process::enter();
        let object = &process.linker.objects[root];
        let (name, at) = (Lossy(object.name.to_bytes()), object.namespace.0);
        log::debug!(target: "files", "opening file={name} [{at}]; direct_opencount={}\n", object.open_count);
        if comes_to_stay {
            debug::kept(object);
        }
    }
}

/// What is ready for use.
struct Linked {
    root: ObjectId,
    /// Its closure in the order of initialisation; empty if it was there before.
    order: Vec<ObjectId>,
    /// Whether it was there before and could have gone.
    comes_to_stay: bool,
}

/// Makes the object and its closure ready for use: all of the transaction; `None` for one that is not loaded, with `RTLD_NOLOAD`.
fn link(name: &[u8], request: &Request<'_>) -> Result<Option<Linked>, LoadError> {
    memory::ensure_for_name(name).map_err(|reason| LoadError::new(name, reason))?;
    let opening = match prepare(name, request)? {
        Prepared::NotLoaded => return Ok(None),
        Prepared::Loaded { root, comes_to_stay } => {
            audit::opened(root, false);
            return Ok(Some(Linked { root, order: Vec::new(), comes_to_stay }));
        }
        Prepared::New(opening) => opening,
    };
    let root = opening.root;
    let is_first = !was_opened(&process::enter().linker.objects[root]);
    let comes_to_stay = !opening.transaction.added.contains(&root)
        && comes_to_stay(&process::enter().linker.objects[root], request.mode);
    announce(&opening);
    let concerns_threads = concerns_threads(&process::enter(), &opening);
    // Before the gate, as libc has it.
    let stacks = concerns_threads.then(|| thread::lock_stacks(process::layout()));
    let outcome = finish(&mut process::enter(), &opening, stacks.as_ref());
    drop(stacks);
    let order = outcome.inspect_err(|error| rollback::withdraw(&opening.transaction, error))?;
    if is_first {
        debug::opened_scopes(&process::enter().linker, &opening.closure);
    }
    namespace::initialise_libc(&opening.transaction);
    // Whoever opened it before runs the constructors that are still to come.
    let order = if is_first { order } else { Vec::new() };
    Ok(Some(Linked { root, order, comes_to_stay }))
}

/// Whether an object that was opened before is now told to stay for the first time.
fn comes_to_stay(object: &Object, mode: i32) -> bool {
    // Of the start's objects the first dlopen tells like that of new ones.
    let is_known = !object.is_of_the_start() || was_opened(object);
    is_known && !object.undeletable && mode & mode::NODELETE != 0
}

/// Whether an object is open, or is one of the start that has been.
fn was_opened(object: &Object) -> bool {
    object.open_count > 0 || object.is_of_the_start() && !object.initialisation_order.is_empty()
}

/// A transaction whose objects are mapped and checked, and not linked yet.
struct Opening {
    transaction: Transaction,
    root: ObjectId,
    /// The root and all that it needs, breadth first.
    closure: Vec<ObjectId>,
    mode: i32,
}

enum Prepared {
    /// `RTLD_NOLOAD`, and it is not there.
    NotLoaded,
    /// It was there before, and may have been one that could go.
    Loaded {
        root: ObjectId,
        comes_to_stay: bool,
    },
    New(Opening),
}

/// Finds the object, or maps it and its closure.
fn prepare(name: &[u8], request: &Request<'_>) -> Result<Prepared, LoadError> {
    let mut gate = process::enter();
    let process = &mut *gate;
    let asker = process.linker.find_by_address(request.caller).unwrap_or(process.main);
    let namespace = namespace::choose(process, request.target, asker, name)?;
    // In another namespace the empty name is one that is searched for.
    if request.name.is_none() || name.is_empty() && namespace == BASE_NAMESPACE {
        let main = process.main;
        let comes_to_stay = comes_to_stay(&process.linker.objects[main], request.mode);
        opened_again(process, main, request.mode);
        return Ok(Prepared::Loaded { root: main, comes_to_stay });
    }
    let mut transaction = Transaction::of_dlopen(namespace);
    process.finder.lend_runpath(request.mode & mode::AUDIT != 0);
    if request.mode & mode::NOLOAD != 0 {
        if process.linker.find_by_name(namespace, name).is_none() && !is_nobodys(name, request) {
            debug::loaded_by(&process.linker, name, namespace.0, asker);
        }
        let found = find_loaded(process, &transaction, name, asker);
        process.finder.rest();
        namespace::tidy(process, []);
        let Some(id) = found? else {
            return Ok(Prepared::NotLoaded);
        };
        if was_opened(&process.linker.objects[id]) {
            let comes_to_stay = comes_to_stay(&process.linker.objects[id], request.mode);
            opened_again(process, id, request.mode);
            return Ok(Prepared::Loaded { root: id, comes_to_stay });
        }
        // All that it needs is loaded, but nobody has asked so far what that is.
        let closure = process.linker.closure(&mut transaction, &mut process.finder, &[id])?;
        settle(process, &transaction, id, &closure, false, request.mode)?;
        drop(gate);
        audit::opened(id, false);
        return Ok(Prepared::New(Opening { transaction, root: id, closure, mode: request.mode }));
    }
    if audit::is_active() {
        drop(gate);
        return prepare_watched(transaction, name, asker, request);
    }
    let mapped = map(process, &mut transaction, name, asker, request);
    process.finder.rest();
    match mapped {
        Ok((root, closure)) => {
            take_environment(process, asker);
            Ok(Prepared::New(Opening { transaction, root, closure, mode: request.mode }))
        }
        Err(error) => {
            // Nobody has seen the objects yet, but as in glibc they count.
            crate::glibc::start::count_adds(additions(&transaction));
            debug::taken_back(&process.linker, &transaction.added, &error);
            transaction.roll_back(&mut process.linker, &mut process.finder);
            namespace::tidy(process, []);
            Err(error)
        }
    }
}

/// Constructors get the environment of whoever opens them, which may have changed since the start.
fn take_environment(process: &mut Process, asker: ObjectId) {
    let asking = process.linker.objects[asker].namespace;
    if let Some(environment) = crate::glibc::libc::environment(&process.linker, asking) {
        process.arguments.envp = environment;
    }
}

/// Whether a name is looked for on nobody's behalf: as in glibc a path that is opened in a namespace which the caller chooses.
fn is_nobodys(name: &[u8], request: &Request<'_>) -> bool {
    request.target != Target::Caller && name.contains(&b'/')
}

/// The rest of [`prepare`] when audit modules are told of each object as it comes.
fn prepare_watched(
    mut transaction: Transaction,
    name: &[u8],
    asker: ObjectId,
    request: &Request<'_>,
) -> Result<Prepared, LoadError> {
    let searcher = Some(asker).filter(|_| !is_nobodys(name, request));
    let mapped = map_watched(&mut transaction, name, searcher, request.mode);
    process::enter().finder.rest();
    match mapped {
        Ok((root, closure)) => {
            // A callback may close objects of its own, by which this one must not go.
            process::enter().linker.objects[root].open_count += 1;
            audit::opened(root, !transaction.added.is_empty());
            process::enter().linker.objects[root].open_count -= 1;
            take_environment(&mut process::enter(), asker);
            Ok(Prepared::New(Opening { transaction, root, closure, mode: request.mode }))
        }
        Err(error) => {
            crate::glibc::start::count_adds(additions(&transaction));
            rollback::withdraw(&transaction, &error);
            namespace::tidy(&mut process::enter(), []);
            Err(error)
        }
    }
}

/// As [`map`], but the gate is let go of whenever there is a new object.
fn map_watched(
    transaction: &mut Transaction,
    name: &[u8],
    asker: Option<ObjectId>,
    mode: i32,
) -> Result<(ObjectId, Vec<ObjectId>), LoadError> {
    let announces = mode & mode::AUDIT == 0;
    let (is_first, root) = {
        let mut gate = process::enter();
        let process = &mut *gate;
        let is_first = !process.linker.is_in_use(transaction.namespace);
        if let Some(asker) = asker.filter(|_| process.linker.find_by_name(transaction.namespace, name).is_none()) {
            debug::loaded_by(&process.linker, name, transaction.namespace.0, asker);
        }
        (is_first, process.linker.require(transaction, &mut process.finder, name, asker)?)
    };
    if transaction.added.contains(&root) {
        audit::added(transaction, root, announces);
    }
    let mut walk = Walk::new(&[root], &mut process::enter().finder);
    while let Some(new) = {
        let mut gate = process::enter();
        let process = &mut *gate;
        walk.next(&mut process.linker, transaction, &mut process.finder)?
    } {
        audit::added(transaction, new, announces);
    }
    let closure = walk.closure();
    settle(&mut process::enter(), transaction, root, &closure, is_first, mode)?;
    Ok((root, closure))
}

fn find_loaded(
    process: &mut Process,
    transaction: &Transaction,
    name: &[u8],
    asker: ObjectId,
) -> Result<Option<ObjectId>, LoadError> {
    if let Some(id) = process.linker.find_by_name(transaction.namespace, name) {
        return Ok(Some(id));
    }
    let opened = process.finder.open(name, Some(asker), &process.linker.objects)?;
    let list = &process.linker.namespace(transaction.namespace).list;
    Ok(list.iter().copied().find(|id| process.linker.objects[*id].file == Some(opened.status.id)))
}

fn opened_again(process: &mut Process, id: ObjectId, mode: i32) {
    process.linker.objects[id].open_count += 1;
    if mode & mode::NODELETE != 0 {
        close::promote(process, &[id]);
    }
    process.maps.refresh(process::layout(), &process.linker, id);
}

/// Maps and checks an object and its closure.
fn map(
    process: &mut Process,
    transaction: &mut Transaction,
    name: &[u8],
    asker: ObjectId,
    request: &Request<'_>,
) -> Result<(ObjectId, Vec<ObjectId>), LoadError> {
    let is_nobodys = is_nobodys(name, request);
    let (linker, finder) = (&mut process.linker, &mut process.finder);
    let is_first = !linker.is_in_use(transaction.namespace);
    if linker.find_by_name(transaction.namespace, name).is_none() && !is_nobodys {
        debug::loaded_by(linker, name, transaction.namespace.0, asker);
    }
    let root = linker.require(transaction, finder, name, Some(asker))?;
    let closure = linker.closure(transaction, finder, &[root])?;
    settle(process, transaction, root, &closure, is_first, request.mode)?;
    Ok((root, closure))
}

/// Checks a closure, and says of its new objects what follows from who opened them, and how.
fn settle(
    process: &mut Process,
    transaction: &Transaction,
    root: ObjectId,
    closure: &[ObjectId],
    is_first: bool,
    mode: i32,
) -> Result<(), LoadError> {
    make_room(process, root, transaction.added.as_slice())?;
    let linker = &mut process.linker;
    if is_first {
        // As in glibc: what the first object of a namespace brings in is visible to all that come later.
        linker.namespace_mut(transaction.namespace).global_scope = closure.to_vec();
    }
    let new = transaction.added.as_slice();
    if new.contains(&root) {
        // Who opened it gives the search path of its own file, but is not what brought in the rest.
        linker.objects[root].loader = None;
    }
    for &id in new {
        check(process, id)?;
    }
    for &id in new {
        let object = &mut process.linker.objects[id];
        object.stay = Stay::UntilClosed;
        object.local_scope = closure.to_vec();
        object.deep = if mode & mode::DEEPBIND != 0 { closure.len() } else { 0 };
    }
    Ok(())
}

/// Makes sure of the memory for scopes and all else that depends on how much is loaded, and for the lists of constructors.
fn make_room(process: &Process, root: ObjectId, new: &[ObjectId]) -> Result<(), LoadError> {
    let objects = &process.linker.objects;
    let constructors = new.iter().filter_map(|id| objects[*id].dynamic.init_array).map(|array| array.size).max();
    let constructors = usize::try_from(constructors.unwrap_or(0)).unwrap_or(usize::MAX).saturating_mul(4);
    memory::ensure(linker::room_to_link(objects.iter().count()).saturating_add(constructors))
        .map_err(|_| LoadError::system(objects[root].display_name(), "cannot create scope list", Errno::NOMEM))
}

/// Whether a transaction may write to the stacks or the static TLS of all threads.
fn concerns_threads(process: &Process, opening: &Opening) -> bool {
    let asks = |id: &ObjectId| process.linker.objects[*id].executable_stack;
    let undecided = |o: &Object| matches!(o.tls_state.get(), TlsState::Undecided { .. });
    opening.transaction.added.iter().any(asks) || process.linker.objects.iter().any(|(_, o)| undecided(o))
}

/// Links the new objects, and commits: the order of the closure for constructors.
fn finish(process: &mut Process, opening: &Opening, stacks: Option<&Stacks>) -> Result<Vec<ObjectId>, LoadError> {
    let Opening { transaction, root, closure, mode } = opening;
    let (root, mode, new) = (*root, *mode, transaction.added.as_slice());
    make_room(process, root, new)?;
    let order = process.linker.initialisation_order(closure, root);
    let new_order: Vec<ObjectId> = order.iter().rev().copied().filter(|id| new.contains(id)).collect();
    let wanted = match process.binding {
        // Both together are RTLD_LAZY, as in glibc.
        PltMode::Lazy if mode & mode::LAZY == 0 => PltMode::Now,
        PltMode::Lazy if process.binds_early() || mode & mode::AUDIT != 0 => PltMode::Eager,
        other => other,
    };
    let services = link::LinkServices::new(process.static_tls, stacks);
    let is_first = !was_opened(&process.linker.objects[root]);
    if is_first {
        debug::opened_scope(&process.linker, root);
    }
    let dependencies = match link_new(process, transaction.namespace, &new_order, wanted, &services) {
        Ok(dependencies) => dependencies,
        Err(error) => {
            process.static_tls = services.take_back(&process.linker);
            return Err(error);
        }
    };
    commit(process, new, &services);
    scopes::widen(&mut process.linker, closure, new);
    process.linker.objects[root].open_count += 1;
    process.linker.note_order(root, &order);
    let mut kept: Vec<ObjectId> = new
        .iter()
        .copied()
        .filter(|id| linker_has_flag(process, *id, goblin::elf64::dynamic::DF_1_NODELETE))
        .chain((mode & mode::NODELETE != 0).then_some(root))
        .collect();
    // First, since no note is taken of references to them.
    for &id in &kept {
        process.linker.objects[id].undeletable = true;
    }
    // What a unique symbol makes stay: from there on.
    let unique = scopes::unique_definers(process, transaction.namespace);
    let marked = close::note_dependencies(process, dependencies);
    kept.extend(unique);
    // What was opened before is told of otherwise.
    let is_told_first = is_first && process.linker.objects[root].is_of_the_start();
    let is_told = |id: &ObjectId| *id != root || new.contains(id) || is_told_first;
    debug::keeps(&process.linker, &marked.iter().chain(&kept).copied().filter(is_told).collect::<Vec<_>>());
    if !kept.is_empty() {
        close::promote(process, &kept);
    }
    profile::begin(process, new, wanted);
    Ok(order)
}

/// Relocates the new objects and protects their RELRO.
fn link_new(
    process: &mut Process,
    namespace: NamespaceId,
    order: &[ObjectId],
    wanted: PltMode,
    services: &link::LinkServices<'_>,
) -> Result<Vec<Dependency>, LoadError> {
    // SAFETY: the process is running, so its thread pointer is set up.
    let dependencies = unsafe { link::relocate(&mut process.linker, namespace, order, wanted, services)? };
    for &id in order {
        link::protect(&process.linker.objects[id], process.level())?;
    }
    make_stacks_executable(process, order, services.stacks)?;
    Ok(dependencies)
}

/// Makes all stacks executable if a new object asks for it. This comes last, since it concerns the whole process.
fn make_stacks_executable(process: &Process, new: &[ObjectId], stacks: Option<&Stacks>) -> Result<(), LoadError> {
    let Some(asking) = new.iter().map(|id| &process.linker.objects[*id]).find(|o| o.executable_stack) else {
        return Ok(());
    };
    let changed = stacks.map(|stacks| crate::glibc::stack::make_all_executable(stacks, process.stack_end));
    changed.unwrap_or(Err(Errno::NOTSUP)).map_err(|errno| refused_stack(asking, errno))
}

/// The error of an object whose wish for an executable stack the kernel refuses.
pub fn refused_stack(object: &Object, errno: Errno) -> LoadError {
    let name = object.asked_as().unwrap_or(object.display_name());
    LoadError::system(name, "cannot enable executable stack as shared object requires", errno)
}

fn linker_has_flag(process: &Process, id: ObjectId, flag: u64) -> bool {
    process.linker.objects[id].dynamic.has_flag_1(flag)
}

/// Checks a new object before anything of it is linked.
fn check(process: &Process, id: ObjectId) -> Result<(), LoadError> {
    let object = &process.linker.objects[id];
    let is_harmless =
        |reason: &Reason| matches!(reason, Reason::NoVersions { .. } | Reason::MissingVersion { weak: true, .. });
    let is_fatal = |error: &LoadError| !is_harmless(&error.reason);
    process.linker.missing_versions(id).find(is_fatal).map_or(Ok(()), Err)?;
    object.check_functions()?;
    program::check_isa(object, process.finder.isa_1())?;
    // It may come to stay at any time, and could not be refused then.
    plan::check(object.display_name(), object, &process.seal)
}

/// How many objects a transaction adds, the interpreter in another namespace among them.
fn additions(transaction: &Transaction) -> u64 {
    transaction.added.len() as u64 + u64::from(transaction.stood_in)
}

/// Makes the new objects visible to libc and debuggers.
fn announce(opening: &Opening) {
    let transaction = &opening.transaction;
    let count = additions(transaction);
    if count == 0 {
        return;
    }
    // Before the gate: callbacks of `dl_iterate_phdr`, which holds this lock, may come to the gate by lazy binding.
    let _write_lock = locks::write();
    let mut gate = process::enter();
    let process = &mut *gate;
    let layout = process::layout();
    // As in glibc the first object is in the list already when the change is announced.
    if let Some(&first) = transaction.added.first() {
        process.maps.ensure(layout, &process.linker, first);
        process.maps.publish_list(layout, &process.linker, transaction.namespace);
    }
    debugger::state(transaction.namespace, debugger::State::Add);
    for &id in transaction.added.iter().skip(1) {
        process.maps.ensure(layout, &process.linker, id);
    }
    process.maps.publish_list(layout, &process.linker, transaction.namespace);
    crate::glibc::start::count_adds(count);
    debugger::state(transaction.namespace, debugger::State::Consistent);
}

/// Makes the linked objects usable: their TLS and their unwind tables. Nothing here can fail.
pub fn commit(process: &mut Process, new: &[ObjectId], services: &link::LinkServices<'_>) {
    let layout = process::layout();
    process.static_tls = services.static_tls.get();
    let generation = tls::generation() + 1;
    let mut has_tls = false;
    for &id in new {
        let object = &process.linker.objects[id];
        if let Some(segment) = object.tls {
            has_tls = true;
            let state = object.tls_state.get();
            let static_offset = state.static_offset();
            let place = Place { segment: Some(segment), static_offset };
            let module = Module { generation, place, decided: false };
            match services.stacks.filter(|_| static_offset.is_some()) {
                // SAFETY: the offset was placed within the static TLS of every thread, the image is relocated, and no code that knows
                // the module has run.
                Some(stacks) => unsafe { tls::add_static(stacks, state.module(), module) },
                None => tls::set_module(state.module(), module),
            }
        }
        process.maps.refresh(layout, &process.linker, id);
    }
    if has_tls {
        tls::set_generation(generation);
        crate::glibc::start::publish_modules(process);
    }
    find_object::publish(&process.linker, |id| process.maps.address(id));
}

/// Seals what a transaction has made undeletable.
pub fn seal_kept(process: &Process, kept: &[ObjectId]) {
    let new: Vec<ObjectId> =
        kept.iter().copied().filter(|id| process.linker.objects[*id].stage >= Stage::Relocated).collect();
    seal::objects(process, &new);
}
