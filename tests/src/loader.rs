//! The loader under test, and the command lines that put a program under it or under the system's loader.

use crate::process::{self, Outcome};
use std::collections::BTreeMap;
use std::env;
use std::ffi::OsStr;
use std::fmt;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
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

    /// The system's loader, which has no launcher.
    pub fn system() -> Loader {
        Loader { interpreter: SYSTEM.into(), launcher: None }
    }

    /// Whether programs name it as their interpreter when nobody asks for another.
    pub fn is_system(&self) -> bool {
        self.interpreter == Path::new(SYSTEM)
    }

    /// Whether it is a build of `ld-seal.so`: it says so itself.
    pub fn seals(&self) -> bool {
        let output = Command::new(&self.interpreter).arg("--version").stdin(Stdio::null()).output();
        output.is_ok_and(|o| o.stdout.starts_with(b"ld-seal.so"))
    }

    /// Why `way` can't be tried, if it can't.
    pub fn missing(&self, way: Way) -> Option<String> {
        (way == Way::Run && self.launcher.is_none()).then(|| "the loader has no launcher".into())
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
        self.under(&Loader::system(), way, level)
    }

    /// Under the loader under test. For [`Way::Interp`] the program itself must name it as its interpreter.
    ///
    /// # Errors
    /// The program can't be started at all, or the loader has no such way.
    pub fn tested(&self, loader: &Loader, way: Way, level: Level) -> io::Result<Outcome> {
        match loader.missing(way) {
            Some(reason) => Err(io::Error::other(reason)),
            None => self.under(loader, way, level),
        }
    }

    /// Under a loader. For [`Way::Interp`] the program itself must name it as its interpreter, and for [`Way::Run`] where there
    /// is no launcher.
    ///
    /// # Errors
    /// The program can't be started at all.
    pub fn under(&self, loader: &Loader, way: Way, level: Level) -> io::Result<Outcome> {
        let (words, tunable) = self.words(loader, way, level);
        process::capture(&mut self.command(&words, tunable), &self.stdin, self.limit)
    }

    /// The command that [`Start::under`] runs.
    pub fn prepared(&self, loader: &Loader, way: Way, level: Level) -> Command {
        let (words, tunable) = self.words(loader, way, level);
        self.command(&words, tunable)
    }

    /// The shell command that does the same by hand.
    pub fn by_hand(&self, loader: &Loader, way: Way, level: Level) -> String {
        let (words, tunable) = self.words(loader, way, level);
        let command = self.command(&words, tunable);
        by_hand(&command, &self.stdin)
    }

    /// What is started, and the level if it travels in the environment.
    fn words(&self, loader: &Loader, way: Way, level: Level) -> (Vec<PathBuf>, Option<Level>) {
        match (way, &loader.launcher) {
            (Way::Invoke, _) => {
                let options = self.options.iter().map(PathBuf::from);
                let head = [loader.interpreter.clone()].into_iter();
                (head.chain(options).chain([self.program.clone()]).collect(), Some(level))
            }
            (Way::Run, Some(launcher)) => {
                let seal = level.0.to_string();
                let head = [launcher.clone()].into_iter().chain(["run", "--seal", &seal, "--"].map(PathBuf::from));
                (head.chain([self.program.clone()]).collect(), None)
            }
            (Way::Run, None) => (vec![self.program.clone()], None),
            (Way::Interp, _) => (vec![self.program.clone()], Some(level)),
        }
    }

    /// The level, if there is one, travels in GLIBC_TUNABLES, which the system's loader gets as well.
    fn command(&self, words: &[PathBuf], level: Option<Level>) -> Command {
        let mut words = self.wrapper.iter().map(Path::new).chain(words.iter().map(PathBuf::as_path));
        let mut command = Command::new(words.next().unwrap_or(Path::new("")));
        command.args(words).args(&self.args).current_dir(&self.directory).env_clear().envs(&self.env);
        if let Some(Level(level)) = level {
            let others = self.env.get("GLIBC_TUNABLES").map(|t| format!(":{t}")).unwrap_or_default();
            command.env("GLIBC_TUNABLES", format!("glibc.rtld.seal={level}{others}"));
        }
        command
    }
}

/// The shell command that does by hand what a command with a working directory and an environment of its own does, with this input.
pub fn by_hand(command: &Command, stdin: &[u8]) -> String {
    let quoted = |text: &OsStr| format!("'{}'", text.to_string_lossy().replace('\'', r"'\''"));
    let directory = command.get_current_dir().unwrap_or(Path::new("."));
    let mut line = format!("cd {} && env -i", quoted(directory.as_os_str()));
    for (name, value) in command.get_envs() {
        line += &format!(" {}={}", name.to_string_lossy(), quoted(value.unwrap_or_default()));
    }
    for word in [command.get_program()].into_iter().chain(command.get_args()) {
        line += &format!(" {}", quoted(word));
    }
    match stdin {
        [] => line + " </dev/null",
        text => format!("(printf %s {} | ({line}))", quoted(OsStr::from_bytes(text))),
    }
}

/// What every start gets, so that nothing of the developer's environment decides a comparison.
fn minimal_environment(home: &Path) -> BTreeMap<String, String> {
    let path = env::var("PATH").unwrap_or_else(|_| "/usr/local/bin:/usr/bin:/bin".into());
    let home = home.to_string_lossy().into_owned();
    BTreeMap::from([("PATH".into(), path), ("HOME".into(), home), ("LC_ALL".into(), "C".into())])
}
