//! Filling the structures that libc.so.6 reads, at start-up.

use super::cpu::CpuFeatures;
use super::globals::{Structure, RO_TABLES, RTLD_GLOBAL, RTLD_GLOBAL_RO};
use super::layout::Layout;
use super::tls_modules::{self, Module, Place};
use super::{exports, find_object, hook, tls};
use crate::initial_stack::{AuxKey, InitialStack};
use crate::process::{self, Process, StaticTls};
use alloc::vec;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};
use loader::addr::Addr;
use loader::elf::symbols::HashedName;
use loader::error::Lossy;
use loader::linker::Linker;
use loader::object::{Object, ObjectId, BASE_NAMESPACE};
use loader::tls::{StaticLayout, TlsState};

/// A recursive mutex has this in its `__kind`.
const RECURSIVE: u32 = 1;
/// `PF_R | PF_W`, with `PF_X` for programs that want executable stacks.
const STACK_READ_WRITE: u32 = 6;
/// The FPU control word of a new process.
const FPU_CONTROL: u16 = 0x37f;
/// What a kernel that does not say needs for a signal frame.
const MIN_SIGNAL_STACK: usize = 2048;
/// Modules for which the list of slots has room beyond those that are loaded (glibc's `TLS_SLOTINFO_SURPLUS`).
const SLOT_SURPLUS: usize = 62;

/// Fills `_rtld_global` but for the lists of objects and the TLS modules.
pub fn fill_global(layout: &Layout, executable_stack: bool) {
    let global = RTLD_GLOBAL.structure();
    let fields = &layout.rtld_global;
    global.put_u64(fields.dl_nns, 1);
    let unique_lock = fields.dl_ns + layout.link_namespaces.ns_unique_sym_table_lock;
    let locks =
        [Some(fields.dl_load_lock), Some(fields.dl_load_write_lock), fields.dl_load_tls_lock, Some(unique_lock)];
    for lock in locks.into_iter().flatten() {
        global.put_u32(lock + layout.mutex.kind, RECURSIVE);
    }
    let exec = u32::from(executable_stack);
    if let Some(flags) = fields.dl_stack_flags {
        global.put_u32(flags, STACK_READ_WRITE | exec);
    }
    if let Some(flags) = fields.dl_stack_prot_flags {
        global.put_u32(flags, 3 | exec << 2);
    }
    for list in [fields.dl_stack_used, fields.dl_stack_user, fields.dl_stack_cache] {
        global.put_addr(list, global.field(list));
        global.put_addr(list + 8, global.field(list));
    }
    // Never looked into: not null means that a dynamic loader is at work.
    global.put_addr(fields.dl_all_dirs, RTLD_GLOBAL_RO.structure().field(RO_TABLES));
}

/// Fills `_rtld_global_ro` and the table of the dlfcn hook behind it.
pub fn fill_read_only(layout: &Layout, stack: &InitialStack, cpu: &CpuFeatures, tls: &TlsInfo, lazy: bool) {
    let ro = RTLD_GLOBAL_RO.structure();
    let fields = &layout.rtld_global_ro;
    let aux = |key, default| stack.aux(key).unwrap_or(default);
    ro.put_u64(fields.dl_pagesize, aux(AuxKey::PageSize, 4096) as u64);
    ro.put_u64(
        fields.dl_minsigstacksize,
        cpu.min_signal_stack(aux(AuxKey::MinSignalStack, 0) as u64).max(MIN_SIGNAL_STACK as u64),
    );
    let platform = cpu.platform().map(platform_text).or(stack.aux(AuxKey::Platform));
    if let Some(platform) = platform {
        ro.put_u64(fields.dl_platform, platform as u64);
    }
    ro.put_u32(fields.dl_clktck, aux(AuxKey::ClockTick, 100) as u32);
    ro.put_u32(fields.dl_debug_fd, 2);
    if log::log_enabled!(target: "calls", log::Level::Debug) {
        ro.put_u32(fields.dl_debug_mask, DL_DEBUG_IMPCALLS);
    }
    ro.put_u32(fields.dl_lazy, u32::from(lazy));
    ro.put_u16(fields.dl_fpu_control, FPU_CONTROL);
    ro.put_u64(fields.dl_hwcap, cpu.hwcap());
    ro.put_u64(fields.dl_hwcap2, aux(AuxKey::Hwcap2, 0) as u64);
    ro.put_addr(fields.dl_auxv, stack.auxv());
    // SAFETY: nothing refers to these bytes yet.
    let features = unsafe { ro.tail_mut(fields.dl_x86_cpu_features) };
    if cpu.write_into(&layout.cpu_features, &layout.cpu_kinds, features).is_none() {
        crate::fatal(format_args!("inconsistency: cpu_features do not fit the layout"));
    }
    ro.put_u64(fields.dl_tls_static_size, tls.size);
    ro.put_u64(fields.dl_tls_static_align, tls.align);
    ro.put_u64(fields.dl_tls_static_surplus, tls.surplus);
    ro.put_addr(fields.dl_init_all_dirs, ro.field(RO_TABLES));
    functions(layout);
}

