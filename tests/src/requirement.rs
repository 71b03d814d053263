//! What this machine lacks for a case.

use crate::manifest::Case;
use crate::written;
use std::env;
use std::ffi::OsStr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

/// The first requirement of `case` that is not met here: a word of its `needs`, or a compiler.
pub fn missing(case: &Case) -> Option<String> {
    let sources = case.manifest.objects.iter().flat_map(|o| &o.sources);
    let compilers = sources.filter(|s| !written::is_description(s)).map(|s| {
        match Path::new(s).extension().and_then(OsStr::to_str) {
            Some("rs") => "rustc",
            Some("cc" | "cpp" | "cxx") => "c++",
            _ => "cc",
        }
    });
    compilers.chain(case.manifest.needs.iter().map(String::as_str)).find_map(unmet)
}

/// Why `need` is not met here, or `None` if it is. A need is one of
/// `root`, `ordinary user`, `user namespace`, `ld FLAGS` (the linker knows them), `/a/file`, or the name of a command.
pub fn unmet(need: &str) -> Option<String> {
    let (met, what) = match need {
        "root" => (rustix::process::geteuid().is_root(), "needs root".into()),
        "ordinary user" => (!rustix::process::geteuid().is_root(), "is about ordinary users".into()),
        "user namespace" => (succeeds(&["unshare", "-r", "-m", "true"]), "user namespaces are not available".into()),
        _ if need.starts_with("ld ") => (linker_knows(&need[3..]), format!("the linker does not know {}", &need[3..])),
        _ if need.starts_with('/') => (Path::new(need).exists(), format!("{need} is missing")),
        _ => (find_command(need).is_some(), format!("the command {need} is missing")),
    };
    (!met).then_some(what)
}

/// The file that the shell would run for `name`.
pub fn find_command(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    let executable = |p: &PathBuf| p.metadata().is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0);
    env::split_paths(&path).map(|folder| folder.join(name)).find(executable)
}

/// The options of unshare(1) that give a namespace here in which something can be mounted: as root, or in a user namespace.
pub fn mount_namespace() -> Option<&'static [&'static str]> {
    static OPTIONS: OnceLock<Option<&[&str]>> = OnceLock::new();
    *OPTIONS.get_or_init(|| {
        let possible =
            |options: &[&str]| succeeds(&[&["unshare"], options, &["mount", "--bind", "/bin/sh", "/bin/sh"]].concat());
        [&["-m"] as &[&str], &["-r", "-m"]].into_iter().find(|options| possible(options))
    })
}

fn succeeds(words: &[&str]) -> bool {
    let output = Command::new(words[0]).args(&words[1..]).stdin(Stdio::null()).output();
    output.is_ok_and(|o| o.status.success())
}

/// Whether the linker that `cc` uses accepts `flags` without a word: ld ignores unknown `-z` keywords with a warning.
fn linker_knows(flags: &str) -> bool {
    let wanted = format!("-Wl,{}", flags.split_whitespace().collect::<Vec<_>>().join(","));
    let mut command = Command::new("cc");
    command.args(["-shared", "-nostdlib", "-x", "c", "/dev/null", "-o", "/dev/null", &wanted]);
    command.stdin(Stdio::null()).output().is_ok_and(|o| o.status.success() && o.stderr.is_empty())
}
