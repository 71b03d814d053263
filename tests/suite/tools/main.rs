//! Tools that look into a process find in a program under `ld-seal.so` what they find under the system's loader: valgrind, the
//! sanitisers of gcc, perf, strace, ltrace, criu, and stacks of other processes. Debuggers have a suite of their own.
//!
//! A program of `fixtures/tools/` is linked twice, with either interpreter, and what a tool says of both must be the same.

mod checkpoint;

use conformance::compare::stream_difference;
use conformance::loader::SYSTEM;
use conformance::process::{capture, Ending, Outcome};
use conformance::{requirement, suite, Level, Loader};
use libtest_mimic::{Completion, Failed, Trial};
use object::{Object, ObjectSymbol, SymbolKind};
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::Duration;

/// A command line with `{program}` or `{pid}` in it, run in the program's folder.
struct Tool {
    name: &'static str,
    /// What it is called by: the first word must be there, and of a shell's line the last.
    words: &'static [&'static str],
    /// The program's source and how it is compiled.
    source: &'static str,
    flags: &'static [&'static str],
    levels: &'static [Level],
    /// Without these texts the comparison shows nothing.
    expected: &'static [&'static str],
    /// Which lines of what it says count.
    counts: fn(&str) -> bool,
    /// What the tool looks at.
    subject: Subject,
}

#[derive(Clone, Copy, PartialEq)]
enum Subject {
    /// `{program}` is started by the tool.
    Started,
    /// `{pid}` runs already.
    Running,
}

/// Valgrind's kernel knows no mseal: what is enforced fails there.
const WITHOUT_ENFORCEMENT: &[Level] = &[Level(0), Level(1)];

const fn tool(name: &'static str, words: &'static [&'static str], source: &'static str) -> Tool {
    Tool {
        name,
        words,
        source,
        flags: &[],
        levels: &Level::ALL,
        expected: &[],
        counts: |_| true,
        subject: Subject::Started,
    }
}

const fn sanitiser(
    name: &'static str,
    words: &'static [&'static str],
    flags: &'static [&'static str],
    expected: &'static [&'static str],
) -> Tool {
    Tool { flags, expected, ..tool(name, words, "sanitised.cc") }
}

const ADDRESS: &[&str] = &["-fsanitize=address"];
const THREAD: &[&str] = &["-fsanitize=thread"];
const UNDEFINED: &[&str] = &["-fsanitize=undefined"];

