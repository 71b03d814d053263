//! The programs of `fixtures/sealing`, built, and how they are started.

use crate::exceptions;
use conformance::attack::table::Table;
use conformance::process::{self, Ending, Outcome};
use conformance::{interp, suite, Loader, Way};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// Longer than a start with all its attacks takes on a loaded machine.
const LIMIT: Duration = Duration::from_secs(60);

/// What is to be started.
pub struct Wish<'a> {
    program: &'static str,
    tunables: &'a str,
    arguments: &'a [&'a str],
}

impl<'a> Wish<'a> {
    /// A program of the stage, the value of GLIBC_TUNABLES (nothing: unset), the arguments.
    pub fn new(program: &'static str, tunables: &'a str, arguments: &'a [&'a str]) -> Wish<'a> {
        Wish { program, tunables, arguments }
    }
}

/// The built programs.
pub struct Stage {
    loader: Loader,
    /// As linked.
    tree: PathBuf,
    /// A copy whose programs name the loader under test as their interpreter.
    replaced: PathBuf,
}

impl Stage {
    /// Builds the programs and libraries below `cache`.
    ///
    /// # Errors
    /// What the compiler said.
    pub fn build(loader: Loader, cache: &Path) -> Result<Stage, String> {
        let tree = suite::scratch(cache, "tree")?;
        let replaced = suite::scratch(cache, "replaced")?;
        let sources = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/sealing"));
        let compile = |out: &str, source: &str, flags: &[&str]| compile(&tree, out, &sources.join(source), flags);
        let library = ["-shared", "-fPIC", "-Wl,-z,now"];
        compile("libneeded.so", "needed.c", &[&library[..], &["-Wl,-soname,libneeded.so"]].concat())?;
        compile("libpreloaded.so", "preloaded.c", &library)?;
        compile("libplugged.so", "plugged.c", &[&library[..], &["-Wl,-soname,libplugged.so"]].concat())?;
        compile("libplugin.so", "plugin.c", &[&library[..], &["./libplugged.so", "-Wl,-rpath,$ORIGIN"]].concat())?;
        let spacious = ["./libplugged.so", "-Wl,-rpath,$ORIGIN", "-Wl,--no-as-needed", "-lc"];
        compile("libspace.so", "plugin.c", &[&library[..], &spacious].concat())?;
        compile("libunfinished.so", "plugin.c", &library)?;
        let asking = ["-shared", "-fPIC", "-Wl,-z,lazy", "-Wl,--unresolved-symbols=ignore-all"];
        compile("libasking.so", "asking.c", &asking)?;
        compile("space", "space.c", &["-Wl,-z,now"])?;
        let program = ["-fPIC", "-pthread", "./libneeded.so", "-Wl,-rpath,$ORIGIN"];
        let holes = ["-Wl,-z,max-page-size=0x200000", "-Wl,-z,separate-code", "-Wl,-z,now"];
        for (out, flags) in [
            ("attack", &["-pie", "-Wl,-z,now"][..]),
            ("attack-lazy", &["-pie", "-Wl,-z,lazy"]),
            ("attack-no-pie", &["-no-pie", "-Wl,-z,now"]),
            ("attack-holes", &[&["-pie"], &holes[..]].concat()),
            ("attack-holes-no-pie", &[&["-no-pie"], &holes[..]].concat()),
        ] {
            compile(out, "attack.c", &[&program[..], flags].concat())?;
        }
        crate::late::build(&tree, sources)?;
        crate::audited::build(&tree, sources)?;
        crate::pressure::build(&tree, sources)?;
        compile("keeper", "keeper.c", &["./libneeded.so", "-Wl,-rpath,$ORIGIN", "-Wl,-z,now"])?;
        compile("call", "call/call.c", &["-pthread"])?;
        compile("libcalling.so", "call/caller.c", &["-shared", "-fPIC"])?;
        compile("siege", "siege/siege.c", &["-pthread", "-pie", "-Wl,-z,max-page-size=0x200000,-z,separate-code"])?;
        exceptions::build(&tree.join(exceptions::FOLDER))?;
        // The scratch folder exists already, and a copied tree must not.
        std::fs::remove_dir(&replaced).map_err(|e| format!("{}: {e}", replaced.display()))?;
        interp::replaced_tree(&tree, &replaced, &loader.interpreter)
            .map_err(|e| format!("{}: {e}", replaced.display()))?;
        Ok(Stage { loader, tree, replaced })
    }

