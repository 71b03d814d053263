//! A start with audit modules: they run before anything but the program itself is there, and are told of all that comes.
//!
//! So what the usual start does once, for everything, is done in two steps here: the thread, libc's structures and the process are made
//! ready for the program alone, then the modules are loaded as dlmopen loads, then the program's closure as dlopen loads. As with glibc
//! thread-local storage of the program's libraries takes the room that is there for later objects.

use super::establish::{self, NAMESPACES};
use super::objects::{Beginning, Listed, Loaded};
use super::request::Request;
use super::{
    answer, check_versions, choose_layout, commit, hand_over, judged, log_scopes, own_relative, sorting, system,
    Circumstances, Failure, Target,
};
use crate::audit::{self, modules, trampoline};
use crate::glibc::audit::Activity;
use crate::glibc::link_map::LinkMaps;
use crate::glibc::tunables::TunableSet;
use crate::glibc::{debugger, libc, stack as stack_rights, start as abi, tables, thread, tls};
use crate::initial_stack::InitialStack;
use crate::logger;
use crate::options::Action;
use crate::process::{self};
use crate::services::{link, open};
use crate::statistics::Times;
use alloc::ffi::CString;
use alloc::vec::Vec;
use loader::linker::{Transaction, Walk};
use loader::object::{ObjectId, BASE_NAMESPACE};
use loader::program::{self, Begun};
use loader::sys;

/// Starts the program with the modules named.
// Apart, so that the stack of other starts is not the larger for it.
#[inline(never)]
pub fn run(
    stack: &mut InitialStack,
    request: &Request,
    circumstances: Circumstances,
    beginning: Beginning,
    names: &[CString],
) -> Result<Target, Failure> {
    let isa_1 = circumstances.cpu.isa_1;
    refuse_too_many(names.len(), &circumstances.tunables);
    let mut times = prepare(stack, request, circumstances, beginning, names.len())?;
    modules::load(names, request.secure);
    let closure = times.loading(|| load_closure(request))?;
    check_layout()?;
    if matches!(request.options.action, Action::List | Action::Trace) {
        let process = process::enter();
        let (linker, main, interpreter) = (&process.linker, process.main, process.interpreter);
        return answer(stack, request, Listed { linker, main, interpreter, closure: &closure });
    }
    let order = check(stack, &closure, isa_1)?;
    // SAFETY: the thread pointer is set up.
    times.relocation(|| unsafe { link_closure(&order, &closure) })?;
    audit::activity(BASE_NAMESPACE, Activity::Consistent);
    commit(process::layout())?;
    times.show(own_relative);
    // SAFETY: everything is relocated, and no thread but those of modules is there.
    Ok(unsafe { hand_over(&order) })
}

/// Ends the start if there are more modules than namespaces for them, of which `glibc.rtld.nns` are for others: in glibc's words, which
/// name nobody.
fn refuse_too_many(modules: usize, tunables: &TunableSet<'_>) {
    let room = NAMESPACES - tunables.number_of(b"glibc.rtld.nns").clamp(1, NAMESPACES);
    if modules as u64 > room {
        logger::line(format_args!("Failed loading {modules} audit modules, {room} are supported."));
        sys::exit(127);
    }
}

/// Makes everything ready that code of a C library needs, with nothing but the program there.
fn prepare(
    stack: &mut InitialStack,
    request: &Request,
    circumstances: Circumstances,
    beginning: Beginning,
    module_count: usize,
) -> Result<Times, Failure> {
    let Beginning { parts, finder } = beginning;
    let seal = judged(request, &parts.program);
    // The glibc that is in use is not known before libc.so.6 is there; `check_layout` looks whether it is this one.
    process::set_layout(tables::LAYOUTS[0]);
    let Begun { mut linker, main, interpreter, vdso } = Begun::new(parts, request.options.action == Action::Trace);
    linker.algorithm = sorting(&circumstances.tunables);
    trampoline::set_vectors(&circumstances.cpu);
    let (maps, closure) = (LinkMaps::default(), Vec::new());
    let loaded = Loaded { linker, finder, maps, main, interpreter, vdso, libc: None, closure };
    let times = establish::make_process(stack, request, circumstances, loaded, seal, module_count as u64 * MODULE_TLS)?;
    // SAFETY: the control block was just made. The program's image is copied again when it is relocated.
    unsafe { tls::initialise_main_thread(tls::thread_pointer()) };
    tls::set_generation(u64::from(!process::enter().linker.tls_modules.is_empty()));
    // SAFETY: the interpreter is alone in the process.
    unsafe { libc::use_early_allocator() };
    process::prepare_gate().map_err(|e| system("cannot allocate memory", e))?;
    process::open_to_threads();
    let mut process = process::enter();
    abi::publish_namespace(&mut process);
    abi::publish_modules(&process);
    abi::count_adds(process.linker.namespace(BASE_NAMESPACE).list.len() as u64);
    Ok(times)
}

