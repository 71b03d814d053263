//! Start-up: from the kernel's stack to the program's entry point.
//!
//! [`start`] is the order of events. It follows glibc's where libc or the program can see it: threads' structures before any foreign code,
//! all relocation before any IFUNC resolver that might use it, libc's early initialisation before any constructor.

mod audited;
mod disguise;
mod establish;
mod help;
mod images;
mod listing;
mod objects;
mod request;
mod static_program;

use crate::glibc::cpu::{cpuid::Processor, CpuFeatures};
use crate::glibc::globals::RTLD_GLOBAL_RO;
use crate::glibc::layout::Layout;
use crate::glibc::tunables::TunableSet;
use crate::glibc::{debugger, find_object, libc, start as abi, tables, tls};
use crate::heap;
use crate::initial_stack::{AuxKey, InitialStack};
use crate::options::Action;
use crate::process::{self, Process};
use crate::profile;
use crate::services::{debug, fork, init, link, seal};
use crate::statistics::{Cycles, Times};
use alloc::string::String;
use alloc::vec::Vec;
use loader::addr::Addr;
use loader::error::{Consequence, LoadError, Lossy, Reason};
use loader::linker::Linker;
use loader::object::{Kind, Object, ObjectId, Stay, BASE_NAMESPACE};
use loader::order::Algorithm;
use loader::program;
use loader::seal::tunables::{SealLevel, SealTunables};
use loader::seal::{apply, marks};
use loader::sys::{self, Prot};
use objects::{Beginning, Listed, Loaded, Start};
use request::Request;

/// Where `_start` goes when everything is ready.
#[repr(C)]
pub struct Target {
    /// The program's entry point.
    entry: usize,
    /// What the program gets in rdx, and registers with `atexit`.
    at_exit: usize,
}

/// Under what a program is started.
pub struct Circumstances {
    /// Where this image lies.
    pub base: Addr,
    /// The processor.
    pub cpu: CpuFeatures,
    /// glibc's tunables.
    pub tunables: TunableSet<'static>,
    /// How long it has taken so far.
    pub times: Times,
}

/// Why the program can't be started.
pub enum Failure {
    /// "error while loading shared libraries"
    Load(LoadError),
    /// "symbol lookup error"
    Symbol(LoadError),
    /// Versions are not there, which was said of each.
    Versions,
    /// An object is built for another processor, which glibc says without naming the program.
    Processor(LoadError),
    /// One line of our own.
    Other(String),
}

impl From<LoadError> for Failure {
    fn from(error: LoadError) -> Failure {
        match error.reason {
            Reason::UndefinedSymbol { .. } => Failure::Symbol(error),
            Reason::IndirectAccessNeeded { ref symbol } => Failure::Other(alloc::format!("{}: {error}", Lossy(symbol))),
            Reason::Fault(program::ISA_TOO_LOW) => Failure::Processor(error),
            _ => Failure::Load(error),
        }
    }
}

/// Loads the program that the kernel or the command line names.
///
/// # Safety
/// Called once by `_start`, with the kernel's stack pointer, the addresses of this image and its dynamic section, and whether (1) or not (0)
/// its RELRO is in anonymous memory; the image is relocated.
pub unsafe extern "C" fn start(stack: *mut usize, base: usize, dynamic: usize, relro_is_anonymous: u32) -> Target {
    let began = Cycles::now();
    // SAFETY: the caller's contract.
    let mut stack = unsafe { InitialStack::new(stack) };
    if stack.aux(AuxKey::Secure).is_some_and(|secure| secure != 0) {
        occupy_standard_descriptors();
    }
    let request = Request::read(&mut stack, Addr(base));
    crate::logger::set_arguments(stack.argv());
    if let Err(error) = images::own(Addr(base), relro_is_anonymous != 0, request.seal.image_memory()) {
        report(&stack, &Failure::Load(error));
    }
    match run(&mut stack, &request, Addr(base), Addr(dynamic), Times::new(began)) {
        Ok(target) => target,
        Err(failure) => report(&stack, &failure),
    }
}

