//! `tunables.md` and the program know the same tunables, variables, categories and options.
//!
//! The manual pages are those that `tools/manpages` makes of that page.
//!
//! The program's side is the table of glibc's tunables that it is compiled with, the text that it prints, and, for what neither shows, the
//! byte strings in the source that reads them.

use runtime::glibc::tables::tunables_v2_36::TUNABLES;
use runtime::glibc::tunables::{Kind, Tunable};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

type Names = BTreeSet<String>;

/// The rows of the table below a heading of `tunables.md`: the cells without blanks and backquotes around them.
fn rows(heading: &str) -> Vec<Vec<String>> {
    let page = source("tunables.md");
    let below = page.split_once(&format!("\n{heading}\n")).unwrap_or_else(|| panic!("no heading {heading:?}")).1;
    let section = below.lines().take_while(|line| !line.starts_with('#'));
    let cells = |line: &str| -> Vec<String> {
        let line = line.trim_matches('|');
        line.split(" | ").map(|cell| cell.trim_matches([' ', '|', '`']).to_owned()).collect()
    };
    let rows: Vec<_> = section.filter(|line| line.starts_with('|')).skip(2).map(cells).collect();
    assert!(!rows.is_empty(), "no table below {heading:?}");
    rows
}

/// The first column of such a table.
fn documented(heading: &str) -> Names {
    let rows = rows(heading);
    let names: Names = rows.iter().map(|row| row[0].clone()).collect();
    assert_eq!(names.len(), rows.len(), "a name comes twice below {heading:?}");
    names
}

