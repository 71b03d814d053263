//! Each single system call of a dlopen refused in turn: the dlopen succeeds all the same, or it fails and leaves nothing behind, and the
//! next one succeeds. And which system calls a dlopen makes at all: none that the system's loader does not make as well, but mseal.

use conformance::attack::trace::{Stop, Tracee, MSEAL};
use conformance::loader::SYSTEM;
use conformance::process::{Ending, Outcome};
use conformance::{build, suite, Loader};
use libtest_mimic::Trial;
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::Arc;
use std::time::Duration;

/// The system call that does not exist and marks the start and the end of what is watched (`fixtures/faults/open.c`).
const MARK: u64 = 1_000_001;

const ENOMEM: (i32, &str) = (12, "ENOMEM");
const EACCES: (i32, &str) = (13, "EACCES");
const EMFILE: (i32, &str) = (24, "EMFILE");

/// Which of [`OPENINGS`] come with more errors than one: what they are refused otherwise is the same code.
const SIMPLE: usize = 13;

/// What is opened with less and less of the address space missing.
const PRESSED: [Opening; 8] = [
    ("closure", "./libroot.so", NOW, "pressure"),
    ("closure for ever", "./libroot.so", NOW | NODELETE, "pressure"),
    ("wide", "./libwide.so", NOW, "pressure"),
    ("many versions", "./libversions.so", NOW, "pressure"),
    ("many descriptors", "./libdescriptors.so", NOW, "pressure"),
    ("many unique symbols", "./libuniques.so", NOW, "pressure"),
    ("many resolvers", "./libresolvers.so", NOW, "pressure"),
    ("long search paths", "./libpaths.so", NOW, "pressure"),
];

/// How long a program may take.
const LIMIT: Duration = Duration::from_secs(60);

/// What is refused at each level.
const ERRORS: [&[(i32, &str)]; 3] = [&[ENOMEM], &[ENOMEM, EACCES, EMFILE], &[ENOMEM]];

/// Bits of the mode (`dlfcn.h`).
const LAZY: u32 = 1;
const NOW: u32 = 2;
const DEEPBIND: u32 = 8;
const GLOBAL: u32 = 0x100;
const NODELETE: u32 = 0x1000;

/// A dlopen: its name, the file, the mode, and how (`fixtures/faults/open.c`; `audited`: with an audit module).
type Opening = (&'static str, &'static str, u32, &'static str);

const OPENINGS: [Opening; 26] = [
    ("plain", "./libplain.so", NOW, ""),
    ("searched", "libplain.so", LAZY, ""),
    ("cached", "libm.so.6", NOW, ""),
    ("closure", "./libroot.so", LAZY | GLOBAL, ""),
    ("deep", "./libroot.so", NOW | DEEPBIND, ""),
    ("for ever", "./libroot.so", NOW | NODELETE, ""),
    ("static TLS", "./libstatic.so", NOW, "thread"),
    ("dynamic TLS", "./libdynamic.so", NOW, "thread"),
    ("the TLS of another", "./libuser.so", NOW, "thread"),
    ("executable stack", "./libstack.so", NOW, "thread"),
    ("large pages", "./libaligned.so", NOW, ""),
    ("text relocations", "./libtext.so", NOW, ""),
    ("pages of slots", "./libslots.so", LAZY, ""),
    ("wide", "./libwide.so", NOW, ""),
    ("wide for ever", "./libwide.so", LAZY | NODELETE, ""),
    ("many versions", "./libversions.so", NOW, ""),
    ("many descriptors", "./libdescriptors.so", NOW, ""),
    ("many unique symbols", "./libuniques.so", NOW, ""),
    ("many resolvers", "./libresolvers.so", NOW, ""),
    ("long search paths", "./libpaths.so", NOW, ""),
    ("a new namespace", "./libroot.so", NOW, "new"),
    ("a new namespace for ever", "./libroot.so", NOW | NODELETE, "new"),
    ("a namespace in use", "./libroot.so", NOW, "existing"),
    ("watched", "./libroot.so", LAZY, "audited"),
    ("watched for ever", "./libroot.so", NOW | NODELETE, "audited"),
    ("watched and wide", "./libwide.so", LAZY, "audited"),
];

struct Bench {
    interpreter: PathBuf,
    cache: PathBuf,
    tree: PathBuf,
}

fn main() -> ExitCode {
    suite::prepare();
    match trials() {
        Ok(trials) => suite::run(trials),
        Err(reason) => {
            eprintln!("dlopen_faults: {reason}");
            ExitCode::FAILURE
        }
    }
}

fn trials() -> Result<Vec<Trial>, String> {
    let loader = Loader::under_test(option_env!("LDSEAL_INTERPRETER"), env!("CARGO_BIN_EXE_ldseal"))?;
    let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).join("dlopen_faults");
    let tree = suite::scratch(&cache, "tree")?;
    build_tree(&tree)?;
    let bench = Arc::new(Bench { interpreter: loader.interpreter, cache, tree });
    let mut trials = Vec::new();
    for (level, errors) in ERRORS.iter().enumerate() {
        for &error in *errors {
            // Level 2 opens no object with text relocations.
            let count = if error == ENOMEM { OPENINGS.len() } else { SIMPLE };
            for opening in OPENINGS.into_iter().take(count).filter(|o| level < 2 || o.0 != "text relocations") {
                let bench = Arc::clone(&bench);
                let name = format!("{} level {level} {}", opening.0, error.1);
                trials.push(Trial::test(name.clone(), move || Ok(bench.check(&name, level, opening, error.0)?)));
            }
        }
    }
    for level in 0..=2 {
        for opening in PRESSED {
            let bench = Arc::clone(&bench);
            let name = format!("{} level {level} pressed", opening.0);
            trials.push(Trial::test(name, move || Ok(bench.press(level, opening)?)));
        }
        let bench = Arc::clone(&bench);
        let name = format!("system calls of the system's loader only, level {level}");
        trials.push(Trial::test(name, move || Ok(no_others(&bench, level)?)));
    }
    Ok(trials)
}