static TOOLS: &[Tool] = &[
    Tool {
        levels: WITHOUT_ENFORCEMENT,
        expected: &[
            "definitely lost: 110 bytes in 2 blocks",
            "lose (leaking.c:",
            "in_opened (opened.c:",
            "Invalid read of size 1",
            "bytes after a block of size 4 alloc'd",
        ],
        // glibc's loader takes memory from the program's malloc for what dlopen loads.
        counts: |line| {
            let of_dlopen = ["total heap usage", "in use at exit", "still reachable"].iter().any(|w| line.contains(w));
            !line.starts_with("--") && !of_dlopen
        },
        ..tool("valgrind memcheck", &["valgrind", "--leak-check=full", "{program}", "./libopened.so"], "leaking.c")
    },
    Tool {
        levels: WITHOUT_ENFORCEMENT,
        expected: &["Possible data race during", "count (racing.c:"],
        counts: |line| !line.starts_with("--"),
        ..tool("valgrind helgrind", &["valgrind", "--tool=helgrind", "{program}"], "racing.c")
    },
    Tool {
        levels: WITHOUT_ENFORCEMENT,
        expected: &["count (racing.c:"],
        // How long the other thread lives on is chance, and so is how often the race is seen, and what was suppressed.
        counts: |line| line.contains("at ") && line.contains("count (racing.c:10"),
        ..tool("valgrind drd", &["valgrind", "--tool=drd", "--first-race-only=yes", "{program}"], "racing.c")
    },
    sanitiser("AddressSanitizer, nothing to say", &["{program}"], ADDRESS, &["thrown 3"]),
    sanitiser(
        "AddressSanitizer, overflow",
        &["{program}", "overflow"],
        ADDRESS,
        &["heap-buffer-overflow", "sanitised.cc:"],
    ),
    sanitiser("AddressSanitizer, leak", &["{program}", "leak"], ADDRESS, &["99 byte(s) leaked", "sanitised.cc:"]),
    Tool {
        flags: ADDRESS,
        expected: &["touched 1"],
        ..tool("AddressSanitizer, thread-local of an opened library", &["{program}", "./libopened.so"], "touching.c")
    },
    sanitiser("ThreadSanitizer, nothing to say", &["{program}"], THREAD, &["thrown 3"]),
    Tool {
        // Whether the other thread still runs when the race is told of is chance.
        counts: |line| !line.contains("created by main thread at"),
        ..sanitiser("ThreadSanitizer, race", &["{program}", "race"], THREAD, &["data race", "sanitised.cc:"])
    },
    sanitiser("UndefinedBehaviorSanitizer", &["{program}", "undefined"], UNDEFINED, &["signed integer overflow"]),
    Tool {
        expected: &["in_program", "in_library", "in_opened"],
        // A sample: what takes most of the time is in every one.
        counts: |line| ["in_program", "in_library", "in_opened"].iter().any(|name| line.contains(name)),
        ..tool("perf", &["sh", "-c", PERF, "perf"], "busy.c")
    },
    Tool {
        expected: &["write(1, ", "exited with 0"],
        // Before main the loaders differ in what they ask.
        counts: |line| line.contains("write(1, ") || line.contains("exited"),
        ..tool("strace", &["strace", "-f", "{program}"], "racing.c")
    },
    Tool {
        flags: &["-rdynamic"],
        // It has no name for mseal, shows it whatever it was asked for, and finds no stack in the loader without its unwind tables.
        counts: |line| !line.starts_with("syscall_0x1ce(") && !line.contains("unexpected_backtracing_error"),
        expected: &["write(1, ", "(main+0x", "libc.so.6(fflush+0x"],
        ..tool("strace with stacks", &["strace", "-k", "-e", "trace=write", "{program}"], "leaking.c")
    },
    Tool {
        expected: &["malloc(77)", "strlen(\"leaked\")", "dlopen(", "exited (status 0)"],
        ..tool("ltrace", &["ltrace", "{program}", "./libopened.so"], "leaking.c")
    },
    Tool {
        subject: Subject::Running,
        expected: &["pause", "in_program", "in_thread", "main"],
        ..tool("stacks of a process", &["eu-stack", "-p", "{pid}"], "waiting.c")
    },
    Tool {
        subject: Subject::Running,
        flags: &["-Wl,--build-id=none"],
        expected: &["libc.so.6", "program"],
        ..tool(
            "modules of a process",
            &["sh", "-c", "eu-unstrip -n -p {pid} | grep -v vdso", "eu-unstrip"],
            "waiting.c",
        )
    },
];

/// Two hertz more than a multiple of the timer's, and only what runs in user space.
const PERF: &str = "perf record -q -e cpu-clock:u -F 1999 -o data ./program ./libopened.so 2>&1 &&
    perf report -i data --stdio --no-children --sort dso,sym 2>/dev/null | sed -n 's/^ *[0-9.]*%  *//p' | tr -s ' ' | sort";

fn main() -> ExitCode {
    suite::prepare();
    match Loader::under_test(option_env!("LDSEAL_INTERPRETER"), env!("CARGO_BIN_EXE_ldseal")) {
        Ok(loader) => suite::run(trials(&loader)),
        Err(reason) => {
            eprintln!("tools: {reason}");
            ExitCode::FAILURE
        }
    }
}

fn trials(loader: &Loader) -> Vec<Trial> {
    let trial = |tool: &'static Tool, level: Level| {
        let loader = loader.clone();
        Trial::ignorable_test(format!("{} {level}", tool.name), move || tool.check(&loader, level))
    };
    let compared = TOOLS.iter().flat_map(|tool| tool.levels.iter().map(move |&level| trial(tool, level)));
    let interpreter = loader.interpreter.clone();
    let symbols = Trial::test("symbols that valgrind looks for", move || Ok(has_symbols(&interpreter)?));
    compared.chain(checkpoint::trials(loader)).chain([symbols]).collect()
}

