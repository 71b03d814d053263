//! The program's start: as by `ldseal run`, but traced and filtered from its first instruction on.

use super::filter;
use crate::interpreter;
use crate::report::stopped::Failure;
use crate::run;
use crate::sys;
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::{SigSet, SigmaskHow, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::Pid;
use std::cell::Cell;
use std::ffi::OsString;
use std::io::{pipe, PipeReader, Read, Write};

/// Signals that say that this very process is broken; all others are the program's.
const OWN: [Signal; 7] =
    [Signal::SIGSEGV, Signal::SIGBUS, Signal::SIGILL, Signal::SIGFPE, Signal::SIGABRT, Signal::SIGTRAP, Signal::SIGSYS];

/// A program that has been started, and where this process reads the signals that it gets from now on.
pub struct Started {
    /// The program.
    pub process: Pid,
    /// The signals.
    pub signals: SignalFd,
}

/// Starts the interpreter with these arguments. Signals, standard descriptors and environment are those that this process got.
///
/// # Errors
/// It can't be started or traced.
pub fn spawn(argv: &[OsString]) -> Result<Started, Failure> {
    let mut caught = SigSet::all();
    OWN.into_iter().for_each(|signal| caught.remove(signal));
    let inherited = caught.thread_swap_mask(SigmaskHow::SIG_BLOCK)?;
    let signals = SignalFd::with_flags(&caught, SfdFlags::SFD_CLOEXEC)?;
    let (mut wait, go) = pipe().map_err(|error| Failure::new(super::FAILURE, format!("a pipe: {error}")))?;
    let go = Cell::new(Some(go));
    let process = sys::fork(|| {
        // Nobody but the parent holds the other end, so that the child ends if the parent does.
        drop(go.take());
        execute(argv, &inherited, &mut wait)
    })?;
    // Its stops are told by this signal, which would not come at all if whoever started this command ignores it.
    sys::reset_signal(libc::SIGCHLD);
    let options = Options::PTRACE_O_EXITKILL
        | Options::PTRACE_O_TRACESYSGOOD
        | Options::PTRACE_O_TRACEFORK
        | Options::PTRACE_O_TRACEVFORK
        | Options::PTRACE_O_TRACECLONE
        | Options::PTRACE_O_TRACEEXEC
        | Options::PTRACE_O_TRACESECCOMP;
    ptrace::seize(process, options)?;
    let told = go.take().map_or(Ok(()), |mut go| go.write_all(&[1]));
    told.map_err(|error| Failure::new(super::FAILURE, format!("the program: {error}")))?;
    Ok(Started { process, signals })
}

/// The child: waits until it is traced, and becomes the interpreter. Returns only if that fails.
fn execute(argv: &[OsString], signals: &SigSet, wait: &mut PipeReader) -> u8 {
    if wait.read_exact(&mut [0]).is_err() {
        return super::FAILURE;
    }
    let ready = sys::install_filter(&filter::program()).map_err(|error| format!("a seccomp filter: {error}"));
    let ready = ready.and_then(|()| signals.thread_set_mask().map_err(|error| error.desc().into()));
    let error = match ready {
        Ok(()) => interpreter::execute(argv),
        Err(error) => error,
    };
    eprintln!("ldseal: {}: {error}", interpreter::NAME);
    run::NOT_EXECUTABLE
}
