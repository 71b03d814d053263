//! One start: the command line, the time it takes, its page faults.

#![allow(unsafe_code)]

use super::patched::{Program, ARRIVED};
use conformance::loader::SYSTEM;
use std::ffi::{CString, OsStr};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::Command;
use std::ptr;
use std::time::{Duration, Instant};

/// How the loader is entered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// By the kernel, as PT_INTERP.
    Interp,
    /// As a program: `LOADER PROGRAM`.
    Invoke,
}

impl Way {
    /// Both.
    pub const ALL: [Way; 2] = [Way::Interp, Way::Invoke];

    /// The word for it in reports.
    pub fn word(self) -> &'static str {
        match self {
            Way::Interp => "interp",
            Way::Invoke => "invoke",
        }
    }
}

/// A loader and what it is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Setting {
    /// The system's loader, binding lazily.
    SystemLazy,
    /// The system's loader with LD_BIND_NOW=1.
    SystemNow,
    /// The loader under test at a seal level.
    Seal(u8),
}

impl Setting {
    /// All of them, in the order in which a round starts them.
    pub const ALL: [Setting; 5] =
        [Setting::Seal(0), Setting::SystemLazy, Setting::Seal(1), Setting::SystemNow, Setting::Seal(2)];

    /// The word for it in reports.
    pub fn word(self) -> &'static str {
        match self {
            Setting::SystemLazy => "system, lazy",
            Setting::SystemNow => "system, LD_BIND_NOW",
            Setting::Seal(0) => "ld-seal.so, level 0",
            Setting::Seal(1) => "ld-seal.so, level 1",
            Setting::Seal(_) => "ld-seal.so, level 2",
        }
    }

    /// What a level is compared with: level 2 binds everything, as LD_BIND_NOW does.
    pub fn opponent(self) -> Setting {
        match self {
            Setting::Seal(2) => Setting::SystemNow,
            _ => Setting::SystemLazy,
        }
    }
}

/// What is started.
#[derive(Debug, Clone)]
pub struct Start {
    words: Vec<CString>,
    environment: Vec<CString>,
}

/// What a start cost.
#[derive(Debug, Clone, Copy)]
pub struct Cost {
    /// From before the spawn to after the wait.
    pub time: Duration,
    /// Pages brought in without input: by page faults, or in advance.
    pub faults: i64,
}

impl Start {
    /// `program` under `setting`. Both loaders get the same environment, so that both have a tunable to read.
    pub fn new(program: &Program, way: Way, setting: Setting, interpreter: &Path) -> io::Result<Start> {
        let system = matches!(setting, Setting::SystemLazy | Setting::SystemNow);
        let (loader, copy) = match system {
            true => (Path::new(SYSTEM), &program.system),
            false => (interpreter, &program.tested),
        };
        let words: &[&Path] = match way {
            Way::Interp => &[copy],
            Way::Invoke => &[loader, copy],
        };
        let level = if let Setting::Seal(level) = setting { level } else { 1 };
        let mut environment =
            vec!["PATH=/usr/bin:/bin".into(), "LC_ALL=C".into(), format!("GLIBC_TUNABLES=glibc.rtld.seal={level}")];
        if setting == Setting::SystemNow {
            environment.push("LD_BIND_NOW=1".into());
        }
        let words = words.iter().map(|word| CString::new(word.as_os_str().as_bytes()));
        let environment = environment.into_iter().map(CString::new);
        Ok(Start { words: words.collect::<Result<_, _>>()?, environment: environment.collect::<Result<_, _>>()? })
    }

    /// A program that needs no loader.
    pub fn alone(program: &Path) -> io::Result<Start> {
        Ok(Start { words: vec![CString::new(program.as_os_str().as_bytes())?], environment: Vec::new() })
    }

    /// The same start as a command.
    pub fn command(&self) -> Command {
        let text = |word: &CString| OsStr::from_bytes(word.as_bytes()).to_owned();
        let mut command = Command::new(text(&self.words[0]));
        command.args(self.words[1..].iter().map(text)).env_clear();
        for assignment in &self.environment {
            let assignment = assignment.to_string_lossy();
            if let Some((name, value)) = assignment.split_once('=') {
                command.env(name, value);
            }
        }
        command
    }

    /// Starts it with posix_spawn(3), which copies no page tables, and waits for its end.
    ///
    /// # Errors
    /// It can't be started or did not arrive at its entry point.
    pub fn run(&self) -> io::Result<Cost> {
        let pointers = |words: &[CString]| -> Vec<*mut libc::c_char> {
            words.iter().map(|word| word.as_ptr().cast_mut()).chain([ptr::null_mut()]).collect()
        };
        let (words, environment) = (pointers(&self.words), pointers(&self.environment));
        let mut pid = 0;
        let mut status = 0;
        // SAFETY: rusage is plain integers, for which zero is a value.
        let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
        let before = Instant::now();
        // SAFETY: both vectors are null-terminated arrays of pointers into CStrings that outlive the call.
        let error = unsafe {
            let (words, environment) = (words.as_ptr(), environment.as_ptr());
            libc::posix_spawn(&raw mut pid, *words, ptr::null(), ptr::null(), words, environment)
        };
        if error != 0 {
            return Err(io::Error::from_raw_os_error(error));
        }
        // SAFETY: the kernel writes an int and a rusage to the addresses of local variables.
        let waited = unsafe { libc::wait4(pid, &raw mut status, 0, &raw mut usage) };
        let time = before.elapsed();
        if waited != pid {
            return Err(io::Error::last_os_error());
        }
        match libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == ARRIVED {
            true => Ok(Cost { time, faults: usage.ru_minflt }),
            false => Err(io::Error::other(format!("it did not arrive at its entry point (wait status {status:#x})"))),
        }
    }
}
