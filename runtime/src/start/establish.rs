//! What stands between objects that are mapped and a process whose objects can be linked: the main thread, what libc and debuggers read of
//! the interpreter, and the state that all services work on.

use super::objects::Loaded;
use super::request::Request;
use super::{system, Circumstances, Failure};
use crate::glibc::cpu::CpuFeatures;
use crate::glibc::layout::Layout;
use crate::glibc::link_map::LinkMaps;
use crate::glibc::tunables::TunableSet;
use crate::glibc::{debugger, globals, start as abi, thread, tls};
use crate::initial_stack::{AuxKey, InitialStack};
use crate::process::{self, Arguments, Process};
use crate::services::{lazy, namespace, open};
use crate::statistics::Times;
use goblin::elf64::program_header::PT_GNU_STACK;
use loader::addr::Addr;
use loader::error::LoadError;
use loader::linker::Linker;
use loader::object::{ObjectId, BASE_NAMESPACE};
use loader::reloc::PltMode;
use loader::rule::{holds, Rule};
use loader::seal::tunables::{SealLevel, SealTunables};

/// How many namespaces a process may have.
pub const NAMESPACES: u64 = namespace::LIMIT as u64;

/// Makes these for what is `loaded` so far, which is sealed as `seal` says; `module_tls` is room in static TLS for audit modules.
/// The thread pointer is set up then, and the main thread's TLS images are not copied yet.
///
/// # Errors
/// Memory that is not to be had, and a stack that can't be made executable.
pub fn make_process(
    stack: &InitialStack,
    request: &Request,
    circumstances: Circumstances,
    mut loaded: Loaded,
    seal: SealTunables<'static>,
    module_tls: u64,
) -> Result<Times, Failure> {
    let Circumstances { base, cpu, tunables, times } = circumstances;
    let layout = process::layout();
    let surplus = tls_surplus(&tunables) + module_tls;
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
    let static_tls = abi::static_room(layout, &tls_info, optional_static_tls(&tunables));
    abi::fill_read_only(layout, stack, &cpu, &tls_info, binding == PltMode::Lazy);
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
        seal,
        binding,
        tunables,
        arguments: Arguments { argc: stack.argc() as i32, argv: stack.argv(), envp: stack.envp() },
        main,
        interpreter,
        vdso,
        libc,
        stack_end: stack.start(),
        collector: 0,
        static_tls,
    });
    Ok(times)
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

fn optional_static_tls(tunables: &TunableSet<'_>) -> u64 {
    tunables.number_of(b"glibc.rtld.optional_static_tls")
}

/// Room in static TLS for objects that are dlopened later, as glibc computes it: for the C library and others in each further
/// namespace, for what the tunable says, and for old audit modules.
fn tls_surplus(tunables: &TunableSet<'_>) -> u64 {
    const LIBC: u64 = 144;
    const OTHER: u64 = 144;
    const LEGACY: u64 = 144;
    let namespaces = tunables.number_of(b"glibc.rtld.nns").clamp(1, NAMESPACES);
    if !holds(Rule::TlsSurplus) {
        return 0;
    }
    (namespaces - 1) * LIBC + namespaces * OTHER + optional_static_tls(tunables) + LEGACY
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
