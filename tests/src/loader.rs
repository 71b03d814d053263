//! The loader under test, and the command lines that put a program under it or under the system's loader.

use crate::process::{self, Outcome};
use std::collections::BTreeMap;
use std::env;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// The system's dynamic loader: the specification.
pub const SYSTEM: &str = "/lib64/ld-linux-x86-64.so.2";

/// A way into the loader under test.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Way {
    /// `ld-seal.so PROGRAM ARGS`, compared with `ld.so PROGRAM ARGS`.
    Invoke,
    /// `ldseal run PROGRAM ARGS`, compared with a direct start.
    Run,
    /// The kernel starts it as PT_INTERP of the program, compared with a direct start.
    Interp,
}

impl Way {
    /// All of them.
    pub const ALL: [Way; 3] = [Way::Invoke, Way::Run, Way::Interp];

    /// The word for it in manifests and names of trials.
    pub fn word(self) -> &'static str {
        match self {
            Way::Invoke => "invoke",
            Way::Run => "run",
            Way::Interp => "interp",
        }
    }
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// A value of `glibc.rtld.seal`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Level(pub u8);

impl Level {
    /// Off, best effort, enforced.
    pub const ALL: [Level; 3] = [Level(0), Level(1), Level(2)];
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "level {}", self.0)
    }
}

/// The files under test.
#[derive(Debug, Clone)]
pub struct Loader {
    /// The interpreter.
    pub interpreter: PathBuf,
    /// The launcher that starts programs under it.
    pub launcher: Option<PathBuf>,
}

impl Loader {
    /// The interpreter and launcher that the build left, or those that `LDSEAL_TEST_INTERPRETER` and
    /// `LDSEAL_TEST_LAUNCHER` name: with the system's loader in the former, a suite must find no difference.
    ///
    /// # Errors
    /// Neither the build nor the environment names an interpreter, or it doesn't exist.
    pub fn under_test(built: Option<&str>, launcher: &str) -> Result<Loader, String> {
        let chosen = env::var_os("LDSEAL_TEST_INTERPRETER").map(PathBuf::from);
        let other_launcher = env::var_os("LDSEAL_TEST_LAUNCHER").map(PathBuf::from);
        let launcher = match (&chosen, other_launcher) {
            (_, Some(launcher)) => Some(launcher),
            (Some(_), None) => None,
            (None, None) => Some(PathBuf::from(launcher)),
        };
        let Some(interpreter) = chosen.or(built.map(PathBuf::from)) else {
            return Err("the build names no interpreter: set LDSEAL_TEST_INTERPRETER".into());
        };
        match interpreter.is_file() {
            true => Ok(Loader { interpreter, launcher }),
            false => Err(format!("{}: no such interpreter", interpreter.display())),
        }
    }

    /// Why `way` can't be tried, if it can't.
    pub fn missing(&self, way: Way) -> Option<String> {
        (way == Way::Run && self.launcher.is_none()).then(|| "LDSEAL_TEST_LAUNCHER is not set".into())
    }
}

/// A program to be started, by whichever loader.
#[derive(Debug, Clone)]
pub struct Start {
    /// The program, absolute or relative to `directory`.
    pub program: PathBuf,
    /// Options of the loader itself, for [`Way::Invoke`].
    pub options: Vec<String>,
    /// Its arguments, without `argv[0]`.
    pub args: Vec<String>,
    /// The whole environment.
    pub env: BTreeMap<String, String>,
    /// A command that starts it all, or nothing.
    pub wrapper: Vec<String>,
    /// Working directory.
    pub directory: PathBuf,
    /// Standard input.
    pub stdin: Vec<u8>,
    /// Time limit.
    pub limit: Duration,
}

impl Start {
    /// A start of `program` in `directory` with the harness's minimal environment.
    pub fn new(program: impl Into<PathBuf>, directory: impl Into<PathBuf>) -> Start {
        let directory = directory.into();
        let env = minimal_environment(&directory);
        Start {
            program: program.into(),
            options: Vec::new(),
            args: Vec::new(),
            env,
            wrapper: Vec::new(),
            directory,
            stdin: Vec::new(),
            limit: Duration::from_secs(60),
        }
    }

    /// Under the system's loader, in the manner that `way` is compared with.
    ///
    /// # Errors
    /// The program can't be started at all.
    pub fn reference(&self, way: Way, level: Level) -> io::Result<Outcome> {
        match way {
            Way::Invoke => self.capture(&self.invocation(SYSTEM.as_ref()), Some(level)),
            Way::Interp => self.capture(&[&self.program], Some(level)),
            Way::Run => self.capture(&[&self.program], None),
        }
    }

    /// Under the loader under test. For [`Way::Interp`] the program itself must name it as its interpreter.
    ///
    /// # Errors
    /// The program can't be started at all.
    pub fn tested(&self, loader: &Loader, way: Way, level: Level) -> io::Result<Outcome> {
        match (way, &loader.launcher) {
            (Way::Invoke, _) => self.capture(&self.invocation(&loader.interpreter), Some(level)),
            (Way::Interp, _) => self.capture(&[&self.program], Some(level)),
            (Way::Run, Some(launcher)) => {
                let seal = level.0.to_string();
                let words = ["run", "--seal", &seal, "--"].map(Path::new);
                let head = [&[launcher.as_path()], &words[..], &[&self.program]].concat();
                self.capture(&head, None)
            }
            (Way::Run, None) => Err(io::Error::other("no launcher")),
        }
    }

    fn invocation<'a>(&'a self, interpreter: &'a Path) -> Vec<&'a Path> {
        let options = self.options.iter().map(Path::new);
        [interpreter].into_iter().chain(options).chain([self.program.as_path()]).collect()
    }

    /// Starts `head` with the arguments; the level, if there is one, travels in GLIBC_TUNABLES, which the system's loader gets as well.
    fn capture(&self, head: &[&Path], level: Option<Level>) -> io::Result<Outcome> {
        let wrapper = self.wrapper.iter().map(Path::new);
        let mut words = wrapper.chain(head.iter().copied());
        let mut command = Command::new(words.next().ok_or_else(|| io::Error::other("nothing to start"))?);
        command.args(words).args(&self.args).current_dir(&self.directory).env_clear().envs(&self.env);
        if let Some(Level(level)) = level {
            let others = self.env.get("GLIBC_TUNABLES").map(|t| format!(":{t}")).unwrap_or_default();
            command.env("GLIBC_TUNABLES", format!("glibc.rtld.seal={level}{others}"));
        }
        process::capture(&mut command, &self.stdin, self.limit)
    }
}

/// What every start gets, so that nothing of the developer's environment decides a comparison.
fn minimal_environment(home: &Path) -> BTreeMap<String, String> {
    let path = env::var("PATH").unwrap_or_else(|_| "/usr/local/bin:/usr/bin:/bin".into());
    let home = home.to_string_lossy().into_owned();
    BTreeMap::from([("PATH".into(), path), ("HOME".into(), home), ("LC_ALL".into(), "C".into())])
}
