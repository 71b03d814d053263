//! Profiling of one library (`LD_PROFILE`): where it spends its time, and which calls come into it from other objects.
//!
//! As in glibc a file `SONAME.profile` is mapped that all processes share: a header, a histogram of the library's code to which a timer's
//! signal adds, and arcs, each a caller, a function and how often. sprof(1) reads it. Lazily bound calls stay unbound meanwhile, so that
//! each comes to the interpreter, which counts it, at level 2 as well.

mod arcs;
mod file;

use crate::glibc::start as abi;
use crate::logger;
use crate::process::Process;
use crate::services::{close, link};
use alloc::boxed::Box;
use alloc::ffi::CString;
use arcs::Arcs;
use core::arch::naked_asm;
use core::sync::atomic::{AtomicPtr, AtomicU16, Ordering};
use file::Geometry;
use loader::addr::Addr;
use loader::errno;
use loader::error::Lossy;
use loader::object::{Kind, Object, ObjectId};
use loader::reloc::PltMode;
use loader::sys;
use rustix::fd::AsFd;
use rustix::io::Errno;

/// Samples in a second, as glibc's `profil`.
const FREQUENCY: u32 = 100;
const SIGPROF: i32 = 27;

/// What is to be profiled.
struct Wanted {
    name: &'static [u8],
    output: &'static [u8],
}

/// A profile that is being written.
struct Profile {
    /// Where the library's code begins.
    low: u64,
    /// How many bytes of code there are.
    size: u64,
    histogram: &'static [AtomicU16],
    arcs: Arcs,
}

static WANTED: AtomicPtr<Wanted> = AtomicPtr::new(core::ptr::null_mut());
static RUNNING: AtomicPtr<Profile> = AtomicPtr::new(core::ptr::null_mut());

/// Says that the library of this name is to be profiled, into a file in the directory `output`.
pub fn want(name: &'static [u8], output: &'static [u8]) {
    WANTED.store(Box::into_raw(Box::new(Wanted { name, output })), Ordering::Release);
}

fn wanted() -> Option<&'static Wanted> {
    // SAFETY: null, or from a box that is never freed.
    unsafe { WANTED.load(Ordering::Acquire).as_ref() }
}

fn running() -> Option<&'static Profile> {
    // SAFETY: as above.
    unsafe { RUNNING.load(Ordering::Acquire).as_ref() }
}

/// Whether a library is to be profiled.
pub fn is_wanted() -> bool {
    wanted().is_some()
}

/// How the slots of an object are bound: its own wish to be bound at once does not count, as in glibc.
pub fn mode(usual: PltMode, asked: PltMode) -> PltMode {
    if asked == PltMode::Lazy && is_wanted() {
        PltMode::Lazy
    } else {
        usual
    }
}

/// Starts the profile if the library is among these objects, which were relocated as `asked` says, and has slots of its own that are bound
/// lazily, without which glibc does not see it. It stays loaded then.
pub fn begin(process: &mut Process, objects: &[ObjectId], asked: PltMode) {
    let Some(wanted) = wanted().filter(|_| running().is_none()) else {
        return;
    };
    let is_meant = |id: &&ObjectId| {
        let object = &process.linker.objects[**id];
        let is_lazy = object.dynamic.plt_rela.is_some() && link::plt_mode(object, asked) == PltMode::Lazy;
        matches!(object.kind, Kind::Library | Kind::Executable) && is_lazy && object.answers_to(wanted.name)
    };
    let Some(&id) = objects.iter().find(is_meant) else {
        return;
    };
    if let Err(text) = start(&process.linker.objects[id], wanted) {
        logger::line(format_args!("{text}"));
        return;
    }
    close::promote(process, &[id]);
    abi::publish_profiled(Addr(process.maps.address(id) as usize));
}

fn start(object: &Object, wanted: &Wanted) -> Result<(), alloc::string::String> {
    let path = [wanted.output, b"/", wanted.name, b".profile"].concat();
    let shown = Lossy(&path);
    let complain = |what: &str, errno: Errno| match errno {
        // glibc's loader has words for these.
        Errno::NOMEM | Errno::INVAL | Errno::NOENT | Errno::PERM | Errno::ACCESS => {
            alloc::format!("{shown}: {what}: {}", errno::text(errno))
        }
        _ => alloc::format!("{shown}: {what}: Error {}", errno.raw_os_error()),
    };
    let no_memory = || alloc::string::String::from("out of memory while initializing profiler");
    let wrong = || alloc::format!("{shown}: file is no correct profile data file for `{}'", Lossy(wanted.name));
    let geometry = Geometry::of(object).ok_or_else(wrong)?;
    let name = CString::new(path.clone()).map_err(|_| no_memory())?;
    let fd = sys::open_shared(&name).map_err(|e| complain("cannot open file", e))?;
    let status = sys::status(fd.as_fd()).map_err(|e| complain("cannot stat file", e))?;
    let is_new = status.size == 0 && status.regular;
    if is_new {
        sys::set_size(fd.as_fd(), geometry.file_size).map_err(|e| complain("cannot create file", e))?;
    } else if !status.regular || status.size != geometry.file_size {
        return Err(wrong());
    }
    let size = usize::try_from(geometry.file_size).map_err(|_| no_memory())?;
    let at = sys::map_shared(size, fd.as_fd()).map_err(|e| complain("cannot map file", e))?;
    // SAFETY: the mapping is that long, stays for ever, and nobody in this process has references into it yet.
    let parts = unsafe { geometry.split(at, is_new) }.ok_or_else(wrong)?;
    let low = object.image.bias.run_time(geometry.low).0 as u64;
    let arcs = Arcs::new(parts.arcs, geometry.text_size());
    let profile = Profile { low, size: geometry.text_size(), histogram: parts.histogram, arcs };
    RUNNING.store(Box::into_raw(Box::new(profile)), Ordering::Release);
    // SAFETY: the handler touches the profile only, and the restorer is one.
    let started =
        unsafe { sys::set_signal_handler(SIGPROF, sample as *const () as usize, restorer as *const () as usize) };
    // Without samples there are still the calls.
    let _ = started.and_then(|()| sys::set_profiling_timer(1_000_000 / FREQUENCY));
    Ok(())
}

/// Counts a call that returns to `from` and goes to `to`, if it goes into the library.
pub fn call(from: u64, to: u64) {
    let Some(profile) = running() else {
        return;
    };
    let to = to.wrapping_sub(profile.low);
    if to >= profile.size {
        return;
    }
    // What lies elsewhere is all one caller.
    let from = from.wrapping_sub(profile.low);
    profile.arcs.count(if from < profile.size { from } else { 0 }, to);
}

/// `SIGPROF`: adds to the histogram where the program is.
extern "C" fn sample(_signal: i32, _information: *const u8, context: *const u64) {
    /// Words of `ucontext_t` before the instruction pointer.
    const RIP: usize = 5 + 16;
    // SAFETY: the kernel passes a context.
    let pc = unsafe { *context.add(RIP) };
    let Some(profile) = running() else {
        return;
    };
    let bin = usize::try_from(pc.wrapping_sub(profile.low) / file::BYTES_PER_BIN).unwrap_or(usize::MAX);
    if let Some(bin) = profile.histogram.get(bin) {
        bin.fetch_add(1, Ordering::Relaxed);
    }
}

/// Returns from a signal handler: `rt_sigreturn`.
#[unsafe(naked)]
unsafe extern "C" fn restorer() {
    naked_asm!("mov eax, 15", "syscall", "ud2")
}
