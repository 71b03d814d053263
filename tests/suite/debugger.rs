//! A debugger finds its way in a program under `ld-seal.so` as it does under the system's loader: libraries, breakpoints in libraries that
//! are not there yet, threads and thread-local storage (libthread_db), backtraces, core files, attaching.
//!
//! gdb gets the same commands for `fixtures/glibc/debugged.c` under both, and must say the same.

use conformance::compare::stream_difference;
use conformance::loader::SYSTEM;
use conformance::process::{capture, Ending, Outcome};
use conformance::{requirement, suite, Level, Loader};
use libtest_mimic::{Completion, Failed, Trial};
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::Duration;

/// Something to do with a debugger: its commands, and what it says under the system's loader if the machine lets it.
struct Session {
    name: &'static str,
    start: Start,
    commands: &'static [&'static str],
    /// Without these texts the comparison shows nothing.
    expected: &'static [&'static str],
}

/// How the program and the debugger come together.
#[derive(Clone, Copy, PartialEq)]
enum Start {
    /// The debugger starts the program.
    ByDebugger,
    /// The program runs already.
    Attached,
    /// The program runs already, and was started by a command line of the loader, which is the process's executable then; under the
    /// system's loader, by itself.
    AttachedToLoader,
    /// The program runs already, and was started by the launcher; under the system's loader, by itself.
    AttachedToRun,
    /// The debugger starts a command line of the loader; of the system's loader, the program itself.
    ByDebuggerWithLoader,
}

static SESSIONS: [Session; 10] = [
    Session {
        name: "libraries and backtraces",
        start: Start::ByDebugger,
        commands: &["break in_program", "run", "info sharedlibrary", "backtrace", "finish"],
        expected: &["libcalled.so", "libc.so.6", "in called_back (", "in main (", "Value returned is $1 = 2"],
    },
    Session {
        name: "breakpoint in a library that is opened and closed",
        start: Start::ByDebugger,
        commands: &[
            "break only_in_opened",
            "run",
            "backtrace",
            "info sharedlibrary",
            "finish",
            "print storage_of_opened",
            "break library_is_closed",
            "continue",
            "info sharedlibrary",
            "delete",
            "continue",
        ],
        expected: &["only_in_opened (argument=2)", "libopened.so", "= 35", "library_is_closed", "exited normally"],
    },
    Session {
        name: "catching a library that comes and goes",
        start: Start::ByDebugger,
        commands: &[
            "catch load libopened",
            "catch unload libopened",
            "run",
            "info sharedlibrary",
            "continue",
            "info sharedlibrary",
            "continue",
        ],
        expected: &["Inferior loaded", "Inferior unloaded", "libopened.so", "exited normally"],
    },
    Session {
        name: "a namespace that comes and goes",
        start: Start::ByDebugger,
        commands: &[
            "break library_is_closed",
            "run namespace",
            "delete",
            "break only_in_opened",
            "continue",
            "backtrace",
            "info sharedlibrary libopened",
            // Both copies. The loader is listed once more too, under a name that is not the same.
            "info sharedlibrary libc.so",
            "print storage_of_opened",
            "break library_is_closed",
            "continue",
            "info sharedlibrary",
            "delete",
            "continue",
        ],
        expected: &["only_in_opened (argument=3)", "libopened.so", "library_is_closed", "exited normally"],
    },
    Session {
        name: "threads and their storage",
        start: Start::ByDebugger,
        commands: &[
            "break threads_are_up",
            "run",
            "info threads",
            "thread apply all print own",
            "thread apply all print errno",
            "thread apply all print counted",
            "thread apply all print &own != 0",
            "thread apply all backtrace -3",
            "continue",
        ],
        expected: &[
            "using libthread_db",
            "* 1 ",
            "= 22",
            "= 11",
            "= 71",
            "= 5",
            "= 41",
            "in main (",
            "exited normally",
        ],
    },
    Session {
        name: "core file",
        start: Start::ByDebugger,
        commands: &[
            "break threads_are_up",
            "run",
            "generate-core-file core",
            "kill",
            "core-file core",
            "info sharedlibrary",
            "info threads",
            "thread apply all backtrace -3",
            "print own",
        ],
        expected: &["Saved corefile core", "Core was generated by", "libcalled.so", "in main (", "= 11"],
    },
    Session {
        name: "attaching",
        start: Start::Attached,
        commands: &[
            "info sharedlibrary",
            "backtrace",
            "thread apply all print own",
            "thread apply all print errno",
            "detach",
        ],
        expected: &["libcalled.so", "in main (", "= 22", "= 11"],
    },
    // The launcher lets the process show the program's auxiliary vector, by which the debugger finds the place of the program.
    Session {
        name: "attaching to what the launcher runs",
        start: Start::AttachedToRun,
        commands: &[
            "info sharedlibrary",
            "backtrace",
            "thread apply all print own",
            "thread apply all print errno",
            "break in_program",
            "info breakpoints",
            "detach",
        ],
        expected: &["libcalled.so", "in main (", "= 22", "= 11", "debugged.c:"],
    },
    // To the debugger the loader is the executable, and a main function of a library is none to it at which backtraces end. What it says of a
    // program that it starts itself is what it must say here; under the system's loader it would know nothing of the program.
    Session {
        name: "invoked directly",
        start: Start::ByDebuggerWithLoader,
        commands: &[
            "break in_program",
            "break only_in_opened",
            "break threads_are_up",
            "run",
            "info sharedlibrary",
            "frame 1",
            "frame 2",
            "frame 0",
            "print own",
            "finish",
            "continue",
            "frame 1",
            "continue",
            "print own",
            "thread 2",
            "frame function second_thread",
            "print own",
            "print (int) errno",
            "thread 1",
            "delete",
            "continue",
        ],
        expected: &[
            "in called_back (",
            "in main (",
            "Value returned is $2 = 2",
            "only_in_opened (argument=2)",
            "= 11",
            "= 22",
            "= 5",
            "exited normally",
        ],
    },
    Session {
        name: "attaching to the loader",
        start: Start::AttachedToLoader,
        commands: &[
            "info sharedlibrary",
            "select-frame function main",
            "info symbol $pc",
            "print own",
            "thread 2",
            "print errno",
            "frame function second_thread",
            "print own",
            "break in_program",
            "info breakpoints",
            "detach",
        ],
        expected: &["libcalled.so", "main + ", "= 22", "= 11", "debugged.c:"],
    },
];

