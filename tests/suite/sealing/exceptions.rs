//! What people need to stay open, and what asks to be sealed: programs that say what may still be done to them, each in a folder of its
//! own with its library. Every exception is seen to make a difference: the same lines come out otherwise without it.

use crate::stage::{compile, Stage};
use crate::Check;
use conformance::edit::{point, PT_GNU_MUTABLE};
use conformance::process::{self, Ending, Outcome};
use conformance::Way;
use object::elf::{ProgramType, PT_GNU_PROPERTY, PT_NOTE};
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// The folder of these programs in the stage's tree.
pub const FOLDER: &str = "exceptions";

const SOURCES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/sealing/exceptions");
const LDSEAL: &str = env!("CARGO_BIN_EXE_ldseal");

/// A variant of the program and its library.
struct Variant {
    folder: &'static str,
    program_asks: bool,
    library_asks: bool,
    library_mutable: bool,
    library_marked: bool,
    program_marked: bool,
}

const PLAIN: Variant = Variant {
    folder: "plain",
    program_asks: false,
    library_asks: false,
    library_mutable: false,
    library_marked: false,
    program_marked: false,
};

const VARIANTS: [Variant; 6] = [
    PLAIN,
    Variant { folder: "mutable", library_mutable: true, ..PLAIN },
    Variant { folder: "library-marked", library_marked: true, ..PLAIN },
    Variant { folder: "program-marked", program_marked: true, ..PLAIN },
    Variant { folder: "program-asks", program_asks: true, ..PLAIN },
    Variant { folder: "both-ask", program_asks: true, library_asks: true, ..PLAIN },
];