/// The loader and everything that a dlopen of each of the libraries asks of the kernel, by number.
fn repertoire(bench: &Bench, loader: &Path, level: usize) -> Result<BTreeSet<u64>, String> {
    let folder = suite::scratch(&bench.cache, &format!("repertoire-{level}-{}", loader == Path::new(SYSTEM)))?;
    let mut numbers = BTreeSet::new();
    // Level 2 refuses text relocations.
    for opening in OPENINGS.into_iter().take(SIMPLE).filter(|o| level < 2 || o.0 != "text relocations") {
        let mut note = |number: u64| {
            numbers.insert(number);
        };
        bench.trace(loader, level, opening, &folder, &mut note).map_err(|e| format!("{}: {e}", opening.0))?;
    }
    Ok(numbers)
}

/// A seccomp filter that was made for the system's loader goes by the number of a call.
fn no_others(bench: &Bench, level: usize) -> Result<(), String> {
    let theirs = repertoire(bench, Path::new(SYSTEM), level)?;
    let ours = repertoire(bench, &bench.interpreter, level)?;
    // The system's loader takes memory from malloc, which calls mmap too, and reads program headers that are far from the start of a
    // file by pread64: these are in its repertoire whether these libraries make it use them or not.
    let elsewhere = [libc::SYS_mmap, libc::SYS_pread64].map(|number| number as u64);
    let others: Vec<u64> =
        ours.iter().copied().filter(|n| *n != MSEAL && !theirs.contains(n) && !elsewhere.contains(n)).collect();
    match others.is_empty() && (level == 0 || ours.contains(&MSEAL)) && ours.len() > 4 {
        true => Ok(()),
        false => Err(format!("system calls {others:?} of {ours:?}; the system's loader makes {theirs:?}")),
    }
}

fn build_tree(tree: &Path) -> Result<(), String> {
    let sources = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/faults"));
    let library = |out: &str, name: &str, flags: &[&str]| {
        let soname = format!("-Wl,-soname,{out}");
        let name = format!("-DNAME={name}");
        let fixed = ["-Wl,-z,relro", "-Wl,--enable-new-dtags,-rpath,$ORIGIN", &soname, &name];
        build::compile(tree, out, &sources.join("library.c"), &[&fixed, flags].concat())
    };
    library("libplain.so", "value", &[])?;
    library("libleaf.so", "leaf", &["-DTLS_MODEL=\"global-dynamic\""])?;
    library("libleft.so", "left", &["-DNEEDS=leaf", "./libleaf.so"])?;
    library("libright.so", "right", &["-DNEEDS=leaf", "./libleaf.so", "-lm", "-Wl,--no-as-needed"])?;
    let both = ["-DNEEDS=left", "-Wl,--no-as-needed", "./libleft.so", "./libright.so"];
    library("libroot.so", "value", &both)?;
    library("libstatic.so", "value", &["-DTLS_MODEL=\"initial-exec\""])?;
    library("libdynamic.so", "value", &["-DTLS_MODEL=\"global-dynamic\""])?;
    library("libowner.so", "owner", &["-DOWN_TLS"])?;
    library("libuser.so", "value", &["-DNEEDS=owner", "-DOTHERS_TLS", "./libowner.so"])?;
    library("libstack.so", "value", &["-Wl,-z,execstack"])?;
    library("libaligned.so", "value", &["-Wl,-z,max-page-size=0x200000"])?;
    library("libtext.so", "value", &["-fno-pic", "-mcmodel=large", "-Wl,-z,notext"])?;
    let module = ["-shared", "-fPIC"];
    build::compile(tree, "auditor.so", &sources.join("auditor.c"), &module)?;
    build_large(tree, sources)?;
    build::compile(tree, "open", &sources.join("open.c"), &["-pthread"])
}

