//! `case.toml`: how a case is built and run, and which rule it pins.

use crate::hostile::Freedom;
use crate::written;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// One folder of `fixtures/`.
#[derive(Debug, Clone)]
pub struct Case {
    /// `area/behaviour`, from the folder's path.
    pub name: String,
    /// The folder with the sources.
    pub folder: PathBuf,
    /// The parsed manifest.
    pub manifest: Manifest,
}

/// The content of a `case.toml`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// One sentence: the rule of the dynamic linker that is pinned, and where it is written down.
    pub rule: String,
    /// What the case needs of this machine, see [`crate::requirement`].
    #[serde(default)]
    pub needs: Vec<String>,
    /// Time limit of one start, in seconds.
    #[serde(default = "default_timeout")]
    pub timeout: u64,
    /// What is built, in this order.
    #[serde(rename = "object")]
    pub objects: Vec<Object>,
    /// What is run. None: `./main` without arguments.
    #[serde(default, rename = "run")]
    pub runs: Vec<Run>,
}

fn default_timeout() -> u64 {
    60
}

/// One file of the build tree.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Object {
    /// Path in the build tree. `*.o` is only compiled, `*.so*` is linked as a shared library, anything else as an executable.
    pub out: String,
    /// Builds this many of it, numbered from 1: `{n}` and `{previous}` stand for the number and the one before it
    /// in `out`, `flags`, `libs` and `soname`.
    #[serde(default = "once")]
    pub count: u32,
    /// Sources, relative to the case's folder: C, C++, assembler, Rust, or one `*.elf.toml` (see [`crate::written`]).
    #[serde(default)]
    pub sources: Vec<String>,
    /// `cc`, `c++` or `rustc`; by default from the extension of the first source.
    pub compiler: Option<String>,
    /// Further flags; `{case}` is the folder of the case, `{tree}` the build tree, which is the working directory.
    #[serde(default)]
    pub flags: Vec<String>,
    /// Files of the build tree to link with, after the sources.
    #[serde(default)]
    pub libs: Vec<String>,
    /// Dynamic relocations that the file must have for the case to show anything, named as in the psABI without
    /// `R_X86_64_`, or `RELR`: whether a linker emits them depends on its version and its defaults.
    #[serde(default)]
    pub relocations: Vec<String>,
    /// Values that entries of the dynamic section get after linking, by their tags as in the gABI: what no flag of a linker gives.
    #[serde(default)]
    pub dynamic: BTreeMap<String, u64>,
    /// What else no linker of this machine does, done to the file after linking: `no-sections`, `empty-segments`, `prelinked`
    /// or `old-bind-now` (see [`crate::edit`]), or `align=N` for the alignment of its segments.
    #[serde(default)]
    pub edits: Vec<String>,
    /// DT_SONAME.
    pub soname: Option<String>,
    /// DT_RUNPATH.
    pub runpath: Option<String>,
    /// DT_RPATH.
    pub rpath: Option<String>,
    /// Instead of building: a symbolic link with this target.
    pub symlink: Option<String>,
    /// Instead of building: a copy of this file of the case's folder.
    pub copy: Option<String>,
    /// Instead of building: nothing, the file `out` is removed from the tree (a library that is missing at run time).
    #[serde(default)]
    pub remove: bool,
}

fn once() -> u32 {
    1
}

impl Object {
    /// Its source, if that is the description of a file to be written as it is.
    pub fn description(&self) -> Option<&str> {
        self.sources.first().map(String::as_str).filter(|source| written::is_description(source))
    }

    /// The objects that `count` asks for.
    pub fn each(&self) -> Vec<Object> {
        let numbered = |n: u32| {
            let text = |t: &String| t.replace("{n}", &n.to_string()).replace("{previous}", &(n - 1).to_string());
            let texts = |list: &[String]| list.iter().map(text).collect();
            Object {
                out: text(&self.out),
                flags: texts(&self.flags),
                libs: texts(&self.libs),
                soname: self.soname.as_ref().map(text),
                ..self.clone()
            }
        };
        (1..=self.count).map(numbered).collect()
    }
}