/// Sees to it that the descriptors 0 to 2 are open, so that a file which a privileged program opens does not become its standard error.
fn occupy_standard_descriptors() {
    if (0..=2).any(|number| sys::occupy_descriptor(number).is_err()) {
        sys::exit(127);
    }
}

fn report(stack: &InitialStack, failure: &Failure) -> ! {
    let program = Lossy(stack.arg(0).map_or(&b"ld-seal.so"[..], |a| a.to_bytes()));
    match failure {
        Failure::Load(error) => {
            crate::logger::line(format_args!("{program}: error while loading shared libraries: {}", error.terse()));
        }
        Failure::Processor(error) => crate::logger::line(format_args!("{error}")),
        Failure::Symbol(error) => {
            error.tell(Consequence::Fatal);
            crate::logger::line(format_args!("{program}: symbol lookup error: {error}"));
        }
        // As in glibc, where this is the one failure with another status.
        Failure::Versions => sys::exit(1),
        Failure::Other(text) => crate::logger::line(format_args!("{program}: {text}")),
    }
    sys::exit(127)
}

fn run(
    stack: &mut InitialStack,
    request: &Request,
    base: Addr,
    dynamic: Addr,
    times: Times,
) -> Result<Target, Failure> {
    let tunables_table = tables::tunables_v2_36::TUNABLES;
    let mut tunables = request.glibc_tunables(tunables_table, stack);
    let cpu = CpuFeatures::detect(&Processor, &mut tunables);
    if request.secure {
        // Children get what secure execution lets them have.
        stack.shorten_variable(b"GLIBC_TUNABLES", |value| tunables.filter_for_children(value));
        stack.retain_environment(|e| !tunables.erases_variable(e.split(|&b| b == b'=').next().unwrap_or(e)));
    }
    let hwcap_mask = tunables.number_of(b"glibc.cpu.hwcap_mask");
    match request.options.action {
        Action::Help | Action::Version => help::help(request, &cpu, hwcap_mask),
        Action::ListTunables => help::tunables(request, &tunables),
        Action::ListDiagnostics => help::diagnostics(stack, request, &cpu),
        Action::Run | Action::List | Action::Trace | Action::Verify => {}
    }
    let mut circumstances = Circumstances { base, cpu, tunables, times };
    let Circumstances { cpu, times, .. } = &mut circumstances;
    let beginning = match times.loading(|| Beginning::map(stack, request, cpu, hwcap_mask, base, dynamic))? {
        Start::Dynamic(beginning) => *beginning,
        Start::Static(opened) => return static_program::start(stack, request, *opened, base, dynamic),
    };
    let modules = request.audit_modules(&beginning.parts.program);
    if !modules.is_empty() {
        return audited::run(stack, request, circumstances, beginning, &modules);
    }
    let mut loaded = circumstances.times.loading(|| Loaded::load(beginning, request))?;
    loaded.linker.algorithm = sorting(&circumstances.tunables);
    if matches!(request.options.action, Action::List | Action::Trace) {
        return answer(stack, request, loaded.listed());
    }
    let seal = judged(request, &loaded.linker.objects[loaded.main]);
    process::set_layout(choose_layout(&loaded.linker, loaded.libc)?);
    check_versions(&loaded.linker, &loaded.closure, loaded.main)?;
    log_scopes(&loaded.linker);
    program::check_objects(&loaded.linker, &loaded.closure, circumstances.cpu.isa_1)?;
    program::check_sealable(&loaded.linker, &loaded.closure, &seal)?;
    let order = loaded.linker.initialisation_order(&loaded.closure, loaded.main);
    let mut times = establish::make_process(stack, request, circumstances, loaded, seal, 0)?;
    // SAFETY: the thread pointer is set up.
    times.relocation(|| unsafe { link_all(&order) })?;
    // SAFETY: the control block is the main thread's; every image is relocated.
    unsafe { tls::initialise_main_thread(tls::thread_pointer()) };
    process::prepare_gate().map_err(|e| system("cannot allocate memory", e))?;
    commit(process::layout())?;
    times.show(own_relative);
    // SAFETY: everything is relocated, and this is the only thread.
    Ok(unsafe { hand_over(&order) })
}

