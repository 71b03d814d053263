//! Start-up: from the kernel's stack to the program's entry point.
//!
//! [`start`] is the order of events. It follows glibc's where libc or the program can see it: threads' structures before any foreign code,
//! all relocation before any IFUNC resolver that might use it, libc's early initialisation before any constructor.

mod audited;
mod disguise;
mod help;
mod images;
mod listing;
mod objects;
mod request;
mod static_program;

use crate::glibc::cpu::{cpuid::Processor, CpuFeatures};
use crate::glibc::globals::{self, RTLD_GLOBAL_RO};
use crate::glibc::layout::Layout;
use crate::glibc::link_map::LinkMaps;
use crate::glibc::tunables::TunableSet;
use crate::glibc::{debugger, find_object, libc, start as abi, tables, thread, tls};
use crate::heap;
use crate::initial_stack::{AuxKey, InitialStack};
use crate::options::Action;
use crate::process::{self, Arguments, Process};
use crate::profile;
use crate::services::{debug, fork, init, lazy, link, namespace, open, seal};
use crate::statistics::{Cycles, Times};
use alloc::string::String;
use alloc::vec::Vec;
use goblin::elf64::program_header::PT_GNU_STACK;
use loader::addr::Addr;
use loader::error::{Consequence, LoadError, Lossy, Reason};
use loader::linker::Linker;
use loader::object::{Kind, Object, ObjectId, Stay, BASE_NAMESPACE};
use loader::order::Algorithm;
use loader::program;
use loader::reloc::PltMode;
use loader::rule::{holds, Rule};
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
    mut times: Times,
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
    let beginning = match times.loading(|| Beginning::map(stack, request, &cpu, hwcap_mask, base, dynamic))? {
        Start::Dynamic(beginning) => *beginning,
        Start::Static(opened) => return static_program::start(stack, request, *opened, base, dynamic),
    };
    let modules = request.audit_modules(&beginning.parts.program);
    if !modules.is_empty() {
        return audited::run(stack, request, Circumstances { base, cpu, tunables, times }, beginning, &modules);
    }
    let mut loaded = times.loading(|| Loaded::load(beginning, request))?;
    loaded.linker.algorithm = sorting(&tunables);
    if matches!(request.options.action, Action::List | Action::Trace) {
        return answer(stack, request, loaded.listed());
    }
    let seal_tunables = judged(request, &loaded.linker.objects[loaded.main]);
    let layout = choose_layout(&loaded.linker, loaded.libc)?;
    process::set_layout(layout);
    check_versions(&loaded.linker, &loaded.closure, loaded.main)?;
    log_scopes(&loaded.linker);
    program::check_objects(&loaded.linker, &loaded.closure, cpu.isa_1)?;
    program::check_sealable(&loaded.linker, &loaded.closure, &seal_tunables)?;

    let surplus = tls_surplus(&tunables);
    let tls_info = abi::place_static_tls(layout, &loaded.linker, surplus).map_err(|id| {
        LoadError::fault(loaded.linker.objects[id].display_name(), "cannot allocate memory in static TLS block")
    })?;
    let executable_stack = make_stack_executable(&loaded, request, stack.start())?;
    abi::fill_global(layout, executable_stack);
    make_main_thread(layout, stack, &tls_info, &loaded.linker, tunables.number_of(b"glibc.pthread.rseq") != 0)?;
    set_variables(stack, request);
    set_save_area(&cpu);
    lazy::set_slots(request.environment.bind_not, request.seal.level == SealLevel::Enforced);
    let binding = request.binding();
    abi::fill_read_only(layout, stack, &cpu, &tls_info, binding == PltMode::Lazy);
    let order = loaded.linker.initialisation_order(&loaded.closure, loaded.main);
    for id in loaded.linker.namespace(BASE_NAMESPACE).list.clone() {
        loaded.maps.add(layout, &loaded.linker, id);
    }
    if let Some(id) = loaded.vdso {
        let (object, map) = (&loaded.linker.objects[id], loaded.maps.address(id));
        abi::fill_vdso(layout, object, Addr(map as usize), object.image.range.start);
    }
    publish_debugger(request, &loaded.linker, &loaded.maps, [loaded.main, loaded.interpreter], base);
    let Loaded { linker, finder, maps, main, interpreter, vdso, libc, .. } = loaded;
    process::install(Process {
        linker,
        finder,
        maps,
        seal: seal_tunables,
        binding,
        tunables,
        arguments: arguments(stack),
        main,
        interpreter,
        vdso,
        libc,
        stack_end: stack.start(),
        collector: 0,
        static_tls: abi::static_room(layout, &tls_info),
    });
    // SAFETY: the thread pointer is set up.
    times.relocation(|| unsafe { link_all(&order) })?;
    // SAFETY: the control block is the main thread's; every image is relocated.
    unsafe { tls::initialise_main_thread(tls::thread_pointer()) };
    process::prepare_gate().map_err(|e| system("cannot allocate memory", e))?;
    commit(layout)?;
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

