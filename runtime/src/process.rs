//! The interpreter's state for the life of the process, and the gate that guards it.
//!
//! Two locks order things. `_dl_load_lock`, which libc knows, is held around whole dlopens and dlcloses, constructors included. The gate
//! here is held only while the state is read or changed, never while foreign code runs with the exception of IFUNC resolvers, so
//! that a lazily bound call in one thread can't wait for a constructor in another. It is recursive, because a resolver may make such a
//! call, and it lies on a page that the kernel clears in the child of a fork, where the thread that held it does not exist.

use crate::glibc::layout::Layout;
use crate::glibc::link_map::LinkMaps;
use crate::glibc::tunables::TunableSet;
use crate::glibc::{tables, tls};
use crate::heap::{self, HEAP};
use crate::profile;
use crate::services::error;
use crate::word::Words;
use alloc::boxed::Box;
use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicUsize, Ordering};
use loader::linker::Linker;
use loader::memory;
use loader::object::ObjectId;
use loader::reloc::PltMode;
use loader::seal::tunables::{SealLevel, SealTunables};
use loader::search::finder::Finder;
use loader::sys::{self, Place, Prot};
use rustix::thread::futex;

/// What constructors are called with.
#[derive(Clone, Copy)]
pub struct Arguments {
    /// Number of arguments.
    pub argc: i32,
    /// The arguments.
    pub argv: *mut *mut u8,
    /// The environment.
    pub envp: *mut *mut u8,
}

/// All that the services know.
pub struct Process {
    /// The objects.
    pub linker: Linker,
    /// Finds files.
    pub finder: Finder,
    /// libc's view of the objects.
    pub maps: LinkMaps,
    /// The tunables of sealing, with the level that counts.
    pub seal: SealTunables<'static>,
    /// How PLT slots of objects without an opinion are bound.
    pub binding: PltMode,
    /// glibc's tunables.
    pub tunables: TunableSet<'static>,
    /// What constructors are called with.
    pub arguments: Arguments,
    /// The program.
    pub main: ObjectId,
    /// The interpreter itself.
    pub interpreter: ObjectId,
    /// The kernel's vDSO.
    pub vdso: Option<ObjectId>,
    /// The program's C library.
    pub libc: Option<ObjectId>,
    /// An address in the first page of the main thread's stack.
    pub stack_end: loader::addr::Addr,
    /// Thread pointer of the thread whose dlclose is unloading, under the load lock; 0 if there is none.
    pub collector: usize,
    /// Bytes of static TLS in use, and how many there may be.
    pub static_tls: StaticTls,
}

/// The room for static TLS.
#[derive(Clone, Copy, Default)]
pub struct StaticTls {
    /// Placed so far.
    pub layout: loader::tls::StaticLayout,
    /// Bytes below the thread pointer of every thread.
    pub room: u64,
    /// How many of them modules may take that could do without (`glibc.rtld.optional_static_tls`).
    pub optional: u64,
}

impl Process {
    /// The program's `argv[0]`, or null.
    pub fn program_name(&self) -> *const core::ffi::c_char {
        // SAFETY: the argument array ends with a null pointer.
        unsafe { (*self.arguments.argv).cast_const().cast() }
    }

    /// An address in the C library, on whose behalf its own dlopens are made; the program if there is none.
    pub fn libc_text(&self) -> loader::addr::Addr {
        let object = &self.linker.objects[self.libc.unwrap_or(self.main)];
        object.image.segments.first().map_or(object.image.range.start, |s| object.image.bias.run_time(s.memory.start))
    }

    /// How the slots of the program and its libraries are bound: at level 2 all that can be, at once, unless each call is to be counted.
    pub fn binding_at_start(&self) -> PltMode {
        match self.binding {
            PltMode::Lazy if self.binds_early() => PltMode::Eager,
            binding => binding,
        }
    }

    /// Whether slots that could be bound at their first call are bound before.
    pub fn binds_early(&self) -> bool {
        self.level() == SealLevel::Enforced && !profile::is_wanted()
    }

    /// The level that counts.
    pub fn level(&self) -> SealLevel {
        self.seal.level
    }
}

struct Cell(UnsafeCell<Option<Box<Process>>>);
// SAFETY: reached through the gate only.
unsafe impl Sync for Cell {}

static PROCESS: Cell = Cell(UnsafeCell::new(None));
static LAYOUT: AtomicPtr<Layout> = AtomicPtr::new(core::ptr::null_mut());

/// The layout of the glibc in use; the first table until libc.so.6 is known.
pub fn layout() -> &'static Layout {
    // SAFETY: the pointer is null or comes from a `&'static Layout`.
    unsafe { LAYOUT.load(Ordering::Relaxed).as_ref() }.unwrap_or(tables::LAYOUTS[0])
}

/// Says which glibc is in use.
pub fn set_layout(layout: &'static Layout) {
    LAYOUT.store(core::ptr::from_ref(layout).cast_mut(), Ordering::Relaxed);
}

/// The words of the gate, on a page of their own.
#[repr(C)]
struct GateWords {
    /// 0 free, 1 held, 2 held with waiters.
    state: AtomicU32,
    depth: AtomicU32,
    /// Thread pointer of the holder.
    owner: AtomicUsize,
    /// The heap's lock, and that of the slots of `dlerror`.
    heap: Words,
    errors: Words,
}