/// Room in static TLS for the C library and others of a module's namespace.
const MODULE_TLS: u64 = 2 * 144;

/// Loads the preloads and all that the program needs, and tells the modules of it.
fn load_closure(request: &Request) -> Result<Vec<ObjectId>, Failure> {
    debugger::state(BASE_NAMESPACE, debugger::State::Add);
    let (main, interpreter, vdso) = {
        let process = process::enter();
        (process.main, process.interpreter, process.vdso)
    };
    audit::open(main);
    audit::open(interpreter);
    audit::activity(BASE_NAMESPACE, Activity::Add);
    let mut transaction = Transaction::new(BASE_NAMESPACE);
    let mut roots = alloc::vec![main];
    let list = program::preload_file();
    for preload in request.preloads().all(&list) {
        let before = transaction.added.len();
        let mut gate = process::enter();
        let process = &mut *gate;
        let warn = &mut crate::logger::line;
        roots.extend(preload.load(&mut process.linker, &mut transaction, &mut process.finder, main, warn)?);
        drop(gate);
        if let Some(&new) = transaction.added.get(before) {
            audit::added(&transaction, new, false);
        }
    }
    if let Some(vdso) = vdso {
        audit::open(vdso);
    }
    let mut walk = Walk::new(&roots, &mut process::enter().finder);
    while let Some(new) = {
        let mut gate = process::enter();
        let process = &mut *gate;
        walk.next(&mut process.linker, &mut transaction, &mut process.finder)?
    } {
        audit::added(&transaction, new, false);
    }
    let closure = walk.closure();
    let mut gate = process::enter();
    let process = &mut *gate;
    process.finder.rest();
    program::settle(&mut process.linker, interpreter, &closure);
    process.libc = process.linker.find_by_name(BASE_NAMESPACE, libc::SONAME);
    abi::publish_namespace(process);
    abi::count_adds(transaction.added.len() as u64);
    Ok(closure)
}

/// Checks that the structures were laid out as the C libraries of the program and of the modules know them.
fn check_layout() -> Result<(), Failure> {
    let process = process::enter();
    for (id, _) in process.linker.objects.iter().filter(|(_, object)| object.answers_to(libc::SONAME)) {
        if !core::ptr::eq(choose_layout(&process.linker, Some(id))?, process::layout()) {
            let text = "audit modules need the first of the supported C libraries";
            return Err(Failure::Other(text.into()));
        }
    }
    Ok(())
}

/// Checks the closure as a start without modules does; the order of initialisation.
fn check(stack: &InitialStack, closure: &[ObjectId], isa_1: u32) -> Result<Vec<ObjectId>, Failure> {
    // Before the gate, as libc has it.
    let stacks = thread::lock_stacks(process::layout());
    let process = process::enter();
    check_versions(&process.linker, closure, process.main)?;
    log_scopes(&process.linker);
    program::check_objects(&process.linker, closure, isa_1)?;
    program::check_sealable(&process.linker, closure, &process.seal)?;
    if closure.iter().any(|id| process.linker.objects[*id].executable_stack) {
        stack_rights::make_all_executable(&stacks, stack.start())
            .map_err(|e| system("cannot enable executable stack as shared object requires", e))?;
    }
    Ok(process.linker.initialisation_order(closure, process.main))
}

/// Relocates the closure and makes its thread-local storage usable.
///
/// # Safety
/// The thread pointer must be set up.
unsafe fn link_closure(order: &[ObjectId], closure: &[ObjectId]) -> Result<(), Failure> {
    // Before the gate, as libc has it.
    let stacks = thread::lock_stacks(process::layout());
    let mut gate = process::enter();
    let process = &mut *gate;
    let interpreter = process.interpreter;
    let relocated: Vec<ObjectId> = order.iter().rev().copied().filter(|id| *id != interpreter).collect();
    let wanted = process.binding_at_start();
    let services = link::LinkServices::new(process.static_tls, Some(&stacks));
    // SAFETY: the caller's contract.
    unsafe { link::relocate(&mut process.linker, BASE_NAMESPACE, &relocated, wanted, &services)? };
    let main = process.main;
    let new: Vec<ObjectId> = closure.iter().copied().filter(|id| *id != main && *id != interpreter).collect();
    open::commit(process, &new, &services);
    let number = process.linker.objects[main].tls_state.get().module();
    if let Some(module) = tls::module(number) {
        // SAFETY: the program is relocated now, and no thread of a module uses its variables.
        unsafe { tls::add_static(&stacks, number, module) };
    }
    Ok(())
}
