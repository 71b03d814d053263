//! Constructors and destructors (gABI, "Initialization and Termination Functions").

use crate::audit;
use crate::glibc::audit::Activity;
use crate::process::{self, Arguments};
use crate::statistics;
use alloc::vec::Vec;
use goblin::elf64::dynamic::DF_1_INITFIRST;
use loader::addr::Addr;
use loader::error::Lossy;
use loader::object::{Kind, NamespaceId, Object, ObjectId, Stage, BASE_NAMESPACE};
use loader::rule::{holds, Rule};

type Constructor = unsafe extern "C" fn(i32, *mut *mut u8, *mut *mut u8);
type Destructor = unsafe extern "C" fn();

/// The constructors of an object in the order in which they run.
fn constructors(object: &Object) -> Vec<Addr> {
    let mut functions: Vec<Addr> = object.dynamic.init.map(|at| object.image.bias.run_time(at)).into_iter().collect();
    // The arrays were read once before, when the object was checked.
    functions.extend(object.functions(object.dynamic.init_array).flatten());
    functions
}

/// The destructors of an object in the order in which they run.
fn destructors(object: &Object) -> Vec<Addr> {
    let mut functions: Vec<Addr> = object.functions(object.dynamic.fini_array).rev().flatten().collect();
    functions.extend(object.dynamic.fini.map(|at| object.image.bias.run_time(at)));
    functions
}

/// Runs the constructors of those of `order` that have not been initialised, from the last to the first. The gate must not be held.
///
/// # Safety
/// The objects must be relocated.
pub unsafe fn run_constructors(order: &[ObjectId]) {
    for &id in order.iter().rev() {
        // SAFETY: the caller's contract.
        unsafe { initialise(id) };
    }
}

/// Runs the constructors of the object that wants to be first of all (`DF_1_INITFIRST`; the last loaded if there are several).
///
/// # Safety
/// As for [`run_constructors`].
pub unsafe fn run_first_constructors(order: &[ObjectId]) {
    let first = {
        let process = process::enter();
        let wants =
            |id: &&ObjectId| process.linker.objects[**id].dynamic.has_flag_1(DF_1_INITFIRST) && holds(Rule::InitFirst);
        order.iter().filter(wants).max().copied()
    };
    if let Some(id) = first {
        // SAFETY: the caller's contract.
        unsafe { initialise(id) };
    }
}

/// Runs the constructors of one object, unless they have run.
///
/// # Safety
/// As for [`run_constructors`].
unsafe fn initialise(id: ObjectId) {
    let (functions, arguments) = {
        let mut process = process::enter();
        let arguments = process.arguments;
        let Some(object) = process.linker.objects.get_mut(id).filter(|o| o.stage == Stage::Relocated) else {
            return;
        };
        object.stage = Stage::Initialised;
        // libc runs those of the program.
        let functions = if object.kind == Kind::Library { constructors(object) } else { Vec::new() };
        if object.kind != Kind::Executable {
            log::debug!(target: "calls", "\ncalling init: {}\n", Lossy(object.display_name()));
        }
        process.maps.refresh(process::layout(), &process.linker, id);
        (functions, arguments)
    };
    for function in functions {
        // SAFETY: the caller's contract.
        unsafe { call_constructor(function, arguments) };
    }
}

/// Calls one constructor.
///
/// # Safety
/// `function` must be a constructor of a relocated object.
pub unsafe fn call_constructor(function: Addr, arguments: Arguments) {
    // SAFETY: constructors have this type on glibc systems, or ignore the arguments.
    let function: Constructor = unsafe { core::mem::transmute(function.0) };
    // SAFETY: the caller's contract.
    unsafe { function(arguments.argc, arguments.argv, arguments.envp) };
}

/// Runs the destructors of an object, if its constructors have run. The gate must not be held.
///
/// # Safety
/// The object must be mapped until this returns.
pub unsafe fn run_destructors(id: ObjectId) {
    let functions = {
        let mut process = process::enter();
        let Some(object) = process.linker.objects.get_mut(id).filter(|o| o.stage == Stage::Initialised) else {
            return;
        };
        object.stage = Stage::Finished;
        log::debug!(target: "calls", "\ncalling fini: {} [{}]\n", Lossy(object.name.to_bytes()), object.namespace.0);
        destructors(object)
    };
    for function in functions {
        // SAFETY: destructors have this type.
        let function: Destructor = unsafe { core::mem::transmute(function.0) };
        // SAFETY: the caller's contract.
        unsafe { function() };
    }
}

/// What the program registers with `atexit`: runs the destructors of everything that is loaded, dependents first, the program's namespace
/// last.
pub extern "C" fn run_all_destructors() {
    finish_namespaces(|namespace| !audit::is_own(namespace));
    if audit::is_active() {
        finish_namespaces(audit::is_own);
    }
}

/// Tells audit modules that an object goes; of those that were never initialised it is not said.
fn close_finished(id: ObjectId) {
    if audit::is_active() {
        let process = process::enter();
        let object = process.linker.objects.get(id);
        let is_told = object.is_some_and(|o| o.stage == Stage::Finished || o.kind == Kind::Interpreter);
        drop(process);
        if is_told {
            audit::close(id);
        }
    }
}

/// Runs the destructors of the namespaces that are meant, the program's last.
fn finish_namespaces(is_meant: impl Fn(NamespaceId) -> bool) {
    let count = process::enter().linker.namespaces.len();
    for number in (0..count).rev().filter(|_| holds(Rule::DestructorsAtExit)) {
        let namespace = NamespaceId(number as u8);
        if !is_meant(namespace) {
            continue;
        }
        audit::activity(namespace, Activity::Delete);
        let order: Vec<ObjectId> = {
            let mut process = process::enter();
            let linker = &process.linker;
            // Destructors of others may have closed the namespace. The interpreter is the program's everywhere.
            let is_foreign = |id| namespace != BASE_NAMESPACE && linker.objects[id].kind == Kind::Interpreter;
            let order = if number < linker.namespaces.len() {
                linker.finalisation_order(namespace, &is_foreign)
            } else {
                Vec::new()
            };
            // A destructor may close objects: they stay, and are finalised in their turn.
            for &id in &order {
                process.linker.objects[id].open_count += 1;
            }
            order
        };
        for id in order {
            // SAFETY: the count keeps the object.
            unsafe { run_destructors(id) };
            close_finished(id);
        }
        audit::activity(namespace, Activity::Consistent);
    }
    statistics::show_final();
}