fn main() -> ExitCode {
    suite::prepare();
    match Loader::under_test(option_env!("LDSEAL_INTERPRETER"), env!("CARGO_BIN_EXE_ldseal")) {
        Ok(loader) => suite::run(trials(&loader)),
        Err(reason) => {
            eprintln!("debugger: {reason}");
            ExitCode::FAILURE
        }
    }
}

fn trials(loader: &Loader) -> Vec<Trial> {
    let trial = |session: &'static Session, level: Level| {
        let loader = loader.clone();
        Trial::ignorable_test(format!("{} {level}", session.name), move || session.check(&loader, level))
    };
    // The level makes a difference to what is writable: breakpoints are written through ptrace.
    SESSIONS.iter().flat_map(|session| [Level(1), Level(2)].map(|level| trial(session, level))).collect()
}

impl Session {
    fn check(&self, loader: &Loader, level: Level) -> Result<Completion, Failed> {
        if let Some(reason) = ["cc", "gdb"].into_iter().find_map(requirement::unmet) {
            return Ok(Completion::ignored_with(reason));
        }
        let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).join("debugger");
        let folder = suite::scratch(&cache, &format!("{}-{}", self.name.replace(' ', "-"), level.0))?;
        self.build(&folder, loader)?;
        if self.start == Start::AttachedToRun && loader.launcher.is_none() {
            return Ok(Completion::ignored_with("LDSEAL_TEST_LAUNCHER is not set"));
        }
        let expected = self.run(&folder, None, level)?;
        let text = String::from_utf8_lossy(&expected.stdout).into_owned();
        let errors = String::from_utf8_lossy(&expected.stderr).into_owned();
        if let Some(reason) = errors.lines().find(|line| line.contains("not permitted")) {
            return Ok(Completion::ignored_with(format!("gdb: {reason}")));
        }
        if let Some(missing) = self.expected.iter().find(|part| !text.contains(**part)) {
            return Err(format!("gdb does not say {missing:?} under the system's loader:\n{text}{errors}").into());
        }
        let got = self.run(&folder, Some(loader), level)?;
        match stream_difference("what gdb says", &self.normalised(&expected), &self.normalised(&got)) {
            Some(difference) => Err(difference.into()),
            None => Ok(Completion::Completed),
        }
    }

    /// Under the system's loader, or under the one that is tested.
    fn run(&self, folder: &Path, loader: Option<&Loader>, level: Level) -> Result<Outcome, Failed> {
        let tunables = format!("glibc.rtld.seal={}", level.0);
        let folder = folder.join(if loader.is_some() { "tested" } else { "system" });
        let mut command = Command::new("gdb");
        let settings = ["pagination off", "breakpoint pending on", "confirm off", "width 0", "print thread-events off"];
        let more = if self.beside_a_program() { &["print entry-values no"][..] } else { &[] };
        command
            .args(["-nx", "-batch"])
            .args(settings.iter().chain(more).flat_map(|s| ["-iex".to_string(), format!("set {s}")]));
        let process = match self.start {
            Start::ByDebugger | Start::ByDebuggerWithLoader => None,
            Start::AttachedToRun => match loader.and_then(|l| l.launcher.as_deref()) {
                Some(launcher) => {
                    command.args(["-iex", "set exec-file-mismatch off"]);
                    let launcher = launcher.to_string_lossy();
                    Some(Waiting::start(&folder, &[&launcher, "run", "--", "./program"], &tunables)?)
                }
                None => Some(Waiting::start(&folder, &["./program"], &tunables)?),
            },
            Start::Attached => Some(Waiting::start(&folder, &["./program"], &tunables)?),
            Start::AttachedToLoader if loader.is_some() => {
                Some(Waiting::start(&folder, &["./loader.so", "./program"], &tunables)?)
            }
            Start::AttachedToLoader => Some(Waiting::start(&folder, &["./program"], &tunables)?),
        };
        if let Some(process) = &process {
            command.args(["-p", &process.0.id().to_string()]);
        }
        command.args(self.commands.iter().flat_map(|c| ["-ex", c]));
        match (self.start, loader) {
            (Start::AttachedToLoader, Some(_)) => {}
            (Start::ByDebuggerWithLoader, Some(_)) => drop(command.args(["--args", "./loader.so", "./program"])),
            _ => drop(command.arg("./program")),
        }
        command.current_dir(&folder).env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.env("LC_ALL", "C").env("SHELL", "/bin/sh").env("GLIBC_TUNABLES", tunables);
        let outcome = capture(&mut command, b"", Duration::from_secs(120))?;
        match outcome.ending {
            Ending::Exit(0 | 1) => Ok(outcome),
            ending => Err(format!("gdb {ending}").into()),
        }
    }

    /// Whether under the tested loader the loader is the executable, and under the system's the program.
    fn beside_a_program(&self) -> bool {
        matches!(self.start, Start::ByDebuggerWithLoader | Start::AttachedToLoader)
    }

    /// What gdb said; without what must differ where the loader is the executable.
    fn normalised(&self, outcome: &Outcome) -> Vec<u8> {
        normalised(outcome, |line| {
            let is_listed = |name| line.starts_with("0x") && line.ends_with(name);
            // A program that the loader was invoked with is among the libraries.
            let program = is_listed("/program") && (self.beside_a_program() || self.start == Start::AttachedToRun);
            // Where a breakpoint of the program's is, is known later there.
            let place = line.starts_with("Breakpoint ") && (line.contains(" at 0x") || line.ends_with(") pending."));
            program || (self.beside_a_program() && (place || is_listed("/loader.so")))
        })
    }

    /// Below `folder` two folders with the same program, whose interpreter is the system's in `system`, and the one under test in `tested`.
    fn build(&self, folder: &Path, loader: &Loader) -> Result<(), Failed> {
        let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/glibc");
        let source = |name: &str| fixtures.join(name).to_string_lossy().into_owned();
        for (name, interpreter) in [("system", Path::new(SYSTEM)), ("tested", &loader.interpreter)] {
            let folder = folder.join(name);
            fs::create_dir_all(&folder)?;
            for (library, source) in [("libcalled.so", source("called.c")), ("libopened.so", source("opened.c"))] {
                compile(&folder, &["-shared", "-fPIC", "-o", library, &source])?;
            }
            let link = folder.join("loader.so");
            symlink(interpreter, &link)?;
            let flag = format!("-Wl,--dynamic-linker={}", link.display());
            // The launcher wants a program of the system's loader.
            let flag = if self.start == Start::AttachedToRun { String::from("-pie") } else { flag };
            let main = source("debugged.c");
            compile(&folder, &["-o", "program", &main, "./libcalled.so", "-Wl,-rpath,$ORIGIN", &flag])?;
        }
        Ok(())
    }
}