/// Libraries of which the loader keeps more than it has left in its first piece of memory.
fn build_large(tree: &Path, sources: &Path) -> Result<(), String> {
    const WIDE: usize = 12;
    let library = |out: &str, flags: &[&str]| {
        let fixed = ["-shared", "-fPIC", "-Wl,-z,relro,-rpath,$ORIGIN"];
        build::compile(tree, out, &sources.join("large.c"), &[&fixed, flags].concat())
    };
    let script = (0..9000).map(|n| format!("VERSION_{n} {{ }};\n")).collect::<String>();
    fs::write(tree.join("versions.map"), script).map_err(|e| e.to_string())?;
    library("libversions.so", &["-Wl,--version-script=versions.map"])?;
    let mut needed = ["-Wl,--no-as-needed", "./libversions.so"].map(str::to_string).to_vec();
    for number in 0..WIDE {
        let out = format!("libwide{number}.so");
        library(&out, &[&format!("-Wl,-soname,{out}"), "-DWIDE", "-lm", "-Wl,--no-as-needed"])?;
        needed.push(format!("./{out}"));
    }
    library("libwide.so", &needed.iter().map(String::as_str).collect::<Vec<_>>())?;
    // Each element is several times as long once $ORIGIN is replaced.
    let element = |number| format!("$ORIGIN/{}{number}", "long".repeat(15));
    let path = |start: u32| (start..start + 500).map(element).collect::<Vec<_>>().join(":");
    let paths = (0..4).map(|part| format!("-Wl,-rpath,{}", path(part * 500)));
    let paths: Vec<String> = paths.chain(["-Wl,--no-as-needed", "./libplain.so"].map(str::to_string)).collect();
    library("libpaths.so", &paths.iter().map(String::as_str).collect::<Vec<_>>())?;
    library("libdescriptors.so", &["-DDESCRIPTORS", "-mtls-dialect=gnu2"])?;
    library("libuniques.so", &["-DUNIQUES"])?;
    library("libresolvers.so", &["-DRESOLVERS"])?;
    library("libslots.so", &["-DSLOTS", "-O1", "-Wl,-z,lazy"])
}

/// What was refused, and what came of it.
struct Refused {
    number: u64,
    outcome: Outcome,
}

impl Bench {
    /// Calls `note` with each system call of a dlopen and of all that follows it: dlsym, dlclose, the end.
    fn trace(
        &self,
        loader: &Path,
        level: usize,
        opening: Opening,
        folder: &Path,
        note: &mut dyn FnMut(u64),
    ) -> std::io::Result<()> {
        let mut command = self.command(loader, level, opening);
        command.stdout(File::create(folder.join("stdout"))?).stderr(Stdio::null());
        let mut tracee = Tracee::start(&mut command)?;
        let mut marks = 0;
        loop {
            match tracee.resume()? {
                Stop::Enter { number: MARK, .. } => marks += 1,
                Stop::Enter { number, .. } if marks > 0 => note(number),
                Stop::Enter { .. } | Stop::Leave(_) => {}
                Stop::Ended(Ending::Exit(0)) => return Ok(()),
                Stop::Ended(ending) => return Err(std::io::Error::other(ending.to_string())),
            }
        }
    }

    fn command(&self, loader: &Path, level: usize, (_, file, mode, how): Opening) -> Command {
        let mut command = Command::new(loader);
        if how == "audited" {
            command.args(["--audit", "./auditor.so"]);
        }
        command.args(["./open", file, &mode.to_string(), how]);
        command.current_dir(&self.tree).env_clear().env("LD_LIBRARY_PATH", ".:/nowhere").env("LC_ALL", "C");
        command.env("GLIBC_TUNABLES", format!("glibc.rtld.seal={level}")).stdin(Stdio::null());
        command
    }