/// One command line of a case.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Run {
    /// Shown when it differs.
    pub name: String,
    /// The program, relative to the build tree.
    pub program: String,
    /// Options of the loader, see ld.so(8): only for runs whose one way is `invoke`.
    pub options: Vec<String>,
    /// Its arguments; `{tree}` as in flags.
    pub args: Vec<String>,
    /// Environment beyond the harness's minimal one; `{tree}` as in flags.
    pub env: BTreeMap<String, String>,
    /// A command that starts the loader or the program, for instance `["setarch", "-R"]`.
    pub wrapper: Vec<String>,
    /// Standard input.
    pub stdin: String,
    /// The exit status that the system's loader must give: a fixture that fails under both loaders shows nothing.
    pub status: i32,
    /// The signal that must end it, in place of an exit status.
    pub signal: Option<i32>,
    /// Text that must be found in stdout (compared with the system's loader's in any case).
    pub stdout: Option<String>,
    /// Text that must be found in stderr.
    pub stderr: Option<String>,
    /// What does not count: `stdout`, `stderr`, `bindings` (of another run with `LD_DEBUG=bindings`), `pages` and `descriptors` (of
    /// another run that is traced, at its end).
    pub ignore: Vec<String>,
    /// What is made equal before comparing: `addresses`, `loader` (its path), `pids` (numbers in parentheses), `order` (of lines).
    pub normalise: Vec<String>,
    /// Ways into the loader; all by default.
    pub ways: Vec<String>,
    /// Seal levels; all by default.
    pub levels: Vec<u8>,
    /// A file of the case makes no sense. Where the reference crashes on it, by a signal or an assertion, the loader under test must
    /// refuse: with exit status 127, nothing on stdout, and one line on stderr that names a file made of a description. What the reference
    /// does otherwise is compared as ever.
    pub malformed: bool,
    /// What the loader under test may do all the same, of a malformed file: by default `none`.
    pub freedom: Freedom,
    /// Number of starts under the loader under test, each compared.
    pub repeat: u32,
}

impl Default for Run {
    fn default() -> Self {
        Run {
            name: String::new(),
            program: "./main".into(),
            options: Vec::new(),
            args: Vec::new(),
            env: BTreeMap::new(),
            wrapper: Vec::new(),
            stdin: String::new(),
            status: 0,
            signal: None,
            stdout: None,
            stderr: None,
            ignore: Vec::new(),
            normalise: Vec::new(),
            ways: vec!["invoke".into(), "run".into(), "interp".into()],
            levels: vec![0, 1, 2],
            malformed: false,
            freedom: Freedom::None,
            repeat: 1,
        }
    }
}

impl Case {
    /// Reads the manifest of `folder`.
    ///
    /// # Errors
    /// A message with the file's name: unreadable, malformed, or unknown keys or words.
    pub fn read(root: &Path, folder: &Path) -> Result<Case, String> {
        let path = folder.join("case.toml");
        let text = fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))?;
        let mut manifest: Manifest = toml::from_str(&text).map_err(|e| format!("{}: {e}", path.display()))?;
        if manifest.runs.is_empty() {
            manifest.runs.push(Run::default());
        }
        check_words(&manifest).map_err(|e| format!("{}: {e}", path.display()))?;
        let name = folder.strip_prefix(root).unwrap_or(folder).to_string_lossy().into_owned();
        Ok(Case { name, folder: folder.to_path_buf(), manifest })
    }
}

fn check_words(manifest: &Manifest) -> Result<(), String> {
    let known = |words: &[String], allowed: &[&str]| match words.iter().find(|w| !allowed.contains(&w.as_str())) {
        Some(word) => Err(format!("{word:?} is none of {allowed:?}")),
        None => Ok(()),
    };
    if manifest.rule.trim().is_empty() {
        return Err("the rule is empty".into());
    }
    for run in &manifest.runs {
        known(&run.ignore, &["stdout", "stderr", "bindings", "pages", "descriptors"])?;
        known(&run.normalise, &["addresses", "loader", "pids", "order"])?;
        known(&run.ways, &["invoke", "run", "interp"])?;
        if run.levels.iter().any(|&l| l > 2) || run.levels.is_empty() || run.repeat == 0 || run.ways.is_empty() {
            return Err("a run without ways, levels or repetitions".into());
        }
        if run.freedom != Freedom::None && !run.malformed {
            return Err("a freedom is for runs with malformed = true".into());
        }
        if !run.options.is_empty() && run.ways != ["invoke"] {
            return Err("options of the loader need ways = [\"invoke\"]".into());
        }
    }
    Ok(())
}

/// All cases below `root`, by name.
///
/// # Errors
/// The first unreadable folder or malformed manifest.
pub fn discover(root: &Path) -> Result<Vec<Case>, String> {
    let mut cases = Vec::new();
    let mut pending = vec![root.to_path_buf()];
    while let Some(folder) = pending.pop() {
        if folder.join("case.toml").exists() {
            cases.push(Case::read(root, &folder)?);
            continue;
        }
        let entries = fs::read_dir(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
        pending.extend(entries.flatten().map(|e| e.path()).filter(|p| p.is_dir()));
    }
    cases.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(cases)
}