/// Builds all variants.
///
/// # Errors
/// What the compiler said.
pub fn build(folder: &Path) -> Result<(), String> {
    for variant in &VARIANTS {
        let folder = folder.join(variant.folder);
        fs::create_dir_all(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
        let asks = format!("{SOURCES}/asks.s");
        let with = |asked: bool, flags: &[&'static str]| {
            let mut flags: Vec<String> = flags.iter().map(|f| f.to_string()).collect();
            flags.extend(asked.then(|| asks.clone()));
            flags
        };
        let compile = |out: &str, source: &str, flags: Vec<String>| {
            let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
            compile(&folder, out, &Path::new(SOURCES).join(source), &flags)
        };
        let library = with(variant.library_asks, &["-shared", "-fPIC", "-Wl,-soname,libguarded.so"]);
        compile("libguarded.so", "guarded.c", library)?;
        compile("libtextrel.so", "textrel.c", with(false, &["-shared", "-fPIC", "-Wl,-z,notext"]))?;
        compile("libopened.so", "guarded.c", with(false, &["-shared", "-fPIC"]))?;
        compile("refuse", "refuse.c", Vec::new())?;
        compile("probe", "probe.c", with(variant.program_asks, &["./libguarded.so", "-Wl,-rpath,$ORIGIN"]))?;
        let needs = ["-Wl,--no-as-needed", "./libguarded.so", "./libtextrel.so", "-Wl,-rpath,$ORIGIN"];
        compile("needs-textrel", "probe.c", with(false, &needs))?;
        if variant.library_mutable {
            edit(&folder.join("libguarded.so"), &[PT_NOTE], PT_GNU_MUTABLE, ".gnu.mutable")?;
        }
        if variant.program_asks {
            edit(&folder.join("probe"), &[PT_GNU_PROPERTY, PT_NOTE], PT_GNU_PROPERTY, ".note.asks")?;
        }
        for (marked, file) in [(variant.library_marked, "libguarded.so"), (variant.program_marked, "probe")] {
            let status =
                marked.then(|| Command::new(LDSEAL).args(["mark", "--no-seal"]).arg(folder.join(file)).status());
            match status.transpose().map_err(|e| format!("{LDSEAL}: {e}"))? {
                Some(status) if !status.success() => return Err(format!("ldseal mark {file}: {status}")),
                _ => {}
            }
        }
    }
    Ok(())
}

fn edit(file: &Path, from: &[ProgramType], to: ProgramType, section: &str) -> Result<(), String> {
    let failed = |e: std::io::Error| format!("{}: {e}", file.display());
    let mut bytes = fs::read(file).map_err(failed)?;
    point(&mut bytes, from, to, section)?;
    fs::write(file, bytes).map_err(failed)
}

fn run(
    stage: &Stage,
    way: Way,
    variant: &str,
    program: &str,
    tunables: &str,
    arguments: &[&str],
) -> Result<Outcome, String> {
    let (tree, mut words) = stage.way(way);
    let folder = tree.join(FOLDER).join(variant);
    words.push(format!("./{program}").into());
    let mut command = Command::new(if way == Way::Interp { folder.join(program).into() } else { words.remove(0) });
    if way != Way::Interp {
        command.args(words);
    }
    command.args(arguments).current_dir(&folder).env_clear().env("GLIBC_TUNABLES", tunables);
    process::capture(&mut command, b"", Duration::from_secs(60)).map_err(|e| format!("{program}: {e}"))
}

/// Starts a variant and wants its lines to be `ok` for what is named, and EPERM for the others of [`SEALED`].
fn open(stage: &Stage, way: Way, variant: &str, tunables: &str, open: &[&str]) -> Result<(), String> {
    let outcome = run(stage, way, variant, "probe", tunables, &[])?;
    let stdout = String::from_utf8_lossy(&outcome.stdout);
    let wrong: Vec<&str> = SEALED
        .iter()
        .copied()
        .filter(|what| {
            let expected = if open.contains(what) { "ok" } else { "EPERM" };
            !stdout.lines().any(|line| line == format!("{what}: {expected}"))
        })
        .collect();
    match wrong.is_empty() && outcome.ending == Ending::Exit(0) {
        true => Ok(()),
        false => Err(format!(
            "{variant} with {tunables}: wrong for {wrong:?}\nended with {}, {stdout}{}",
            outcome.ending,
            String::from_utf8_lossy(&outcome.stderr)
        )),
    }
}

/// What a start at level 2 seals.
const SEALED: [&str; 7] =
    ["program text", "program rodata", "library text", "library data", "library mutable", "freeze", "vdso"];
/// What level 1 leaves open.
const DATA: [&str; 3] = ["library data", "library mutable", "freeze"];
/// All of the library.
const LIBRARY: [&str; 4] = ["library text", "library data", "library mutable", "freeze"];

/// The checks.
pub const CHECKS: &[(&str, Check)] = &[
    ("without exceptions level 1 leaves data open", |s, w| open(s, w, "plain", "glibc.rtld.seal=1", &DATA)),
    ("without exceptions level 2 leaves nothing open", |s, w| open(s, w, "plain", "glibc.rtld.seal=2", &[])),
    ("PT_GNU_MUTABLE stays open at level 2", |s, w| {
        open(s, w, "mutable", "glibc.rtld.seal=2", &["library mutable", "freeze"])
    }),
    ("PT_GNU_MUTABLE stays open with ldseal.data=1", |s, w| {
        open(s, w, "mutable", "ldseal.data=1", &["library mutable", "freeze"])
    }),
    ("a library that opts out is open at level 1", |s, w| open(s, w, "library-marked", "glibc.rtld.seal=1", &LIBRARY)),
    ("a library that opts out is sealed at level 2", |s, w| open(s, w, "library-marked", "glibc.rtld.seal=2", &[])),
    ("a program that opts out is open at level 1", |s, w| {
        open(s, w, "program-marked", "ldseal.data=1", &["program text", "program rodata"])
    }),
    ("a program that opts out is sealed at level 2", |s, w| open(s, w, "program-marked", "glibc.rtld.seal=2", &[])),
    ("ldseal.exclude opens at level 2", |s, w| {
        open(s, w, "plain", "glibc.rtld.seal=2:ldseal.exclude=libguarded*", &LIBRARY)
    }),
    ("ldseal.policy=marked without a mark seals nothing", |s, w| {
        open(s, w, "plain", "glibc.rtld.seal=2:ldseal.policy=marked", &SEALED)
    }),
    ("ldseal.policy=marked seals a marked program alone", |s, w| {
        open(s, w, "program-asks", "glibc.rtld.seal=2:ldseal.policy=marked", &LIBRARY)
    }),
    ("ldseal.policy=marked seals what is marked", |s, w| {
        open(s, w, "both-ask", "glibc.rtld.seal=2:ldseal.policy=marked", &[])
    }),
    ("ldseal.policy=all takes no notice of marks", |s, w| {
        open(s, w, "program-asks", "glibc.rtld.seal=2:ldseal.policy=all", &[])
    }),
    ("text relocations are sealed at level 1", |s, w| {
        opened(s, w, "glibc.rtld.seal=1", "./libtextrel.so: opened\nopened text: EPERM\n")
    }),
    ("text relocations are not opened at level 2", |s, w| {
        let words = "text relocations are not allowed where sealing is enforced";
        opened(s, w, "glibc.rtld.seal=2", &format!("./libtextrel.so: ./libtextrel.so: {words}\nprogram text: EPERM\n"))
    }),
    ("text relocations are opened at level 2 if excluded", |s, w| {
        let tunables = "glibc.rtld.seal=2:ldseal.exclude=libtextrel.so";
        opened(s, w, tunables, "./libtextrel.so: opened\nopened text: ok\n")
    }),
    ("text relocations end a start at level 2", needs_textrel),
    ("ldseal.anonymous=relro leaves DONTFORK", |s, w| fork(s, w, "glibc.rtld.seal=2", "ok")),
    ("ldseal.anonymous=all refuses DONTFORK at level 1", |s, w| fork(s, w, "ldseal.anonymous=all", "EPERM")),
    ("ldseal.anonymous=all refuses DONTFORK at level 2", |s, w| {
        fork(s, w, "glibc.rtld.seal=2:ldseal.anonymous=all", "EPERM")
    }),
    ("ldseal.anonymous=all does nothing at level 0", |s, w| fork(s, w, "glibc.rtld.seal=0:ldseal.anonymous=all", "ok")),
    ("ldseal.anonymous=all where the system refuses it", write_execute_refused),
];

fn opened(stage: &Stage, way: Way, tunables: &str, lines: &str) -> Result<(), String> {
    let outcome = run(stage, way, "plain", "probe", tunables, &["./libtextrel.so"])?;
    let stdout = String::from_utf8_lossy(&outcome.stdout);
    match outcome.ending == Ending::Exit(0) && stdout.starts_with(lines) {
        true => Ok(()),
        false => Err(format!("ended with {}, {stdout}", outcome.ending)),
    }
}

fn needs_textrel(stage: &Stage, way: Way) -> Result<(), String> {
    let outcome = run(stage, way, "plain", "needs-textrel", "glibc.rtld.seal=1", &[])?;
    if outcome.ending != Ending::Exit(0) {
        return Err(format!("level 1 ended with {}: {}", outcome.ending, String::from_utf8_lossy(&outcome.stderr)));
    }
    let outcome = run(stage, way, "plain", "needs-textrel", "glibc.rtld.seal=2", &[])?;
    let stderr = String::from_utf8_lossy(&outcome.stderr);
    let words = "error while loading shared libraries: ./libtextrel.so: text relocations are not allowed where sealing is enforced";
    match outcome.ending == Ending::Exit(127) && stderr.contains(words) && outcome.stdout.is_empty() {
        true => Ok(()),
        false => Err(format!("ended with {}: {stderr}", outcome.ending)),
    }
}

/// MADV_DONTFORK on text, which the kernel refuses on sealed anonymous memory and not on that of a file.
fn fork(stage: &Stage, way: Way, tunables: &str, expected: &str) -> Result<(), String> {
    let outcome = run(stage, way, "plain", "probe", tunables, &["./libopened.so"])?;
    let stdout = String::from_utf8_lossy(&outcome.stdout);
    let line = |what: &str| stdout.lines().any(|line| line == format!("{what} DONTFORK: {expected}"));
    match outcome.ending == Ending::Exit(0) && line("library") && line("program") {
        true => Ok(()),
        false => Err(format!("ended with {}, {stdout}", outcome.ending)),
    }
}

/// Where no memory may become executable that was not from the beginning, level 2 ends with one line, and level 1 maps files.
fn write_execute_refused(stage: &Stage, way: Way) -> Result<(), String> {
    let (tree, mut words) = stage.way(way);
    let folder = tree.join(FOLDER).join("plain");
    words.push(folder.join("probe").into());
    let start = |tunables: &str| {
        let mut command = Command::new(folder.join("refuse"));
        command.args(&words).current_dir(&folder).env_clear().env("GLIBC_TUNABLES", tunables);
        process::capture(&mut command, b"", Duration::from_secs(60)).map_err(|e| e.to_string())
    };
    let tolerant = start("glibc.rtld.seal=1:ldseal.anonymous=all")?;
    let stdout = String::from_utf8_lossy(&tolerant.stdout);
    if tolerant.ending != Ending::Exit(0) || !stdout.contains("library text: EPERM\n") {
        return Err(format!(
            "level 1 ended with {}: {stdout}{}",
            tolerant.ending,
            String::from_utf8_lossy(&tolerant.stderr)
        ));
    }
    let strict = start("glibc.rtld.seal=2:ldseal.anonymous=all")?;
    let stderr = String::from_utf8_lossy(&strict.stderr);
    let one_line = stderr.lines().count() == 1 && stderr.contains("text in anonymous memory is refused");
    match strict.ending == Ending::Exit(127) && one_line && strict.stdout.is_empty() {
        true => Ok(()),
        false => Err(format!("level 2 ended with {}: {stderr}", strict.ending)),
    }
}