    /// Whether there is a launcher to test.
    pub fn has_launcher(&self) -> bool {
        self.loader.launcher.is_some()
    }

    /// The folder of the programs as they were linked.
    pub fn tree(&self) -> &Path {
        &self.tree
    }

    /// The last component of the interpreter's path.
    pub fn interpreter_name(&self) -> &str {
        self.loader.interpreter.file_name().and_then(|name| name.to_str()).unwrap_or_default()
    }

    /// The folder of the programs as `way` starts them, and the words that precede a program's name.
    pub fn way(&self, way: Way) -> (&Path, Vec<OsString>) {
        match (way, &self.loader.launcher) {
            (Way::Interp, _) => (&self.replaced, Vec::new()),
            (Way::Run, Some(launcher)) => (&self.tree, vec![launcher.into(), "run".into(), "--".into()]),
            (Way::Invoke | Way::Run, _) => (&self.tree, vec![self.loader.interpreter.clone().into()]),
        }
    }

    /// What fulfils `wish`, with a preloaded library.
    ///
    /// `ldseal run` is told the level by its option, and so gets no tunables but `glibc.rtld.seal=LEVEL`.
    pub fn command(&self, way: Way, wish: &Wish) -> Command {
        let program = format!("./{}", wish.program);
        let mut tunables = wish.tunables;
        let (mut command, folder) = match (way, &self.loader.launcher) {
            (Way::Interp, _) => (Command::new(self.replaced.join(wish.program)), &self.replaced),
            (Way::Run, Some(launcher)) => {
                let mut command = Command::new(launcher);
                command.args(["run", "--seal", tunables.strip_prefix("glibc.rtld.seal=").unwrap_or(tunables), "--"]);
                tunables = "";
                command.arg(program);
                (command, &self.tree)
            }
            (Way::Invoke | Way::Run, _) => {
                let mut command = Command::new(&self.loader.interpreter);
                command.arg(program);
                (command, &self.tree)
            }
        };
        command.args(wish.arguments).current_dir(folder).env_clear();
        command.env("LC_ALL", "C").env("LD_PRELOAD", "./libpreloaded.so");
        if !tunables.is_empty() {
            command.env("GLIBC_TUNABLES", tunables);
        }
        command
    }

    /// Runs it and keeps what can be observed.
    ///
    /// # Errors
    /// It can't be started.
    pub fn run(&self, way: Way, wish: &Wish) -> Result<Outcome, String> {
        process::capture(&mut self.command(way, wish), b"", LIMIT).map_err(|e| format!("{}: {e}", wish.program))
    }

    /// Runs it and reads the table that it prints.
    ///
    /// # Errors
    /// It did not end well, or did not print a table.
    pub fn table(&self, way: Way, wish: &Wish) -> Result<Table, String> {
        read(&self.run(way, wish)?)
    }
}

/// The table that a good end has printed.
///
/// # Errors
/// The end was not good, or there is no table.
pub fn read(outcome: &Outcome) -> Result<Table, String> {
    let (stdout, stderr) = (String::from_utf8_lossy(&outcome.stdout), String::from_utf8_lossy(&outcome.stderr));
    if outcome.ending != Ending::Exit(0) || !stderr.is_empty() {
        return Err(format!("ended with {}, stderr: {stderr}\nstdout: {stdout}", outcome.ending));
    }
    let table = Table::parse(&stdout)?;
    match table.regions.len() > 10 && table.objects().len() > 3 {
        true => Ok(table),
        false => Err(format!("the table is incomplete: {stdout}")),
    }
}

/// Compiles a C source in a folder.
///
/// # Errors
/// What the compiler said.
pub fn compile(folder: &Path, out: &str, source: &Path, flags: &[&str]) -> Result<(), String> {
    let mut command = Command::new("cc");
    command.args(["-O1", "-w", "-D_GNU_SOURCE", "-o", out]).arg(source).args(flags);
    let output = command.current_dir(folder).stdin(Stdio::null()).output();
    match output {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr))),
        Err(error) => Err(format!("{command:?}: {error}")),
    }
}