/// The bit of `_dl_debug_mask` for which libc tells what it calls.
const DL_DEBUG_IMPCALLS: u32 = 1 << 1;

/// `_dl_platform` as a C string.
fn platform_text(name: &str) -> usize {
    match name {
        "haswell" => c"haswell".as_ptr() as usize,
        _ => c"xeon_phi".as_ptr() as usize,
    }
}

fn functions(layout: &Layout) {
    let ro = RTLD_GLOBAL_RO.structure();
    let fields = &layout.rtld_global_ro;
    let put = |offset: usize, function: *const ()| ro.put_addr(offset, Addr(function as usize));
    put(fields.dl_debug_printf, exports::dl_debug_printf as *const ());
    put(fields.dl_mcount, exports::dl_mcount as *const ());
    put(fields.dl_lookup_symbol_x, exports::dl_lookup_symbol_x as *const ());
    put(fields.dl_open, exports::behind_the_hook as *const ());
    put(fields.dl_close, exports::behind_the_hook as *const ());
    put(fields.dl_catch_error, exports::behind_the_hook as *const ());
    put(fields.dl_error_free, exports::dl_error_free as *const ());
    put(fields.dl_tls_get_addr_soft, tls::dl_tls_get_addr_soft as *const ());
    if let Some(offset) = fields.dl_libc_freeres {
        put(offset, exports::dl_libc_freeres as *const ());
    }
    if let Some(offset) = fields.dl_find_object {
        put(offset, find_object::dl_find_object as *const ());
    }
    for (offset, function) in hook::table(&layout.dlfcn_hook) {
        ro.put_addr(RO_TABLES + offset, Addr(function));
    }
    ro.put_addr(fields.dl_dlfcn_hook, ro.field(RO_TABLES));
}

/// Tells libc of the vDSO's functions.
pub fn fill_vdso(layout: &Layout, vdso: &Object, map: Addr, header: Addr) {
    let ro = RTLD_GLOBAL_RO.structure();
    let fields = &layout.rtld_global_ro;
    // SAFETY: no code of the program has run.
    unsafe { exports::set_vdso(vdso.symbols, map) };
    ro.put_addr(fields.dl_sysinfo_dso, header);
    ro.put_addr(fields.dl_sysinfo_map, map);
    let functions: [(Option<usize>, &[u8]); 6] = [
        (Some(fields.dl_vdso_clock_gettime64), b"__vdso_clock_gettime"),
        (Some(fields.dl_vdso_gettimeofday), b"__vdso_gettimeofday"),
        (Some(fields.dl_vdso_time), b"__vdso_time"),
        (Some(fields.dl_vdso_getcpu), b"__vdso_getcpu"),
        (Some(fields.dl_vdso_clock_getres_time64), b"__vdso_clock_getres"),
        (fields.dl_vdso_getrandom, b"__vdso_getrandom"),
    ];
    for (offset, name) in functions {
        if let (Some(offset), Some(symbol)) = (offset, exports::vdso_symbol(name)) {
            ro.put_u64(offset, loader::reloc::value_of(vdso, symbol));
        }
    }
}

/// Tells `LD_DEBUG` where the functions of the vDSO are that every glibc from 2.31 on asks for, in its words and at its time: before
/// anything else is loaded.
pub fn tell_vdso(vdso: &Object) {
    const FUNCTIONS: [&str; 5] =
        ["__vdso_clock_gettime", "__vdso_gettimeofday", "__vdso_time", "__vdso_getcpu", "__vdso_clock_getres"];
    let is_told = |target| log::log_enabled!(target: target, log::Level::Trace);
    if !is_told("symbols") && !is_told("bindings") {
        return;
    }
    let file = Lossy(vdso.display_name());
    for name in FUNCTIONS {
        log::trace!(target: "symbols", "symbol={name};  lookup in file={file} [0]");
        let symbol = HashedName::new(name.as_bytes());
        if vdso.symbols.find(symbol, |_, symbol| (symbol.st_shndx != 0).then_some(())).is_some() {
            log::trace!(target: "bindings", "binding file {file} [0] to {file} [0]: normal symbol `{name}' [LINUX_2.6]");
        }
    }
}

/// The numbers of static TLS.
#[derive(Clone, Copy, Debug)]
pub struct TlsInfo {
    /// All of it, with `struct pthread` and the surplus.
    pub size: u64,
    /// Its alignment.
    pub align: u64,
    /// Room for objects that are dlopened later.
    pub surplus: u64,
    /// What the program's closure uses.
    pub layout: StaticLayout,
}