/// valgrind's tools put functions of their own in the place of these, which they find in the symbol table of a file with the loader's soname.
fn has_symbols(interpreter: &Path) -> Result<(), String> {
    let bytes = fs::read(interpreter).map_err(|e| e.to_string())?;
    let file = object::File::parse(&*bytes).map_err(|e| e.to_string())?;
    let has = |name: &str| file.symbols().any(|symbol| symbol.kind() == SymbolKind::Text && symbol.name() == Ok(name));
    match ["strlen", "index"].into_iter().find(|name| !has(name)) {
        None => Ok(()),
        Some(name) => Err(format!("{name} is not in .symtab")),
    }
}

impl Tool {
    fn check(&self, loader: &Loader, level: Level) -> Result<Completion, Failed> {
        let needed = match self.words {
            ["sh", .., real] => real,
            [word, ..] => word,
            [] => return Err("no words".into()),
        };
        let needed = if needed.starts_with('{') { "c++" } else { needed };
        if let Some(reason) = ["cc", "c++", needed].into_iter().find_map(requirement::unmet) {
            return Ok(Completion::ignored_with(reason));
        }
        let name = format!("{}-{}", self.name.replace([' ', ','], "-"), level.0);
        let folder = suite::scratch(&Path::new(env!("CARGO_TARGET_TMPDIR")).join("tools"), &name)?;
        self.build(&folder.join("system"), Path::new(SYSTEM))?;
        self.build(&folder.join("tested"), &loader.interpreter)?;
        let expected = self.run(&folder.join("system"), level)?;
        let text = String::from_utf8_lossy(&shown(self, &expected)).into_owned();
        if let Some(reason) = text.lines().find(|line| line.contains("ermission") || line.contains("not permitted")) {
            return Ok(Completion::ignored_with(format!("{needed}: {reason}")));
        }
        if let Some(missing) = self.expected.iter().find(|part| !text.contains(**part)) {
            return Err(format!("{needed} does not say {missing:?} under the system's loader:\n{text}").into());
        }
        let got = self.run(&folder.join("tested"), level)?;
        if got.ending != expected.ending {
            let said = String::from_utf8_lossy(&got.stderr).into_owned();
            return Err(format!("{} instead of {}\n{said}", got.ending, expected.ending).into());
        }
        match stream_difference(&format!("what {needed} says"), text.as_bytes(), &shown(self, &got)) {
            Some(difference) => Err(difference.into()),
            None => Ok(Completion::Completed),
        }
    }

    fn run(&self, folder: &Path, level: Level) -> Result<Outcome, Failed> {
        let tunables = format!("glibc.rtld.seal={}", level.0);
        let process = match self.subject {
            Subject::Started => None,
            Subject::Running => Some(Waiting::start(folder, &tunables)?),
        };
        let pid = process.as_ref().map(|p| p.0.id().to_string()).unwrap_or_default();
        let words = self.words.iter().map(|w| w.replace("{program}", "./program").replace("{pid}", &pid));
        let words: Vec<String> = words.collect();
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).current_dir(folder).env_clear().env("LC_ALL", "C").env("GLIBC_TUNABLES", tunables);
        command.env("PATH", std::env::var_os("PATH").unwrap_or_default()).env("HOME", folder);
        Ok(capture(&mut command, b"", Duration::from_secs(120))?)
    }

    /// The program in `folder` with a copy of `loader` in its PT_INTERP, and the libraries it uses. The copy lies in a folder called
    /// `lib`, where the suppressions of valgrind's tools look for loaders.
    fn build(&self, folder: &Path, loader: &Path) -> Result<(), Failed> {
        fs::create_dir_all(folder.join("lib"))?;
        let copy = folder.join("lib").join(loader.file_name().ok_or("a loader without a name")?);
        fs::copy(fs::canonicalize(loader)?, &copy)?;
        let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/tools");
        let source = |name: &str| fixtures.join(name).to_string_lossy().into_owned();
        let interpreter = format!("-Wl,--dynamic-linker={}", copy.display());
        let compiler = if self.source.ends_with(".cc") { "c++" } else { "cc" };
        let mut program = vec!["-o", "program", &interpreter, "-pthread"];
        program.extend(self.flags);
        let main = source(self.source);
        program.push(&main);
        match self.source {
            "busy.c" => {
                let spent = source("spent.c");
                compile("cc", folder, &["-shared", "-fPIC", "-o", "libused.so", "-DNAME=in_library", &spent])?;
                compile("cc", folder, &["-shared", "-fPIC", "-o", "libopened.so", "-DNAME=in_opened", &spent])?;
                program.extend(["./libused.so", "-Wl,-rpath,$ORIGIN"]);
            }
            "leaking.c" | "touching.c" => {
                compile("cc", folder, &["-shared", "-fPIC", "-o", "libopened.so", &source("opened.c")])?
            }
            _ => {}
        }
        compile(compiler, folder, &program)
    }
}

