//! A program under the interpreter, stopped when it is about to run its first own instruction.
//!
//! The program is traced. Until its text is mapped each system call stops it; then a breakpoint at its entry point does.

use super::image::Image;
use super::memory;
use super::objects;
use super::process::Process;
use super::smaps::Mapping;
use crate::cli::RunArguments;
use crate::interpreter;
use crate::run::{self, Start};
use crate::sys;
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::Signal;
use nix::sys::wait::{waitpid, WaitStatus};
use nix::unistd::Pid;
use std::ffi::OsString;
use std::fs::{self, File};
use std::rc::Rc;

/// A stopped program. It is killed when this value goes.
pub struct Stopped(Pid);

impl Stopped {
    /// The process.
    pub fn pid(&self) -> u32 {
        self.0.as_raw().unsigned_abs()
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        // Both fail only when it is dead already.
        let _ = ptrace::kill(self.0);
        let _ = waitpid(self.0, None);
    }
}

/// Why there is no stopped program.
pub struct Failure {
    /// The exit status for it.
    pub status: u8,
    /// What to say.
    pub message: String,
}

impl Failure {
    /// With these.
    pub fn new(status: u8, message: impl Into<String>) -> Failure {
        Failure { status, message: message.into() }
    }
}

impl From<nix::Error> for Failure {
    fn from(error: nix::Error) -> Failure {
        Failure::new(super::FAILURE, format!("tracing the program: {}", error.desc()))
    }
}

/// x86-64's `int3`.
const BREAKPOINT: i64 = 0xcc;

/// Starts a program as `ldseal run` does, and returns when it is at its entry point.
///
/// # Errors
/// It can't be run or traced, or ends before.
pub fn start(arguments: &RunArguments) -> Result<Stopped, Failure> {
    let start = run::resolve(&arguments.program, &arguments.arguments)
        .map_err(|refusal| Failure::new(refusal.status, refusal.to_string()))?;
    let argv = interpreter::arguments(&start, arguments.level);
    let stopped = Stopped(spawn(&argv)?);
    stopped.wait()?;
    ptrace::setoptions(stopped.0, Options::PTRACE_O_EXITKILL | Options::PTRACE_O_TRACESYSGOOD)?;
    let entry = stopped.run_until_mapped(&start)?;
    log::debug!("the program's entry point is {entry:#x}");
    stopped.run_until(entry)?;
    Ok(stopped)
}

/// Starts the interpreter, traced; its standard output is this process's standard error.
fn spawn(argv: &[OsString]) -> Result<Pid, Failure> {
    let child = || {
        let traced = ptrace::traceme().map_err(|error| error.desc().to_owned());
        let error = traced
            .and_then(|()| rustix::stdio::dup2_stdout(rustix::stdio::stderr()).map_err(|error| error.to_string()))
            .map_or_else(|error| error, |()| interpreter::execute(argv));
        eprintln!("ldseal: {}: {error}", interpreter::NAME);
        run::NOT_EXECUTABLE
    };
    sys::fork(child).map_err(Failure::from)
}

impl Stopped {
    /// Waits for the next stop. A program that ends ends the report.
    fn wait(&self) -> Result<WaitStatus, Failure> {
        match waitpid(self.0, None)? {
            WaitStatus::Exited(_, status) => {
                let message = format!("the program has ended before its entry point, with status {status}");
                Err(Failure::new(u8::try_from(status).unwrap_or(u8::MAX).max(super::FAILURE), message))
            }
            WaitStatus::Signaled(_, signal, _) => {
                let message = format!("the program was killed by {signal} before its entry point");
                Err(Failure::new(128u8.wrapping_add(signal as u8), message))
            }
            status => Ok(status),
        }
    }

    /// Runs from system call to system call until the program's text is mapped; returns the address of its entry point.
    fn run_until_mapped(&self, start: &Start) -> Result<u64, Failure> {
        let image = File::open(&start.program).ok().and_then(|file| Image::read(&file)).map(Rc::new);
        let image = image.ok_or_else(|| Failure::new(super::FAILURE, "the program has changed"))?;
        let path = fs::canonicalize(&start.program).unwrap_or_else(|_| start.program.clone());
        let path = path.to_string_lossy();
        let mut signal = None;
        loop {
            ptrace::syscall(self.0, signal.take())?;
            match self.wait()? {
                WaitStatus::PtraceSyscall(_) => {}
                WaitStatus::Stopped(_, other) => signal = Some(other),
                _ => {}
            }
            if !self.may_have_mapped()? {
                continue;
            }
            let mappings = Process { pid: self.pid() }.mappings().unwrap_or_default();
            let mine = |mapping: &Mapping| (mapping.name == path).then(|| Rc::clone(&image));
            if let [program, ..] = &objects::find(&mappings, mine)[..] {
                return Ok(program.bias.wrapping_add(image.entry));
            }
            if let Some(entry) = self.copied(&image, &mappings) {
                return Ok(entry);
            }
        }
    }

    /// The entry point of the program where its text is a copy in anonymous memory.
    fn copied(&self, image: &Image, mappings: &[Mapping]) -> Option<u64> {
        let copies = memory::find(&Process { pid: self.pid() }, mappings, &[]);
        let program = copies.into_iter().find(|o| (o.image.entry, &o.image.loads) == (image.entry, &image.loads))?;
        let entry = program.bias.wrapping_add(image.entry);
        let is_text = |m: &Mapping| m.range.contains(&entry) && m.permissions.execute;
        mappings.iter().any(is_text).then_some(entry)
    }

    /// Whether the system call it is at is one that makes or changes mappings.
    fn may_have_mapped(&self) -> Result<bool, Failure> {
        let call = ptrace::getregs(self.0)?.orig_rax as i64;
        Ok([libc::SYS_mmap, libc::SYS_mprotect, libc::SYS_mremap].contains(&call))
    }

    /// Runs until the instruction at `entry` is next.
    fn run_until(&self, entry: u64) -> Result<(), Failure> {
        let address = entry as ptrace::AddressType;
        let original = ptrace::read(self.0, address)?;
        ptrace::write(self.0, address, original & !0xff | BREAKPOINT)?;
        let mut signal = None;
        loop {
            ptrace::cont(self.0, signal.take())?;
            let status = self.wait()?;
            let mut registers = ptrace::getregs(self.0)?;
            match status {
                WaitStatus::Stopped(_, Signal::SIGTRAP) if registers.rip == entry.wrapping_add(1) => {
                    ptrace::write(self.0, address, original)?;
                    registers.rip = entry;
                    ptrace::setregs(self.0, registers)?;
                    return Ok(());
                }
                WaitStatus::Stopped(_, other) => signal = Some(other),
                _ => {}
            }
        }
    }
}
