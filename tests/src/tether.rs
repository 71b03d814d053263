//! Children that don't outlive the harness: a program that hangs under some loader must not run on after Ctrl-C.

#![allow(unsafe_code)]

use rustix::process::{getppid, set_parent_process_death_signal, Pid, Signal};
use std::io;
use std::os::unix::process::CommandExt;
use std::process::{self, Command};

/// Lets the process that `command` starts be killed when the thread that starts it ends, for whatever reason (prctl(2),
/// PR_SET_PDEATHSIG). The thread has to wait for it.
pub fn tether(command: &mut Command) -> &mut Command {
    let parent = i32::try_from(process::id()).ok().and_then(Pid::from_raw);
    let bind = move || {
        set_parent_process_death_signal(Some(Signal::KILL))?;
        // Who ended before that call sends nothing any more.
        match getppid() == parent {
            true => Ok(()),
            false => Err(io::ErrorKind::BrokenPipe.into()),
        }
    };
    // SAFETY: between fork and exec the closure makes two system calls and touches no memory that another thread could own.
    unsafe { command.pre_exec(bind) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::ExitStatusExt;
    use std::thread;

    #[test]
    fn a_child_ends_with_the_thread_that_started_it() {
        let started = thread::spawn(|| tether(Command::new("sleep").arg("600")).spawn()).join().expect("it ends");
        let status = started.expect("sleep is there").wait().expect("it can be waited for");
        assert_eq!(status.signal(), Some(Signal::KILL.as_raw()));
    }
}
