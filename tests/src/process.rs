//! One command, captured: stdout, stderr, how it ended, within a time limit.

use crate::tether::tether;
use rustix::event::{poll, PollFd, PollFlags};
use rustix::process::{kill_process_group, pidfd_open, Pid, PidfdFlags, Signal};
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{PoisonError, RwLock};
use std::time::{Duration, Instant};

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// `exit(status)`.
    Exit(i32),
    /// Ended by a signal.
    Signal(i32),
    /// It was still running when its time was up, and was killed.
    TimedOut,
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Ending::Exit(status) => write!(f, "exit status {status}"),
            Ending::Signal(signal) => write!(f, "signal {signal}"),
            Ending::TimedOut => write!(f, "timed out"),
        }
    }
}

/// Everything that is observed of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// How it ended.
    pub ending: Ending,
    /// All of its standard output.
    pub stdout: Vec<u8>,
    /// All of its standard error.
    pub stderr: Vec<u8>,
}

/// After the process has ended, how long children that still hold its pipes may go on writing.
const STRAGGLERS: Duration = Duration::from_millis(500);

/// Runs `command` in a process group of its own, with `stdin` as its input, and kills the group after `limit`.
///
/// # Errors
/// The program can't be started, or its pipes can't be read.
pub fn capture(command: &mut Command, stdin: &[u8], limit: Duration) -> io::Result<Outcome> {
    log::debug!("{command:?}");
    command.process_group(0).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.stdin(if stdin.is_empty() { Stdio::null() } else { Stdio::piped() });
    let mut child = spawn(tether(command))?;
    let pid = Pid::from_child(&child);
    let pidfd = pidfd_open(pid, PidfdFlags::empty())?;
    if let Some(mut input) = child.stdin.take() {
        // A pipe takes 64 KiB without a reader; inputs here are a few lines. EPIPE is the program's choice not to read.
        let _ = input.write_all(stdin);
    }
    let missing = || io::Error::other("no pipe");
    let stdout = Stream::new(child.stdout.take().ok_or_else(missing)?.into());
    let stderr = Stream::new(child.stderr.take().ok_or_else(missing)?.into());
    let (streams, ended) = drain(pidfd, [stdout, stderr], Instant::now() + limit)?;
    let _ = kill_process_group(pid, Signal::KILL);
    let status = child.wait()?;
    let [stdout, stderr] = streams.map(|s| s.content);
    let ending = if ended { ending(status) } else { Ending::TimedOut };
    Ok(Outcome { ending, stdout, stderr })
}

/// Held for reading while a process is started, and for writing while a file is written that will be executed: a child that is
/// forked in between holds the file open for writing, and execve(2) of it fails with ETXTBSY.
static STARTING: RwLock<()> = RwLock::new(());

fn spawn(command: &mut Command) -> io::Result<Child> {
    let _starting = STARTING.read().unwrap_or_else(PoisonError::into_inner);
    command.spawn()
}

/// Writes a file that will be executed, while no other thread starts a process.
///
/// # Errors
/// It can't be written.
pub fn write_executable(path: &Path, content: &[u8]) -> io::Result<()> {
    let _writing = STARTING.write().unwrap_or_else(PoisonError::into_inner);
    fs::write(path, content)
}

struct Stream {
    pipe: Option<File>,
    content: Vec<u8>,
}

impl Stream {
    fn new(pipe: OwnedFd) -> Stream {
        Stream { pipe: Some(pipe.into()), content: Vec::new() }
    }

    /// Reads what is there; at the end of the stream closes it.
    fn read(&mut self) -> io::Result<()> {
        let Some(pipe) = &mut self.pipe else { return Ok(()) };
        let mut chunk = [0; 65536];
        match pipe.read(&mut chunk)? {
            0 => self.pipe = None,
            n => self.content.extend_from_slice(&chunk[..n]),
        }
        Ok(())
    }
}

/// Reads both streams until they end, the process has ended and said all, or `deadline`. Says whether the process has ended.
fn drain(pidfd: OwnedFd, mut streams: [Stream; 2], mut deadline: Instant) -> io::Result<([Stream; 2], bool)> {
    let mut ended = false;
    loop {
        let open: Vec<usize> = (0..2).filter(|&i| streams[i].pipe.is_some()).collect();
        if ended && open.is_empty() {
            return Ok((streams, true));
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok((streams, ended));
        }
        let timeout = rustix::event::Timespec { tv_sec: left.as_secs() as _, tv_nsec: left.subsec_nanos() as _ };
        let mut descriptors: Vec<PollFd> =
            open.iter().filter_map(|&i| streams[i].pipe.as_ref()).map(|p| PollFd::new(p, PollFlags::IN)).collect();
        if !ended {
            descriptors.push(PollFd::new(&pidfd, PollFlags::IN));
        }
        match poll(&mut descriptors, Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
        let ready: Vec<bool> = descriptors.iter().map(|d| !d.revents().is_empty()).collect();
        for (_, &stream) in open.iter().enumerate().filter(|(p, _)| ready[*p]) {
            streams[stream].read()?;
        }
        if !ended && ready[open.len()] {
            ended = true;
            deadline = deadline.min(Instant::now() + STRAGGLERS);
        }
    }
}

fn ending(status: ExitStatus) -> Ending {
    match (status.code(), status.signal()) {
        (Some(code), _) => Ending::Exit(code),
        (None, Some(signal)) => Ending::Signal(signal),
        (None, None) => Ending::Signal(0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str, limit: Duration) -> Outcome {
        capture(Command::new("sh").args(["-c", script]), b"in\n", limit).expect("sh starts")
    }

    #[test]
    fn streams_and_endings_are_told_apart() {
        let outcome = shell("cat; echo err >&2; exit 3", Duration::from_secs(10));
        assert_eq!(outcome, Outcome { ending: Ending::Exit(3), stdout: b"in\n".into(), stderr: b"err\n".into() });
        assert_eq!(shell("kill -SEGV $$", Duration::from_secs(10)).ending, Ending::Signal(11));
    }

    #[test]
    fn time_is_limited() {
        assert_eq!(shell("echo a; sleep 60", Duration::from_millis(300)).ending, Ending::TimedOut);
        let start = Instant::now();
        let outcome = shell("sleep 60 & echo a", Duration::from_secs(30));
        assert_eq!((outcome.ending, outcome.stdout), (Ending::Exit(0), b"a\n".to_vec()));
        assert!(start.elapsed() < Duration::from_secs(20), "a child that keeps the pipe open was waited for");
    }
}