/// Makes the stack executable if an object asks for it, and tells whether it did. Of a program that the kernel has mapped the wish is the
/// kernel's business.
fn make_stack_executable(loaded: &Loaded, request: &Request, stack: Addr) -> Result<bool, Failure> {
    let objects = &loaded.linker.objects;
    let asks = |id: &&ObjectId| objects[**id].executable_stack;
    let Some(&asking) = loaded.closure.iter().find(asks) else {
        return Ok(false);
    };
    let has_header = loader::elf::header::find(&objects[asking].headers, PT_GNU_STACK).is_some();
    // The kernel gives programs without the header stacks that are not executable.
    let of_the_kernel = request.program.is_none() || (request.options.launched && !has_header);
    if asking != loaded.main || !of_the_kernel {
        crate::glibc::stack::make_executable(stack).map_err(|errno| open::refused_stack(&objects[asking], errno))?;
    }
    Ok(true)
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

fn arguments(stack: &InitialStack) -> Arguments {
    Arguments { argc: stack.argc() as i32, argv: stack.argv(), envp: stack.envp() }
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

/// How many namespaces a process may have.
const NAMESPACES: u64 = namespace::LIMIT as u64;

/// Room in static TLS for objects that are dlopened later, as glibc computes it: for the C library and others in each further
/// namespace, for what the tunable says, and for old audit modules.
fn tls_surplus(tunables: &TunableSet<'_>) -> u64 {
    const LIBC: u64 = 144;
    const OTHER: u64 = 144;
    const LEGACY: u64 = 144;
    let namespaces = tunables.number_of(b"glibc.rtld.nns").clamp(1, NAMESPACES);
    let optional = tunables.number_of(b"glibc.rtld.optional_static_tls");
    if !holds(Rule::TlsSurplus) {
        return 0;
    }
    (namespaces - 1) * LIBC + namespaces * OTHER + optional + LEGACY
}

fn make_main_thread(
    layout: &Layout,
    stack: &InitialStack,
    info: &abi::TlsInfo,
    linker: &Linker,
    use_rseq: bool,
) -> Result<(), Failure> {
    abi::register_modules(linker);
    let random = stack.aux(AuxKey::Random).map(|at| {
        // SAFETY: AT_RANDOM points to sixteen bytes on the stack.
        unsafe { core::ptr::read_unaligned(at as *const [u64; 2]) }
    });
    tls::set_static_info(info.size, info.align);
    let pthread = thread::allocate(layout, info.size, info.align)
        .map_err(|e| system("cannot allocate TLS data structures for initial thread", e))?;
    thread::initialise(layout, &pthread, random, stack.start(), use_rseq)
        .map_err(|e| system("cannot set %fs base address for thread-local storage", e))
}

fn set_variables(stack: &InitialStack, request: &Request) {
    // SAFETY: the interpreter is alone in the process.
    unsafe {
        globals::LIBC_STACK_END.set(stack.start().0);
        globals::DL_ARGV.set(stack.argv() as usize);
        globals::LIBC_ENABLE_SECURE.set(i32::from(request.secure));
        globals::RSEQ_FLAGS.set(0);
        globals::NPTL_INITIAL_REPORT_EVENTS.set(0);
    }
}

fn set_save_area(cpu: &CpuFeatures) {
    let with = if cpu.xsave_state_size == 0 {
        lazy::SaveWith::Fxsave
    } else if cpu.features.usable(crate::glibc::cpu::feature::XSAVEC) {
        lazy::SaveWith::Xsavec
    } else {
        lazy::SaveWith::Xsave
    };
    lazy::set_save_area(with, cpu.xsave_state_size);
}

fn publish_debugger(
    request: &Request,
    linker: &Linker,
    maps: &LinkMaps,
    [main, interpreter]: [ObjectId; 2],
    base: Addr,
) {
    let first = Addr(maps.address(main) as usize);
    debugger::prepare(first, base);
    // The interpreter's own entry is for debuggers that are attached to `ld-seal.so PROGRAM`: to them it is the executable.
    for id in [main, interpreter] {
        let object = &linker.objects[id];
        if let Some(at) = object.dynamic.debug {
            // An executable whose dynamic section is read-only has no debugger support, as with glibc.
            object.image.write_u64(at, globals::R_DEBUG.structure().addr().0 as u64);
        }
    }
    if let Some((map, path)) = maps.structure(main).zip(request.path_of_program(&linker.objects[main])) {
        debugger::show_program(map, path);
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