/// Gives every module of the start-up closure its place.
///
/// # Errors
/// The name of an object whose TLS does not fit the address space.
pub fn place_static_tls(layout: &Layout, linker: &Linker, surplus: u64) -> Result<TlsInfo, ObjectId> {
    /// The alignment of `struct pthread`.
    const TCB_ALIGN: u64 = 64;
    let mut placed = StaticLayout::new(TCB_ALIGN);
    for id in linker.tls_modules.iter().flatten() {
        let object = &linker.objects[*id];
        if let Some(segment) = &object.tls {
            let offset = placed.place(segment).filter(|o| *o < 1 << 40).ok_or(*id)?;
            object.tls_state.set(TlsState::Static { module: object.tls_state.get().module(), offset });
        }
    }
    let size = ((placed.used + surplus + placed.align - 1) & !(placed.align - 1)) + layout.pthread.size as u64;
    Ok(TlsInfo { size, align: placed.align, surplus, layout: placed })
}

/// The room for static TLS that a dlopen may use.
pub fn static_room(layout: &Layout, info: &TlsInfo, optional: u64) -> StaticTls {
    StaticTls { layout: info.layout, room: info.size - layout.pthread.size as u64, optional }
}

/// Registers the modules of the start-up closure with the TLS functions.
pub fn register_modules(linker: &Linker) {
    for id in linker.tls_modules.iter().flatten() {
        let object = &linker.objects[*id];
        let state = object.tls_state.get();
        tls::set_module(
            state.module(),
            Module {
                generation: 1,
                place: Place { segment: object.tls, static_offset: state.static_offset() },
                decided: true,
            },
        );
    }
}

/// The list of TLS modules that is in use: its memory, and how many slots it has.
static SLOTS: AtomicPtr<u8> = AtomicPtr::new(core::ptr::null_mut());
static SLOT_COUNT: AtomicUsize = AtomicUsize::new(0);

/// Writes the list of TLS modules as libthread_db reads it. The loader's lock must be held.
pub fn publish_modules(process: &Process) {
    let layout = process::layout();
    let modules = &process.linker.tls_modules;
    let (list, slots) = (&layout.dtv_slotinfo_list, &layout.dtv_slotinfo);
    if SLOT_COUNT.load(Ordering::Relaxed) <= modules.len() {
        // The old list stays: a debugger may be reading it. The new one is twice as long as need be.
        let count = modules.len() * 2 + 1 + SLOT_SURPLUS;
        let block = Vec::leak(vec![0u8; list.slotinfo + count * slots.size]);
        SLOTS.store(block.as_mut_ptr(), Ordering::Relaxed);
        SLOT_COUNT.store(count, Ordering::Relaxed);
    }
    let count = SLOT_COUNT.load(Ordering::Relaxed);
    let start = SLOTS.load(Ordering::Relaxed);
    // SAFETY: the block was made with that size, and is never freed.
    let block = unsafe { Structure::at(start, list.slotinfo + count * slots.size) };
    block.put_u64(list.len, count as u64);
    for number in 1..count {
        let at = list.slotinfo + number * slots.size;
        let id = modules.get(number - 1).copied().flatten();
        block.put_u64(at + slots.gen, tls_modules::entry(number).map_or(0, |entry| entry.generation()));
        block.put_u64(at + slots.map, id.map_or(0, |id| process.maps.address(id) as u64));
    }
    let global = RTLD_GLOBAL.structure();
    global.put_addr(layout.rtld_global.dl_tls_dtv_slotinfo_list, block.addr());
    global.put_u64(layout.rtld_global.dl_tls_max_dtv_idx, modules.len() as u64);
    global.put_u64(layout.rtld_global.dl_tls_static_used, process.static_tls.layout.used);
}

/// Counts objects that were added, for `dl_iterate_phdr`'s `dlpi_adds`.
pub fn count_adds(count: u64) {
    let at = process::layout().rtld_global.dl_load_adds;
    let global = RTLD_GLOBAL.structure();
    global.put_u64(at, global.get_u64(at) + count);
}

/// Says which library is profiled, so that libc tells of the calls that it makes.
pub fn publish_profiled(map: Addr) {
    RTLD_GLOBAL.structure().put_addr(process::layout().rtld_global.dl_profile_map, map);
}

/// Writes the remaining words about the program's namespace.
pub fn publish_namespace(process: &mut Process) {
    let layout = process::layout();
    let global = RTLD_GLOBAL.structure();
    if let Some(libc) = process.libc {
        let at = layout.rtld_global.dl_ns + layout.link_namespaces.libc_map;
        global.put_addr(at, Addr(process.maps.address(libc) as usize));
    }
    process.maps.publish_list(layout, &process.linker, BASE_NAMESPACE);
    global.put_u64(layout.rtld_global.dl_tls_static_nelem, process.linker.tls_modules.len() as u64);
}
