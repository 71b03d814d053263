//! What this command needs of the kernel that no crate offers in a safe form.

use loader::addr::Addr;
use loader::error::LoadError;
use loader::object::Object;
use loader::program;
use std::ffi::{c_char, CStr, CString};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::ptr;

use nix::unistd::{ForkResult, Pid};

extern "C" {
    static environ: *const *const c_char;
}

/// Replaces this process by the program in an open file (execveat(2)); the environment is the one this process got, the
/// very strings. Returns only with the error.
pub fn execute(image: &OwnedFd, argv: &[CString]) -> io::Error {
    let mut pointers: Vec<*const c_char> = argv.iter().map(|argument| argument.as_ptr()).collect();
    pointers.push(ptr::null());
    let empty: &CStr = c"";
    // SAFETY: the path and the arguments are NUL-terminated strings and the array of arguments ends in a null pointer, all
    // alive for the call; `environ` is libc's own array, which this process, having a single thread, does not change.
    unsafe {
        let (fd, flags) = (image.as_raw_fd(), libc::AT_EMPTY_PATH);
        libc::syscall(libc::SYS_execveat, fd, empty.as_ptr(), pointers.as_ptr(), environ, flags);
    }
    io::Error::last_os_error()
}

/// Whether this process is in secure execution (AT_SECURE).
pub fn is_secure() -> bool {
    // SAFETY: it reads the auxiliary vector, which is there from the start.
    unsafe { libc::getauxval(libc::AT_SECURE) != 0 }
}

/// The vDSO of this process, which is that of any other.
///
/// # Errors
/// Its dynamic section is broken.
pub fn vdso() -> Result<Option<Box<Object>>, LoadError> {
    // SAFETY: as above.
    let header = unsafe { libc::getauxval(libc::AT_SYSINFO_EHDR) };
    if header == 0 {
        return Ok(None);
    }
    // SAFETY: the kernel says that it has mapped the vDSO there.
    unsafe { program::vdso(Addr(header as usize)) }
}

/// Whether a write through `/proc/self/mem` changes memory that may only be read, as tried on a page of this process's own. `None`: it can't
/// be tried.
pub fn writes_through_proc_mem() -> Option<bool> {
    use std::os::unix::fs::FileExt;
    let page = probe_page()?;
    let memory = std::fs::OpenOptions::new().write(true).open("/proc/self/mem").ok();
    let written = memory.map(|memory| memory.write_at(&[1], page.0 as u64).is_ok());
    unmap(page);
    written
}

/// Whether this kernel has guard pages (MADV_GUARD_INSTALL, Linux 6.13), as tried on a page of this process's own.
pub fn has_guard_pages() -> bool {
    const GUARD_INSTALL: libc::c_int = 102;
    let Some(page) = probe_page() else { return false };
    // SAFETY: the page is this function's own, and is not touched afterwards.
    let installed = unsafe { libc::madvise(page.0 as *mut libc::c_void, 4096, GUARD_INSTALL) } == 0;
    unmap(page);
    installed
}

fn probe_page() -> Option<Addr> {
    use loader::sys::{map_anonymous, Place, Prot};
    // SAFETY: new memory at a place of the kernel's choice.
    unsafe { map_anonymous(Place::Anywhere, 4096, Prot::READ, false) }.ok()
}

fn unmap(page: Addr) {
    // SAFETY: whoever made the page has no more use of it.
    if let Err(errno) = unsafe { loader::sys::unmap(page..Addr(page.0 + 4096)) } {
        log::debug!("a page of a trial stays: {errno}");
    }
}

/// Runs `child` in a new process, which ends with the status that it returns.
///
/// # Errors
/// The kernel's.
pub fn fork(child: impl FnOnce() -> u8) -> nix::Result<Pid> {
    // SAFETY: this process has a single thread, so the child finds no lock held by a thread that it does not have.
    match unsafe { nix::unistd::fork() }? {
        ForkResult::Parent { child } => Ok(child),
        ForkResult::Child => std::process::exit(child().into()),
    }
}

/// How a stopped thread goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resume {
    /// To its next event or signal.
    Run,
    /// To the end of the system call that it is in.
    ToEndOfCall,
    /// It stays stopped with its process, as job control wants it, until that goes on.
    Listen,
}

/// Lets a traced thread go on, with a signal or 0. Signals are numbers here: real-time ones have no names.
///
/// # Errors
/// The kernel's; ESRCH when it has been killed.
pub fn resume(thread: Pid, how: Resume, signal: i32) -> io::Result<()> {
    let request = match how {
        Resume::Run => libc::PTRACE_CONT,
        Resume::ToEndOfCall => libc::PTRACE_SYSCALL,
        Resume::Listen => libc::PTRACE_LISTEN,
    };
    // SAFETY: none of these requests reads or writes memory of this process; the fourth argument is a number.
    let result = unsafe { libc::ptrace(request, thread.as_raw(), 0, signal as libc::c_long) };
    if result == -1 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Puts a seccomp filter on this process. It needs CAP_SYS_ADMIN, or that no program it executes gains rights, which is then
/// decided for good (PR_SET_NO_NEW_PRIVS).
///
/// # Errors
/// The kernel's.
pub fn install_filter(program: &[libc::sock_filter]) -> io::Result<()> {
    let length = libc::c_ushort::try_from(program.len()).map_err(io::Error::other)?;
    let filter = libc::sock_fprog { len: length, filter: program.as_ptr().cast_mut() };
    let install = || {
        // SAFETY: the structure and the instructions that it points to are alive for the call, which only reads them.
        match unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &filter) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    };
    match install() {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            rustix::thread::set_no_new_privs(true)?;
            install()
        }
        other => other,
    }
}

/// Gives a signal its default effect.
pub fn reset_signal(signal: i32) {
    // SAFETY: a disposition without a handler calls no code of this process. It fails for SIGKILL and SIGSTOP, which have no other.
    unsafe { libc::signal(signal, libc::SIG_DFL) };
}

/// Ends this process by a signal, without a core file of its own. It returns if that can't be done.
pub fn die_of(signal: i32) {
    use rustix::process::{setrlimit, Resource, Rlimit};
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    if let Err(error) = setrlimit(Resource::Core, none) {
        log::debug!("a core file may be written: {error}");
    }
    reset_signal(signal);
    // SAFETY: the set is this function's own, and this process has a single thread, whose mask it changes.
    unsafe {
        let mut set = std::mem::zeroed();
        libc::sigemptyset(&mut set);
        libc::sigaddset(&mut set, signal);
        libc::sigprocmask(libc::SIG_UNBLOCK, &set, ptr::null_mut());
        libc::raise(signal);
    }
}

/// Sends a signal by its number.
///
/// # Errors
/// The kernel's.
pub fn send(process: Pid, signal: i32) -> io::Result<()> {
    // SAFETY: the call touches no memory.
    match unsafe { libc::kill(process.as_raw(), signal) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Whether this kernel says in smaps what is sealed, as tried on a page of this process's own, which stays. One that has no mseal has
/// nothing to say. `None`: it can't be tried.
pub fn smaps_tells_seals() -> Option<bool> {
    use loader::seal::call::{is_sealed_in, mseal, SealError, Sealed};
    use std::os::fd::AsFd;
    let page = probe_page()?;
    match mseal(page..Addr(page.0 + 4096)) {
        Ok(()) => {}
        Err(SealError::Unsupported) => return Some(true),
        Err(_) => return None,
    }
    let smaps = std::fs::File::open("/proc/self/smaps").ok()?;
    Some(is_sealed_in(smaps.as_fd(), page, false) == Sealed::Yes)
}