static GATE: AtomicPtr<GateWords> = AtomicPtr::new(core::ptr::null_mut());
static THREADS_MAY_EXIST: AtomicBool = AtomicBool::new(false);

/// The state, for as long as this value lives.
pub struct Gate {
    locked: bool,
}

/// Makes the gate's page. Must precede [`open_to_threads`].
///
/// # Errors
/// The kernel gives no memory.
pub fn prepare_gate() -> Result<(), rustix::io::Errno> {
    const PAGE: usize = 4096;
    // SAFETY: new memory at a place of the kernel's choice.
    let page = unsafe { sys::map_anonymous(Place::Anywhere, PAGE, Prot::READ_WRITE, false)? };
    // Where the kernel does not know how, a child of a fork may wait for a thread that it does not have, as it may for malloc's locks.
    let _ = sys::wipe_on_fork(page..loader::addr::Addr(page.0 + PAGE));
    let gate: *mut GateWords = page.as_mut_ptr();
    // SAFETY: the page is mapped for the life of the process, and zeroes are valid words.
    let words: &'static GateWords = unsafe { &*gate };
    HEAP.lock.lock_by(&words.heap);
    error::LOCK.lock_by(&words.errors);
    GATE.store(gate, Ordering::Release);
    Ok(())
}

/// From now on other threads may be there.
pub fn open_to_threads() {
    THREADS_MAY_EXIST.store(true, Ordering::Release);
}

/// Puts the state in place; once, at start-up.
pub fn install(process: Process) {
    memory::set_source(heap::has_room);
    // SAFETY: there is one thread, and nothing has been handed out yet.
    unsafe { *PROCESS.0.get() = Some(Box::new(process)) };
}

/// Waits for the state.
pub fn enter() -> Gate {
    if !THREADS_MAY_EXIST.load(Ordering::Acquire) {
        return Gate { locked: false };
    }
    // SAFETY: the page was made before threads could exist, and is never unmapped.
    let Some(gate) = (unsafe { GATE.load(Ordering::Acquire).as_ref() }) else {
        return Gate { locked: false };
    };
    let me = tls::thread_pointer().0;
    if gate.state.load(Ordering::Relaxed) != 0 && gate.owner.load(Ordering::Relaxed) == me {
        gate.depth.fetch_add(1, Ordering::Relaxed);
        return Gate { locked: true };
    }
    if gate.state.compare_exchange(0, 1, Ordering::Acquire, Ordering::Relaxed).is_err() {
        while gate.state.swap(2, Ordering::Acquire) != 0 {
            // Whatever wakes it, the loop looks again.
            let _ = futex::wait(&gate.state, futex::Flags::PRIVATE, 2, None);
        }
    }
    gate.owner.store(me, Ordering::Relaxed);
    gate.depth.store(1, Ordering::Relaxed);
    Gate { locked: true }
}

impl Gate {
    /// Keeps the state beyond this value's life, until [`let_go`].
    pub fn keep(self) {
        core::mem::forget(self);
    }

    /// Whether the calling thread had the state before: it is in the middle of something.
    pub fn is_nested(&self) -> bool {
        // SAFETY: as in `enter`.
        unsafe { GATE.load(Ordering::Acquire).as_ref() }.is_some_and(|gate| gate.depth.load(Ordering::Relaxed) > 1)
    }
}

/// Ends what [`Gate::keep`] has prolonged. In the child of a fork the kernel has done so already.
pub fn let_go() {
    drop(Gate { locked: true });
}

impl Drop for Gate {
    fn drop(&mut self) {
        // SAFETY: as in `enter`.
        let Some(gate) = (unsafe { GATE.load(Ordering::Acquire).as_ref() }).filter(|_| self.locked) else {
            return;
        };
        // In the child of a fork the kernel has let go already.
        if gate.depth.load(Ordering::Relaxed) == 0 {
            return;
        }
        if gate.depth.fetch_sub(1, Ordering::Relaxed) != 1 {
            return;
        }
        gate.owner.store(0, Ordering::Relaxed);
        if gate.state.swap(0, Ordering::Release) == 2 {
            // A failed wake leaves nobody waiting.
            let _ = futex::wake(&gate.state, futex::Flags::PRIVATE, 1);
        }
    }
}

impl core::ops::Deref for Gate {
    type Target = Process;

    fn deref(&self) -> &Process {
        // SAFETY: the gate is held, and the state is there from before the first instruction that could come here.
        match unsafe { &*PROCESS.0.get() } {
            Some(process) => process,
            None => crate::fatal(format_args!("inconsistency: called before start-up was complete")),
        }
    }
}

impl core::ops::DerefMut for Gate {
    fn deref_mut(&mut self) -> &mut Process {
        // SAFETY: the gate is held, by this thread; a nested entry happens only in resolvers, while nobody outside changes anything.
        match unsafe { &mut *PROCESS.0.get() } {
            Some(process) => process,
            None => crate::fatal(format_args!("inconsistency: called before start-up was complete")),
        }
    }
}
