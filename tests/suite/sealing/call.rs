//! `mseal` as a function for programs, which this C library lacks, at every level.

use crate::stage::Stage;
use crate::Check;
use conformance::process::{self, Ending};
use conformance::Way;
use std::process::Command;
use std::time::Duration;

/// The checks.
pub const CHECKS: &[(&str, Check)] = &[
    ("mseal for programs at level 0", |s, w| called(s, w, 0)),
    ("mseal for programs at level 1", |s, w| called(s, w, 1)),
    ("mseal for programs at level 2", |s, w| called(s, w, 2)),
];

const LINES: &str = "\
dlsym: 1
flags: -1 EINVAL
unaligned: -1 EINVAL
unmapped: -1 ENOMEM
overflow: -1 EINVAL
nothing: 0 
mprotect before: 0 
page: 0 
again: 0 
mprotect: -1 EPERM
neighbour: 0 
namespace: EINVAL, here 0
thread unaligned: -1 EINVAL
";

fn called(stage: &Stage, way: Way, level: u8) -> Result<(), String> {
    let (tree, words) = stage.way(way);
    let program = tree.join("call");
    let mut words = words.into_iter().chain([program.into_os_string()]);
    let mut command = Command::new(words.next().unwrap_or_default());
    command.args(words).current_dir(tree).env_clear().env("GLIBC_TUNABLES", format!("glibc.rtld.seal={level}"));
    let outcome = process::capture(&mut command, b"", Duration::from_secs(60)).map_err(|e| e.to_string())?;
    let stdout = String::from_utf8_lossy(&outcome.stdout);
    match outcome.ending == Ending::Exit(0) && stdout == LINES {
        true => Ok(()),
        false => Err(format!("ended with {}, {stdout}{}", outcome.ending, String::from_utf8_lossy(&outcome.stderr))),
    }
}
