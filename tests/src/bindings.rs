//! Which definition each reference was bound to, as both loaders tell with `LD_DEBUG=bindings` (ld.so(8)).

use crate::loader::{Level, Loader, Start, Way, SYSTEM};
use crate::process::Ending;
use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::io;
use std::path::Path;

/// One binding.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Binding {
    /// The object that refers.
    pub object: String,
    /// The symbol, and the version it is wanted in.
    pub symbol: String,
    /// The object that defines it.
    pub provider: String,
}

/// What a line says, if it is about a binding and whole:
/// `PID:`, a tab, then ``binding file A [0] to B [0]: normal symbol `s' [V]``.
fn parse(line: &str) -> Option<Binding> {
    let (_, line) = line.split_once("binding file ")?;
    let (files, symbol) = line.split_once("]: ")?;
    let (object, provider) = files.split_once("] to ")?;
    let name = |file: &str| file.rsplit_once(" [").map(|(name, _)| name.to_string());
    let (name_of_symbol, version) = symbol.split_once("symbol `")?.1.split_once('\'')?;
    let symbol = format!("{name_of_symbol}{version}");
    let whole = (version.is_empty() || (version.starts_with(" [") && version.ends_with(']'))) && !symbol.contains('\t');
    whole.then_some(Binding { object: name(object)?, symbol, provider: name(provider)? })
}

/// What glibc's loader looks up for its own use, in the program's name.
const OWN_LOOKUPS: [&str; 4] = ["calloc", "free", "malloc", "realloc"];

/// How often it is tried to get messages of several threads that are not mixed up.
const TRIES: u32 = 5;

/// What was written, or nothing if lines of several threads are mixed up.
fn read(folder: &Path) -> io::Result<Option<BTreeSet<Binding>>> {
    let mut bindings = BTreeSet::new();
    for entry in fs::read_dir(folder)? {
        let text = fs::read(entry?.path())?;
        for line in String::from_utf8_lossy(&text).lines().filter(|line| line.contains("binding ")) {
            match parse(line) {
                Some(binding) => bindings.insert(binding),
                None => return Ok(None),
            };
        }
    }
    Ok(Some(bindings))
}

/// The variables of a run with messages.
pub const VARIABLES: [(&str, &str); 2] = [("LD_DEBUG", "bindings"), ("LD_BIND_NOW", "1")];

/// Runs a program once more, every function bound at start-up, and returns its bindings: of all processes that it
/// consists of, each binding once; nothing if it ends before its time, for want of a function that it never calls,
/// and if lines of several threads are mixed up again and again. Those of the loader itself are left out, and those of what it defines: they are its own business.
///
/// # Errors
/// The program can't be started, or what was written can't be read.
pub fn observe(
    start: &Start,
    loader: &Loader,
    way: Way,
    level: Level,
    scratch: &Path,
) -> io::Result<Option<BTreeSet<Binding>>> {
    match fs::remove_dir_all(scratch) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => fs::create_dir_all(scratch)?,
    }
    let mut start = start.clone();
    let output = scratch.join("bindings").to_string_lossy().into_owned();
    start.env.extend(VARIABLES.map(|(name, value)| (name.to_string(), value.to_string())));
    start.env.insert("LD_DEBUG_OUTPUT".into(), output);
    let mut tries = 0..TRIES;
    let mut bindings = loop {
        match fs::remove_dir_all(scratch) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => fs::create_dir_all(scratch)?,
        }
        if tries.next().is_none() || start.under(loader, way, level)?.ending != Ending::Exit(0) {
            return Ok(None);
        }
        if let Some(bindings) = read(scratch)? {
            break bindings;
        }
    };
    let interpreter = loader.interpreter.to_string_lossy();
    // The C library looks the kernel's functions up through its loader.
    let own = |name: &str| name == interpreter || name == SYSTEM || name.starts_with("linux-vdso.");
    let program = start.program.to_string_lossy();
    let on_its_behalf =
        |b: &Binding| b.object == program && OWN_LOOKUPS.contains(&b.symbol.split(' ').next().unwrap_or(""));
    bindings.retain(|b| !own(&b.object) && !own(&b.provider) && !on_its_behalf(b));
    Ok(Some(bindings))
}

impl fmt::Display for Binding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} -> {}", self.object, self.symbol, self.provider)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read() {
        let line = "     17:\tbinding file ./main [0] to /lib/libc.so.6 [0]: normal symbol `puts' [GLIBC_2.2.5]";
        let expected =
            Binding { object: "./main".into(), symbol: "puts [GLIBC_2.2.5]".into(), provider: "/lib/libc.so.6".into() };
        assert_eq!(parse(line), Some(expected));
        assert_eq!(parse("     17:\tcalling init: ./main"), None);
        assert_eq!(parse("binding file a"), None);
        let mixed = "17:\tbinding file a [0] to b [0]: normal symbol `f      17:\tbinding file c [0] to d [0]: normal symbol `g'";
        assert_eq!(parse(mixed), None);
    }
}