fn compile(compiler: &str, folder: &Path, arguments: &[&str]) -> Result<(), Failed> {
    let mut command = Command::new(compiler);
    command.args(["-g", "-O0"]).args(arguments).current_dir(folder);
    let outcome = capture(&mut command, b"", Duration::from_secs(300))?;
    match outcome.ending {
        Ending::Exit(0) => Ok(()),
        _ => Err(String::from_utf8_lossy(&outcome.stderr).into_owned().into()),
    }
}

/// A program that has said that it waits; ended when dropped.
struct Waiting(Child);

impl Waiting {
    fn start(folder: &Path, tunables: &str) -> Result<Waiting, Failed> {
        let mut command = Command::new(PathBuf::from("./program"));
        command.current_dir(folder).env("GLIBC_TUNABLES", tunables).stdout(Stdio::piped());
        let mut process = Waiting(command.spawn()?);
        let mut line = String::new();
        let stdout = process.0.stdout.take().ok_or("no pipe")?;
        BufReader::new(stdout).read_line(&mut line)?;
        if line != "waiting\n" {
            return Err(format!("the program says {line:?} instead of waiting").into());
        }
        while !process.pauses()? {
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(process)
    }

    /// Whether every thread is in pause(2), system call 34; ended threads count as well, for the tool to find them.
    fn pauses(&self) -> std::io::Result<bool> {
        let mut threads = fs::read_dir(format!("/proc/{}/task", self.0.id()))?.flatten();
        Ok(threads.all(|thread| match fs::read_to_string(thread.path().join("syscall")) {
            Ok(call) => call.starts_with("34 "),
            Err(_) => true,
        }))
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        // It may have ended by itself, which is what a kill is for anyway.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What a tool and its program said, line by line as far as it counts, without what differs between any two runs: addresses, ids,
/// build ids, the folder, and what a tool says of the loader's own code.
fn shown(tool: &Tool, outcome: &Outcome) -> Vec<u8> {
    let mut result = String::new();
    let both = [&outcome.stdout, &outcome.stderr].map(|stream| String::from_utf8_lossy(stream).into_owned());
    let of_the_loader = |line: &str| ["ld-seal.so", "ld-linux-x86-64.so.2"].iter().any(|name| line.contains(name));
    for line in both.iter().flat_map(|text| text.lines()).map(without_ids) {
        let line = line.split(" in loss record ").next().unwrap_or_default();
        if (tool.counts)(line) && !of_the_loader(line) {
            result += line.replace("/tested/", "/FOLDER/").replace("/system/", "/FOLDER/").trim_end();
            result.push('\n');
        }
    }
    result.into_bytes()
}

/// A line without the numbers of valgrind's and the sanitisers' prefixes, addresses, and ids of processes and threads.
fn without_ids(line: &str) -> String {
    let line = match line.strip_prefix("==").and_then(|rest| rest.split_once("==")) {
        Some((number, rest)) if number.parse::<u32>().is_ok() => rest,
        _ => line,
    };
    let mut result = String::new();
    let mut rest = line;
    while let Some(at) = rest.find("0x") {
        let (before, number) = rest.split_at(at);
        let digits = number[2..].chars().take_while(char::is_ascii_hexdigit).count();
        result += before;
        result += if digits >= 6 { "0xADDRESS" } else { &number[..2 + digits] };
        rest = &number[2 + digits..];
    }
    result += rest;
    for word in ["pid=", "tid=", "PID ", "TID ", "[pid ", "(BuildId: "] {
        if let Some(at) = result.find(word) {
            let from = at + word.len();
            let length = result[from..].trim_start().chars().take_while(char::is_ascii_alphanumeric).count();
            let blanks = result[from..].len() - result[from..].trim_start().len();
            result.replace_range(from..from + blanks + length, "ID");
        }
    }
    result
}