/// By how many relative relocations the interpreter has relocated itself.
fn own_relative() -> u64 {
    let process = process::enter();
    process.linker.objects[process.interpreter].dynamic.relative_count
}

/// Answers instead of a start. What versions lack is said, and nothing follows from it.
#[inline(never)]
fn answer(stack: &InitialStack, request: &Request, loaded: Listed<'_>) -> Result<Target, Failure> {
    match check_versions(loaded.linker, loaded.closure, loaded.main) {
        Err(Failure::Versions) => {}
        outcome => outcome?,
    }
    match request.options.action {
        Action::Trace => match listing::trace(request, loaded)? {},
        _ => match listing::list(stack, request, loaded)? {},
    }
}

/// The tunables of sealing, with what the program's own wish makes of them.
fn judged(request: &Request, program: &Object) -> SealTunables<'static> {
    let mut tunables = request.seal;
    tunables.judge_program(|| marks::asks_for_seal(&program.headers, &program.image));
    tunables
}

fn system(what: &'static str, errno: rustix::io::Errno) -> Failure {
    Failure::Load(LoadError::system(b"", what, errno))
}

/// The layout of the program's glibc. A program without libc.so.6 runs too: nobody reads the structures then.
fn choose_layout(linker: &Linker, libc: Option<ObjectId>) -> Result<&'static Layout, Failure> {
    match libc {
        None => Ok(tables::LAYOUTS[0]),
        Some(id) => {
            let object = &linker.objects[id];
            libc::choose_layout(object)
                .map_err(|text| Failure::Other(alloc::format!("{}: {text}", Lossy(object.display_name()))))
        }
    }
}

/// Tells `LD_DEBUG=scopes` where every object looks up its symbols.
fn log_scopes(linker: &Linker) {
    if !log::log_enabled!(target: "scopes", log::Level::Debug) {
        return;
    }
    log::debug!(target: "scopes", "\nInitial object scopes");
    for &id in &linker.namespace(BASE_NAMESPACE).list {
        debug::scopes(linker, id);
    }
}

fn check_versions(linker: &Linker, closure: &[ObjectId], main: ObjectId) -> Result<(), Failure> {
    match program::has_all_versions(linker, closure, main, &mut crate::logger::line)? {
        true => Ok(()),
        false => Err(Failure::Versions),
    }
}

/// How constructors and destructors are brought into order, as the tunable says.
fn sorting(tunables: &TunableSet<'_>) -> Algorithm {
    match tunables.number_of(b"glibc.rtld.dynamic_sort") {
        1 => Algorithm::Moving,
        _ => Algorithm::DepthFirst,
    }
}

/// Relocates the whole closure and runs its IFUNC resolvers.
///
/// # Safety
/// The thread pointer must be set up.
unsafe fn link_all(order: &[ObjectId]) -> Result<(), Failure> {
    debugger::state(BASE_NAMESPACE, debugger::State::Add);
    let mut gate = process::enter();
    let process = &mut *gate;
    abi::publish_namespace(process);
    abi::publish_modules(process);
    abi::count_adds(process.linker.namespace(BASE_NAMESPACE).list.len() as u64);
    tls::set_generation(u64::from(!process.linker.tls_modules.is_empty()));
    let interpreter = process.interpreter;
    let relocated: Vec<ObjectId> = order.iter().rev().copied().filter(|id| *id != interpreter).collect();
    let wanted = process.binding_at_start();
    let services = link::LinkServices::new(process.static_tls, None);
    // SAFETY: the caller's contract.
    unsafe { link::relocate(&mut process.linker, BASE_NAMESPACE, &relocated, wanted, &services)? };
    Ok(())
}