fn source(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// A part of a source file.
fn part(path: &str, from: &str, to: &str) -> String {
    let text = source(path);
    let start = text.find(from).unwrap_or_else(|| panic!("{path} has no {from:?}"));
    let length = text[start..].find(to).unwrap_or_else(|| panic!("{path} has no {to:?}"));
    text[start..start + length].to_owned()
}

/// What is between each `prefix` and the quotation mark after it.
fn quoted(text: &str, prefix: &str) -> Names {
    text.split(prefix).skip(1).filter_map(|rest| rest.split('"').next()).map(str::to_owned).collect()
}

/// The patterns of a `match`: byte strings before `=>` or ` if`.
fn patterns(text: &str) -> Names {
    text.lines()
        .filter_map(|line| line.trim().strip_prefix("b\"")?.split_once('"'))
        .filter(|(_, rest)| rest.starts_with(" =>") || rest.starts_with(" if"))
        .map(|(name, _)| name.to_owned())
        .collect()
}

fn same(what: &str, page: &Names, program: &Names) {
    let missing: Vec<_> = program.difference(page).collect();
    let unknown: Vec<_> = page.difference(program).collect();
    assert!(!program.is_empty(), "{what}: the program has none, which can't be");
    assert!(
        missing.is_empty() && unknown.is_empty(),
        "{what}: tunables.md lacks {missing:?}, and the program does not know {unknown:?}"
    );
}

#[test]
fn tunables_of_sealing() {
    let known = patterns(&part("loader/src/seal/tunables.rs", "fn set(", "\n    }\n"));
    let known = known.into_iter().filter(|name| name.contains('.')).collect();
    same("tunables of sealing", &documented("## Tunables of sealing"), &known);
}

#[test]
fn tunables_of_glibc() {
    let shown = |tunable: &Tunable| {
        let number = |n: u64| match tunable.kind {
            Kind::Text => String::new(),
            Kind::Int32 => (n as i64).to_string(),
            Kind::Uint64 | Kind::Size => n.to_string(),
        };
        let (kind, default) = match tunable.kind {
            Kind::Int32 => ("int 32", number(tunable.default)),
            Kind::Uint64 => ("unsigned 64", number(tunable.default)),
            Kind::Size => ("size", number(tunable.default)),
            Kind::Text => ("text", "unset".to_owned()),
        };
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let alias = tunable.alias.map(text).unwrap_or_default();
        [text(tunable.name), kind.to_owned(), default, number(tunable.min), number(tunable.max), alias].join(" | ")
    };
    let page = rows("## glibc's own tunables").iter().map(|row| row.join(" | ")).collect();
    same("tunables of glibc", &page, &TUNABLES.iter().map(shown).collect());
}

#[test]
fn variables_of_the_interpreter() {
    let file = "runtime/src/environment.rs";
    let read = patterns(&part(file, "pub fn read(", "\n    }\n"));
    same("variables", &documented("## Variables that `ld-seal.so` reads"), &read);
    let removed = quoted(&part(file, "const UNSAFE:", "impl Environment"), "b\"");
    same("variables that secure mode removes", &documented("### Variables that secure mode removes"), &removed);
}

#[test]
fn categories_of_messages() {
    let known = runtime::logger::CATEGORIES.iter().map(|(name, _)| (*name).to_owned()).collect();
    same("categories", &documented("### Categories of `LD_DEBUG`"), &known);
}

#[test]
fn options_of_the_interpreter() {
    let interpreter = PathBuf::from(env!("LDSEAL_INTERPRETER"));
    let known = patterns(&part("runtime/src/options.rs", "fn option(", "#[cfg(test)]"));
    let known: Names = known.into_iter().filter(|name| name.starts_with("--")).collect();
    same("options of ld-seal.so", &documented("## Options of `ld-seal.so`"), &known);
    let told = options_in(&help(&interpreter, &[]));
    let untold: Vec<_> = known.difference(&told).collect();
    assert!(untold.is_empty(), "options that ld-seal.so --help does not tell: {untold:?}");
    assert!(told.is_subset(&known), "options that only ld-seal.so --help knows");
}

#[test]
fn options_of_the_launcher() {
    let launcher = Path::new(env!("CARGO_BIN_EXE_ldseal"));
    let general = help(launcher, &[]);
    let commands: Vec<&str> = general
        .lines()
        .skip_while(|line| *line != "Commands:")
        .skip(1)
        .map_while(|line| line.strip_prefix("  ")?.split(' ').next())
        .collect();
    assert!(commands.contains(&"run"), "{general}");
    let mut known: Names = ["--help", "--version"].map(|option| format!(" {option}")).into();
    for command in commands {
        let text = help(launcher, &[command]);
        known.extend(options_in(&text).into_iter().map(|option| format!("{command} {option}")));
    }
    let word = |cell: &str| cell.split(' ').next().unwrap_or_default().to_owned();
    let page = rows("## Options of `ldseal`").iter().map(|row| format!("{} {}", row[0], word(&row[1]))).collect();
    same("options of ldseal", &page, &known);
    let mut parsed = quoted(&source("launcher/cli.rs"), "Arg::Long(\"");
    parsed.extend(quoted(&source("launcher/conform/arguments.rs"), "Arg::Long(\""));
    let told = known.iter().filter_map(|name| name.split_once("--")).map(|(_, option)| option.to_owned()).collect();
    same("options that the command line takes", &told, &parsed);
}

fn help(program: &Path, command: &[&str]) -> String {
    let output = Command::new(program).args(command).arg("--help").output().expect("it can be started");
    assert!(output.status.success(), "{} --help: {}", program.display(), output.status);
    String::from_utf8(output.stdout).expect("text")
}

/// The options that a help text lists at the start of a line.
fn options_in(help: &str) -> Names {
    let options = help.lines().filter_map(|line| line.strip_prefix("  ")).filter(|line| line.starts_with("--"));
    options.filter_map(|line| line.split(' ').next()).map(str::to_owned).collect()
}

#[test]
fn variables_of_the_launcher() {
    // The logger's own variable is in no source of ours.
    let mut known: Names = ["RUST_LOG".to_owned()].into();
    for file in sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("launcher")) {
        let text = fs::read_to_string(&file).expect("a source file is readable");
        known.extend(quoted(&text, "env::var_os(\""));
        known.extend(quoted(&text, "absolute(\""));
        known.extend(quoted(&text, " variable(\""));
    }
    same("variables of ldseal", &documented("### Variables that `ldseal` reads"), &known);
}

/// The source files of the launcher, without its build script.
fn sources(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("a folder of sources").map(|entry| entry.expect("an entry").path());
    let (folders, files): (Vec<PathBuf>, Vec<PathBuf>) = entries.partition(|path| path.is_dir());
    let files =
        files.into_iter().filter(|path| path.extension().is_some_and(|e| e == "rs") && !path.ends_with("build.rs"));
    files.chain(folders.iter().flat_map(|folder| sources(folder))).collect()
}

#[test]
fn the_manual_pages_are_up_to_date() {
    for page in manpages::pages(Path::new(env!("CARGO_MANIFEST_DIR"))).expect("the pages can be made") {
        let path = format!("man/{}", page.file);
        assert!(source(&path) == page.text, "{path} is not what `cargo run --package manpages` writes");
    }
}

#[test]
fn the_manual_pages_are_well_formed() {
    let checks = [("mandoc", vec!["-T", "lint", "-W", "warning"]), ("groff", vec!["-man", "-Tutf8", "-ww", "-z"])];
    for (tool, arguments) in checks {
        if let Some(reason) = conformance::requirement::unmet(tool) {
            println!("SKIPPED: {reason}");
            continue;
        }
        for page in ["ld-seal.so.8", "ldseal.1"] {
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("man").join(page);
            let output = Command::new(tool).args(&arguments).arg(&path).output().expect("the tool can be started");
            let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success() && said.is_empty(), "{tool} {page}: {said}");
        }
    }
}
