//! The program and all that it starts, from event to event, until the last of them has ended.
//!
//! Threads run freely between the calls that the filter picks out. Signals and job control go through to the program as if
//! this process were not there.

use super::collector::Collector;
use super::filter;
use super::signals::{self, Reaction};
use super::spawn::Started;
use crate::sys::{self, Resume};
use nix::sys::ptrace;
use nix::unistd::{getpgid, getpgrp, Pid};
use rustix::process::{WaitOptions, WaitStatus};
use std::collections::HashSet;
use std::io;

/// A stop with its process (ptrace(2), "PTRACE_EVENT_STOP"), or the first one of a new thread.
const EVENT_STOP: i32 = 128;
/// How a stop at a system call is told from the signal SIGTRAP (PTRACE_O_TRACESYSGOOD).
const CALL: i32 = libc::SIGTRAP | 0x80;

/// How a process has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// With this status.
    Status(i32),
    /// Killed by this signal.
    Signal(i32),
}

/// Follows the program until nothing that it has started is left; returns how it ended itself.
///
/// # Errors
/// Waiting for it fails.
pub fn follow(started: &Started, collector: &mut Collector) -> io::Result<Option<End>> {
    let live = HashSet::from([started.process]);
    let mut tracer =
        Tracer { program: started.process, live, early: HashSet::new(), end: None, urged: false, collector };
    loop {
        tracer.drain()?;
        if tracer.live.is_empty() {
            return Ok(tracer.end);
        }
        match started.signals.read_signal() {
            Ok(Some(info)) => {
                if !tracer.signal(info.ssi_signo as i32, info.ssi_code) {
                    return Ok(tracer.end);
                }
            }
            Ok(None) | Err(nix::Error::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

struct Tracer<'a> {
    program: Pid,
    /// Threads that are traced.
    live: HashSet<Pid>,
    /// Those of them that were seen before their creator told of them.
    early: HashSet<Pid>,
    end: Option<End>,
    /// Whether what the program has left behind was told to end.
    urged: bool,
    collector: &'a mut Collector,
}

impl Tracer<'_> {
    /// Handles all that has happened.
    fn drain(&mut self) -> io::Result<()> {
        loop {
            match rustix::process::wait(WaitOptions::NOHANG) {
                Ok(Some((pid, status))) => self.happened(Pid::from_raw(pid.as_raw_nonzero().get()), status),
                Ok(None) => return Ok(()),
                Err(rustix::io::Errno::CHILD) => {
                    self.live.clear();
                    return Ok(());
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn happened(&mut self, thread: Pid, status: WaitStatus) {
        if let Some(signal) = status.stopping_signal() {
            if self.live.insert(thread) {
                self.early.insert(thread);
            }
            let (how, signal) = self.stopped(thread, signal, status.as_raw() >> 16);
            if let Err(error) = sys::resume(thread, how, signal) {
                log::debug!("thread {thread} does not go on: {error}");
            }
            if how == Resume::Listen && thread == self.program {
                self.stop_too(status.stopping_signal().unwrap_or_default());
            }
            return;
        }
        let end = match (status.exit_status(), status.terminating_signal()) {
            (Some(status), _) => End::Status(status),
            (None, Some(signal)) => End::Signal(signal),
            (None, None) => return,
        };
        if self.live.remove(&thread) {
            self.collector.ended(thread, end);
        }
        if thread == self.program {
            self.end = Some(end);
        }
    }

    /// What a thread is stopped for; returns how it goes on, and with which signal.
    fn stopped(&mut self, thread: Pid, signal: i32, event: i32) -> (Resume, i32) {
        match event {
            EVENT_STOP if [libc::SIGSTOP, libc::SIGTSTP, libc::SIGTTIN, libc::SIGTTOU].contains(&signal) => {
                (Resume::Listen, 0)
            }
            libc::PTRACE_EVENT_SECCOMP => (self.filtered(thread), 0),
            libc::PTRACE_EVENT_FORK | libc::PTRACE_EVENT_VFORK | libc::PTRACE_EVENT_CLONE => {
                if let Some(child) = message(thread) {
                    if !self.early.remove(&child) {
                        self.live.insert(child);
                    }
                }
                (Resume::Run, 0)
            }
            libc::PTRACE_EVENT_EXEC => {
                // A thread that executes a program goes on under its process's own number.
                if let Some(former) = message(thread).filter(|&former| former != thread) {
                    self.live.remove(&former);
                }
                self.collector.executed(thread);
                (Resume::Run, 0)
            }
            0 if signal == CALL => {
                self.collector.called(thread);
                (Resume::Run, 0)
            }
            0 => (Resume::Run, signal),
            _ => (Resume::Run, 0),
        }
    }

    /// The thread is at a call that a filter wants to be looked at. If it is the program's own filter, the call fails as it does without
    /// anybody who looks.
    fn filtered(&self, thread: Pid) -> Resume {
        if ptrace::getevent(thread).is_ok_and(|data| data == i64::from(filter::MARK)) {
            return Resume::ToEndOfCall;
        }
        if let Ok(mut registers) = ptrace::getregs(thread) {
            registers.orig_rax = u64::MAX;
            registers.rax = -i64::from(libc::ENOSYS) as u64;
            if let Err(error) = ptrace::setregs(thread, registers) {
                log::debug!("thread {thread}: {error}");
            }
        }
        Resume::Run
    }

    /// Where the terminal has stopped the program, a shell waits for this process to stop as well.
    fn stop_too(&self, signal: i32) {
        let by_terminal = [libc::SIGTSTP, libc::SIGTTIN, libc::SIGTTOU].contains(&signal);
        if by_terminal && getpgid(Some(self.program)) == Ok(getpgrp()) {
            if let Err(error) = sys::send(Pid::this(), libc::SIGSTOP) {
                log::debug!("this process does not stop: {error}");
            }
        }
    }

    /// A signal to this process; returns whether to go on.
    fn signal(&mut self, signal: i32, code: i32) -> bool {
        match signals::react(signal, code, self.end.is_none(), self.urged) {
            Reaction::None => {}
            Reaction::ToProgram => deliver(self.program, signal),
            Reaction::ToAll => {
                self.urged = true;
                self.collector.processes(self.live.iter().copied()).into_iter().for_each(|p| deliver(p, signal));
            }
            Reaction::End => return false,
        }
        true
    }
}

fn deliver(process: Pid, signal: i32) {
    if let Err(error) = sys::send(process, signal) {
        log::debug!("signal {signal} to {process}: {error}");
    }
}

/// The number that an event comes with.
fn message(thread: Pid) -> Option<Pid> {
    ptrace::getevent(thread).ok().and_then(|number| i32::try_from(number).ok()).map(Pid::from_raw)
}