/// Makes read-only what is to stay so, and seals what is to stay at all. Nothing that can fail follows the first seal.
fn commit(layout: &Layout) -> Result<(), Failure> {
    let mut gate = process::enter();
    let process = &mut *gate;
    let list = process.linker.namespace(BASE_NAMESPACE).list.clone();
    // SAFETY: everything is relocated.
    let functions = unsafe { libc::find_functions(&process.linker, process.libc) };
    // SAFETY: the interpreter is alone in the process.
    unsafe { libc::FUNCTIONS.set(functions) };
    for &id in &list {
        process.linker.objects[id].stay = Stay::Forever;
        process.maps.refresh(layout, &process.linker, id);
    }
    let maps = &process.maps;
    find_object::publish(&process.linker, |id| maps.address(id));
    for &id in &list {
        if process.linker.objects[id].kind != Kind::Interpreter {
            link::protect(&process.linker.objects[id], process.level())?;
        }
    }
    let binding = process.binding_at_start();
    profile::begin(process, &list, binding);
    heap::prepare_for_failure();
    seal_all(process)
}

fn seal_all(process: &Process) -> Result<(), Failure> {
    let tables = RTLD_GLOBAL_RO.structure().range();
    link::protect_relro(&process.linker.objects[process.interpreter])?;
    // SAFETY: nothing writes `_rtld_global_ro` any more.
    unsafe { sys::protect(tables.clone(), Prot::READ) }
        .map_err(|e| system("cannot apply additional memory protection after relocation", e))?;
    let (level, shown) = (process.level(), apply::shows_plans());
    // At level 1 the first seal says whether this kernel seals: if it does not, it is asked for nothing else.
    let begins = level == SealLevel::BestEffort && process.seal.seals();
    let is_supported = !begins || apply::first(tables.clone(), program::TABLES);
    let mut plan = program::seal_plan(&process.linker, process.interpreter, tables.clone(), &process.seal, shown);
    plan.asked = begins.then_some(tables);
    if is_supported {
        program::add_kernel_data(&mut plan, process.vdso.map(|id| &process.linker.objects[id]), &process.seal);
    }
    seal::add_heap(&mut plan, &process.seal);
    apply::apply(plan, level);
    Ok(())
}

/// Lets libc initialise itself, runs the constructors, and says where the program begins.
///
/// # Safety
/// Everything must be relocated, and this be the only thread.
unsafe fn hand_over(order: &[ObjectId]) -> Target {
    let functions = libc::FUNCTIONS.get();
    process::open_to_threads();
    if let Some(early_init) = functions.early_init {
        // SAFETY: libc is relocated, and its thread control block complete.
        unsafe { early_init(true) };
    }
    if let Some(register_atfork) = functions.register_atfork {
        // SAFETY: libc is initialised.
        unsafe { fork::register(register_atfork) };
    }
    debugger::state(BASE_NAMESPACE, debugger::State::Consistent);
    let (entry, preinit, arguments) = {
        let process = process::enter();
        let main = &process.linker.objects[process.main];
        let preinit = main.functions(main.dynamic.preinit_array).flatten().collect::<Vec<_>>();
        (main.image.bias.run_time(main.entry), preinit, process.arguments)
    };
    // SAFETY: everything is relocated.
    unsafe { init::run_first_constructors(order) };
    if !preinit.is_empty() {
        log::debug!(target: "calls", "\ncalling preinit: {}\n", Lossy(crate::logger::program_name()));
    }
    for function in preinit {
        // SAFETY: the program is relocated.
        unsafe { init::call_constructor(function, arguments) };
    }
    // SAFETY: everything is relocated.
    unsafe { init::run_constructors(order) };
    Target { entry: entry.0, at_exit: init::run_all_destructors as *const () as usize }
}
