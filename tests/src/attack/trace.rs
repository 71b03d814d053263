//! A process under ptrace(2), stopped at the start and the end of each of its system calls.

#![allow(unsafe_code)]

use crate::process::Ending;
use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::FileExt;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};

/// The number of mseal(2) on x86-64.
pub const MSEAL: u64 = 462;

/// A traced process. It is killed when this is dropped.
#[derive(Debug)]
pub struct Tracee {
    child: Child,
    ended: bool,
    inside: bool,
}

/// Why a traced process stopped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stop {
    /// At a system call that it is about to make.
    Enter {
        /// Its number.
        number: u64,
        /// Its arguments.
        arguments: [u64; 6],
    },
    /// At the return of the system call, with its result: an error number is negative.
    Leave(i64),
    /// It is gone.
    Ended(Ending),
}

impl Tracee {
    /// Starts `command` in a process group of its own and stops it at the end of its execve(2).
    ///
    /// What is observed then is the new program alone: nothing of it has run yet. All further calls must come from the
    /// thread that made this one (ptrace's rule).
    ///
    /// # Errors
    /// The command can't be started, or this process may not trace.
    pub fn start(command: &mut Command) -> io::Result<Tracee> {
        command.process_group(0);
        // SAFETY: between fork and exec the closure makes one system call and touches no memory that another thread could own.
        unsafe {
            command.pre_exec(|| match libc::ptrace(libc::PTRACE_TRACEME, 0, 0usize, 0usize) {
                0 => Ok(()),
                _ => Err(io::Error::last_os_error()),
            });
        }
        let child = command.spawn()?;
        let tracee = Tracee { child, ended: false, inside: false };
        let status = tracee.wait()?;
        if !libc::WIFSTOPPED(status) {
            return Err(io::Error::other("the traced process ended before its first instruction"));
        }
        let options = libc::PTRACE_O_TRACESYSGOOD | libc::PTRACE_O_EXITKILL;
        tracee.request(libc::PTRACE_SETOPTIONS, options as usize)?;
        Ok(tracee)
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The child process, for its pipes.
    pub fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// Lets it run to its next stop. Signals reach it as if nobody traced it.
    ///
    /// # Errors
    /// A failing ptrace or wait.
    pub fn resume(&mut self) -> io::Result<Stop> {
        let mut signal = 0;
        loop {
            self.request(libc::PTRACE_SYSCALL, signal as usize).or_else(unless_killed)?;
            let status = self.wait()?;
            if libc::WIFEXITED(status) {
                self.ended = true;
                return Ok(Stop::Ended(Ending::Exit(libc::WEXITSTATUS(status))));
            }
            if libc::WIFSIGNALED(status) {
                self.ended = true;
                return Ok(Stop::Ended(Ending::Signal(libc::WTERMSIG(status))));
            }
            if libc::WSTOPSIG(status) == libc::SIGTRAP | 0x80 {
                match self.system_call() {
                    Err(e) => unless_killed(e)?,
                    stop => return stop,
                }
            }
            // Anything else is a signal on its way to the process, or the notice of an execve of its own.
            let stopped_by = libc::WSTOPSIG(status);
            signal = if stopped_by == libc::SIGTRAP { 0 } else { stopped_by };
        }
    }

    fn system_call(&mut self) -> io::Result<Stop> {
        self.inside = !self.inside;
        let registers = self.registers()?;
        Ok(match self.inside {
            true => Stop::Enter {
                number: registers.orig_rax,
                arguments: [registers.rdi, registers.rsi, registers.rdx, registers.r10, registers.r8, registers.r9],
            },
            false => Stop::Leave(registers.rax as i64),
        })
    }

    /// Refuses the system call at whose [`Stop::Enter`] the process stands: the kernel does nothing and the process gets `errno`.
    /// Returns the stop at the end of the call.
    ///
    /// # Errors
    /// A failing ptrace or wait.
    pub fn refuse(&mut self, errno: i32) -> io::Result<Stop> {
        let mut registers = self.registers()?;
        // No system call has this number.
        registers.orig_rax = u64::MAX;
        self.request(libc::PTRACE_SETREGS, &raw const registers as usize)?;
        let stop = self.resume()?;
        if let Stop::Leave(_) = stop {
            let mut registers = self.registers()?;
            registers.rax = i64::from(-errno) as u64;
            self.request(libc::PTRACE_SETREGS, &raw const registers as usize)?;
            return Ok(Stop::Leave(i64::from(-errno)));
        }
        Ok(stop)
    }

    /// Makes AT_IGNORE of an entry of the auxiliary vector, which stands on the stack until the process has run its first instruction.
    /// Returns whether there was one with this tag.
    ///
    /// # Errors
    /// A failing ptrace, or memory that can't be read or written.
    pub fn forget_auxiliary(&self, tag: u64) -> io::Result<bool> {
        let memory = OpenOptions::new().read(true).write(true).open(format!("/proc/{}/mem", self.pid()))?;
        let word = |at: u64| {
            let mut bytes = [0; 8];
            memory.read_exact_at(&mut bytes, at).map(|()| u64::from_ne_bytes(bytes))
        };
        let mut at = self.registers()?.rsp;
        // argc, argv and a null, envp and a null.
        at += 8 * (word(at)? + 2);
        while word(at)? != 0 {
            at += 8;
        }
        at += 8;
        loop {
            match word(at)? {
                found if found == tag => return memory.write_all_at(&libc::AT_IGNORE.to_ne_bytes(), at).map(|()| true),
                libc::AT_NULL => return Ok(false),
                _ => at += 16,
            }
        }
    }

    /// Lets it run without stopping at system calls until it ends, or until a signal is about to end it.
    ///
    /// # Errors
    /// A failing ptrace or wait.
    pub fn run(&mut self) -> io::Result<End> {
        loop {
            self.request(libc::PTRACE_CONT, 0)?;
            let status = self.wait()?;
            if libc::WIFEXITED(status) {
                self.ended = true;
                return Ok(End::Exit(libc::WEXITSTATUS(status)));
            }
            if libc::WIFSIGNALED(status) {
                self.ended = true;
                return Ok(End::Killed(libc::WTERMSIG(status)));
            }
            let signal = libc::WSTOPSIG(status);
            if FATAL.contains(&signal) {
                return Ok(End::Fault { signal, code: self.signal_code()?, address: self.registers()?.rip });
            }
        }
    }

    /// `si_code` of the signal at which the thread has stopped.
    fn signal_code(&self) -> io::Result<i32> {
        // SAFETY: the structure is plain integers, for which zero is a value.
        let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
        self.request(libc::PTRACE_GETSIGINFO, &raw mut info as usize)?;
        Ok(info.si_code)
    }

    fn registers(&self) -> io::Result<libc::user_regs_struct> {
        // SAFETY: the registers are plain integers, for which zero is a value.
        let mut registers: libc::user_regs_struct = unsafe { std::mem::zeroed() };
        self.request(libc::PTRACE_GETREGS, &raw mut registers as usize)?;
        Ok(registers)
    }

    fn request(&self, request: libc::c_uint, data: usize) -> io::Result<()> {
        // SAFETY: the kernel writes for PTRACE_GETREGS and reads for PTRACE_SETREGS; for both `data` points to a whole user_regs_struct.
        match unsafe { libc::ptrace(request, self.child.id() as libc::pid_t, 0usize, data) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }

    fn wait(&self) -> io::Result<libc::c_int> {
        let mut status = 0;
        loop {
            // SAFETY: the kernel writes one int to the address of a local variable.
            let waited = unsafe { libc::waitpid(self.child.id() as libc::pid_t, &raw mut status, libc::__WALL) };
            match waited {
                -1 if io::Error::last_os_error().kind() == io::ErrorKind::Interrupted => {}
                -1 => return Err(io::Error::last_os_error()),
                _ => return Ok(status),
            }
        }
    }
}

/// Nothing, if the thread was killed while it stood: another of its process has called exit_group(2), and only its end is left to see.
fn unless_killed(error: io::Error) -> io::Result<()> {
    match error.raw_os_error() {
        Some(libc::ESRCH) => Ok(()),
        _ => Err(error),
    }
}

/// Signals that a program's own instructions raise.
const FATAL: [i32; 6] = [libc::SIGSEGV, libc::SIGBUS, libc::SIGILL, libc::SIGFPE, libc::SIGABRT, libc::SIGSYS];

/// How [`Tracee::run`] ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// With this status.
    Exit(i32),
    /// By a signal from elsewhere.
    Killed(i32),
    /// It stands before the end that a signal of its own making brings.
    Fault {
        /// The signal.
        signal: i32,
        /// Why it came (`si_code`).
        code: i32,
        /// Of the instruction.
        address: u64,
    },
}

impl Drop for Tracee {
    fn drop(&mut self) {
        if !self.ended {
            let _ = self.child.kill();
            let _ = self.wait();
        }
    }
}

/// A call of mseal(2) and what came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seal {
    /// First address.
    pub start: u64,
    /// Length in bytes.
    pub length: u64,
    /// 0 or a negative error number.
    pub result: i64,
}