/// The program, waiting to be attached to; ended when dropped.
struct Waiting(Child);

impl Waiting {
    fn start(folder: &Path, words: &[&str], tunables: &str) -> Result<Waiting, Failed> {
        let mut command = Command::new(words[0]);
        command.args(&words[1..]).arg("wait").current_dir(folder);
        command.env("GLIBC_TUNABLES", tunables).stdout(Stdio::piped());
        let mut process = Waiting(command.spawn()?);
        let mut line = String::new();
        let stdout = process.0.stdout.take().ok_or("no pipe")?;
        BufReader::new(stdout).read_line(&mut line)?;
        match line.as_str() {
            "waiting\n" => Ok(process),
            _ => Err(format!("the program says {line:?} instead of waiting").into()),
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        // It may have ended by itself, which is what a kill is for anyway.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn compile(folder: &Path, arguments: &[&str]) -> Result<(), Failed> {
    let mut command = Command::new("cc");
    command.args(["-g", "-O1", "-fno-optimize-sibling-calls"]).args(arguments).current_dir(folder);
    let outcome = capture(&mut command, b"", Duration::from_secs(300))?;
    match outcome.ending {
        Ending::Exit(0) => Ok(()),
        _ => Err(String::from_utf8_lossy(&outcome.stderr).into_owned().into()),
    }
}

/// What gdb said, without addresses, ids, folders, and what it says of the loader's own code and debug information.
fn normalised(outcome: &Outcome, drop: impl Fn(&str) -> bool) -> Vec<u8> {
    let mut text = String::new();
    let of_the_loader = |line: &str| {
        ["(*): ", "dl_debug_state", "dl-debug.c"].iter().any(|part| line.contains(part))
            || (line.ends_with("/loader.so") && line.trim().starts_with('/'))
    };
    for line in String::from_utf8_lossy(&outcome.stdout).lines().filter(|line| !of_the_loader(line) && !drop(line)) {
        let mut previous = "";
        // Columns are as wide as their widest entry, which may be an id.
        for word in line.split_whitespace().filter(|word| *word != "(*)") {
            let core = word.trim_end_matches([')', '"', ',', ']', '.', ':']);
            let id = matches!(previous, "(LWP" | "(process" | "process" | "LWP") && core.parse::<u32>().is_ok();
            let shown = match () {
                () if word == SYSTEM || word.ends_with("/ld-seal.so") => "LOADER".to_string(),
                () if core.starts_with("0x") => format!("0xADDRESS{}", &word[core.len()..]),
                () if core.contains("=0x") => format!("{}=0xADDRESS", core.split("=0x").next().unwrap_or_default()),
                () if id => format!("ID{}", &word[core.len()..]),
                // A thread's name is that of the file that was started.
                () if word == "\"loader.so\"" => "\"program\"".to_string(),
                () => word.replace("/tested/", "/FOLDER/").replace("/system/", "/FOLDER/"),
            };
            text += &shown;
            text.push(' ');
            previous = word;
        }
        text.push('\n');
    }
    text.into_bytes()
}