    /// Opens a library with less address space than it takes.
    fn press(&self, level: usize, opening: Opening) -> Result<(), String> {
        let mut command = self.command(&self.interpreter, level, opening);
        let outcome = conformance::process::capture(&mut command, b"", LIMIT).map_err(|e| e.to_string())?;
        let stdout = String::from_utf8_lossy(&outcome.stdout);
        let complains = stdout.lines().any(|line| line.starts_with("left: ") || line.starts_with("gone: "));
        match works(&outcome).is_some() && stdout.contains("pressed: 1\n") && !complains {
            true => Ok(()),
            false => Err(told(&outcome)),
        }
    }

    fn check(&self, name: &str, level: usize, opening: Opening, errno: i32) -> Result<(), String> {
        let folder = suite::scratch(&self.cache, &name.replace(' ', "-"))?;
        let failed = |e: std::io::Error| format!("{}: {e}", folder.display());
        let (_, whole) = self.open(level, opening, errno, None, &folder).map_err(failed)?;
        let works = works(&whole).ok_or_else(|| format!("without a refusal: {}", told(&whole)))?;
        let mut report = Vec::new();
        let mut which = 0;
        while let (Some(number), outcome) = self.open(level, opening, errno, Some(which), &folder).map_err(failed)? {
            let refused = Refused { number, outcome };
            if !refused.is_lawful(&works, level) {
                report.push(format!("call {which}, number {number}: {}", told(&refused.outcome)));
            }
            which += 1;
        }
        match (which > 5, report.is_empty()) {
            (true, true) => Ok(()),
            (true, false) => Err(format!("expected: {works}\n{}", report.join("\n"))),
            (false, _) => Err(format!("only {which} calls")),
        }
    }

    /// Starts the program and refuses call number `which` of its first dlopen. Gives the call's number, `None` if there are not so many.
    fn open(
        &self,
        level: usize,
        opening: Opening,
        errno: i32,
        which: Option<usize>,
        folder: &Path,
    ) -> std::io::Result<(Option<u64>, Outcome)> {
        let [stdout, stderr] = ["stdout", "stderr"].map(|name| folder.join(name));
        let mut command = self.command(&self.interpreter, level, opening);
        command.stdout(File::create(&stdout)?).stderr(File::create(&stderr)?);
        let mut tracee = Tracee::start(&mut command)?;
        let (mut marks, mut calls, mut refused) = (0, 0, None);
        let ending = loop {
            match tracee.resume()? {
                Stop::Enter { number: MARK, .. } => marks += 1,
                Stop::Enter { number, .. } if marks == 1 => {
                    if Some(calls) == which {
                        refused = Some(number);
                        tracee.refuse(errno)?;
                    }
                    calls += 1;
                }
                Stop::Enter { .. } | Stop::Leave(_) => {}
                Stop::Ended(ending) => break ending,
            }
        };
        Ok((refused, Outcome { ending, stdout: fs::read(stdout)?, stderr: fs::read(stderr)? }))
    }
}

impl Refused {
    fn is_lawful(&self, works: &str, level: usize) -> bool {
        if level == 2 && self.number == MSEAL {
            let line = String::from_utf8_lossy(&self.outcome.stderr);
            let fatal = "ld-seal.so: Fatal error: sealing is enforced and kernel has failed for 0x";
            return self.outcome.ending == Ending::Exit(127)
                && self.outcome.stdout.is_empty()
                && line.starts_with(fatal)
                && line.lines().count() == 1;
        }
        let stdout = String::from_utf8_lossy(&self.outcome.stdout);
        let nothing_left = !stdout.lines().any(|l| l.starts_with("left: ") || l.starts_with("gone: "));
        nothing_left && self::works(&self.outcome).as_deref() == Some(works)
    }
}

/// What a library said of itself that a dlopen has brought in, if all ended well.
fn works(outcome: &Outcome) -> Option<String> {
    let stdout = String::from_utf8_lossy(&outcome.stdout);
    let proof: Vec<&str> = stdout.lines().filter(|l| l.starts_with("works: ") || l.starts_with("closed: ")).collect();
    (outcome.ending == Ending::Exit(0) && outcome.stderr.is_empty() && proof.len() == 2).then(|| proof.join(", "))
}

fn told(outcome: &Outcome) -> String {
    let [stdout, stderr] =
        [&outcome.stdout, &outcome.stderr].map(|s| String::from_utf8_lossy(s).replace('\n', "\n    "));
    format!("{}\n    {stdout}{stderr}", outcome.ending)
}