/// What a process asked of the kernel from its execve(2) on. Its children are not followed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Calls {
    /// How many system calls.
    pub number: usize,
    /// Those of mseal.
    pub seals: Vec<Seal>,
    /// How it ended.
    pub ending: Ending,
}

/// Runs `command` to its end. Its streams go where the command says, which must not be a pipe that fills up.
///
/// # Errors
/// The command can't be started or traced.
pub fn calls(command: &mut Command) -> io::Result<Calls> {
    let mut tracee = Tracee::start(command)?;
    let mut calls = Calls { number: 0, seals: Vec::new(), ending: Ending::TimedOut };
    let mut sealing = false;
    loop {
        match tracee.resume()? {
            Stop::Enter { number, arguments: [start, length, ..] } => {
                calls.number += 1;
                sealing = number == MSEAL;
                if sealing {
                    calls.seals.push(Seal { start, length, result: 0 });
                }
            }
            Stop::Leave(result) => {
                if let (true, Some(seal)) = (sealing, calls.seals.last_mut()) {
                    seal.result = result;
                }
            }
            Stop::Ended(ending) => {
                calls.ending = ending;
                return Ok(calls);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_counted() {
        let calls = calls(&mut Command::new("/bin/true")).expect("traceable");
        assert_eq!(calls.ending, Ending::Exit(0));
        assert!(calls.number > 10, "{calls:?}");
    }

    #[test]
    fn faults_are_located() {
        let mut tracee = Tracee::start(Command::new("/bin/sh").args(["-c", "kill -SEGV $$"])).expect("traceable");
        assert!(matches!(tracee.run(), Ok(End::Fault { signal: libc::SIGSEGV, .. })));
        assert_eq!(Tracee::start(&mut Command::new("/bin/false")).expect("traceable").run().ok(), Some(End::Exit(1)));
    }

    #[test]
    fn an_auxiliary_entry_is_forgotten_once() {
        let tracee = Tracee::start(&mut Command::new("/bin/true")).expect("traceable");
        assert_eq!(tracee.forget_auxiliary(libc::AT_RANDOM).ok(), Some(true));
        assert_eq!(tracee.forget_auxiliary(libc::AT_RANDOM).ok(), Some(false));
    }

    #[test]
    fn a_process_that_is_killed_where_it_stands_ends() {
        let mut tracee = Tracee::start(&mut Command::new("/bin/true")).expect("traceable");
        assert!(matches!(tracee.resume(), Ok(Stop::Enter { .. })));
        tracee.child().kill().expect("it is there");
        // It is gone when its status can be had, which is left for the tracer.
        let pid = libc::id_t::from(tracee.pid());
        // SAFETY: the structure is plain integers, for which zero is a value; the kernel writes to it.
        let waited = unsafe {
            let mut info: libc::siginfo_t = std::mem::zeroed();
            libc::waitid(libc::P_PID, pid, &raw mut info, libc::WEXITED | libc::WNOWAIT)
        };
        assert_eq!(waited, 0);
        assert_eq!(tracee.resume().ok(), Some(Stop::Ended(Ending::Signal(libc::SIGKILL))));
    }

    #[test]
    fn entries_and_returns_alternate() {
        let mut tracee = Tracee::start(&mut Command::new("/bin/false")).expect("traceable");
        let mut last = Stop::Leave(0);
        loop {
            let stop = tracee.resume().expect("resumable");
            match (&last, &stop) {
                (Stop::Leave(_), Stop::Enter { .. }) | (Stop::Enter { .. }, Stop::Leave(_)) => {}
                (Stop::Enter { number, .. }, Stop::Ended(Ending::Exit(1))) => {
                    assert_eq!(*number as i64, libc::SYS_exit_group);
                    return;
                }
                pair => panic!("{pair:?}"),
            }
            last = stop;
        }
    }
}
