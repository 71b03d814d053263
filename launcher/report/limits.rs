//! What seals don't stop, as far as the running kernel and its settings decide it.

use super::model::{Group, Limit};
use crate::sys;
use std::fs;

/// The list, for a process with these mappings.
pub fn limits(groups: &[Group], mappings: usize) -> Vec<Limit> {
    let limit = |what, here: String| Limit { what, here };
    vec![
        limit(
            "writes through /proc/PID/mem",
            match sys::writes_through_proc_mem() {
                Some(true) => "possible here, for the process itself too (tried on memory of ldseal's own)".into(),
                Some(false) => "refused by this kernel (tried on memory of ldseal's own)".into(),
                None => "unknown: /proc/self/mem could not be tried".into(),
            },
        ),
        limit(
            "ptrace by another process",
            match setting("kernel/yama/ptrace_scope").as_deref() {
                Some("0") | None => {
                    "possible for processes of the same user (no Yama, or its ptrace_scope is 0)".into()
                }
                Some("3") => "impossible (Yama's ptrace_scope is 3)".into(),
                Some(scope) => format!("restricted to parents or the privileged (Yama's ptrace_scope is {scope})"),
            },
        ),
        limit("files behind mappings", files(groups)),
        limit(
            "MADV_GUARD_INSTALL on file-backed memory",
            match sys::has_guard_pages() {
                true => "this kernel has it: a sealed page of a file can be made to fault".into(),
                false => "this kernel has it not".into(),
            },
        ),
        limit(
            "userfaultfd",
            match setting("vm/unprivileged_userfaultfd").as_deref() {
                Some("0") => {
                    "for the privileged, or for faults of user code only (vm.unprivileged_userfaultfd is 0)".into()
                }
                Some(_) => "open to everybody (vm.unprivileged_userfaultfd is 1)".into(),
                None => "unknown: vm.unprivileged_userfaultfd can't be read, or this kernel has none".into(),
            },
        ),
        limit(
            "partial seals",
            match setting("vm/max_map_count") {
                Some(most) => {
                    format!("a mapping that can't be split is left part sealed; {mappings} of {most} mappings in use")
                }
                None => format!("a mapping that can't be split is left part sealed; {mappings} mappings in use"),
            },
        ),
        limit("exec and children", "seals end with exec; a child has the level that its own GLIBC_TUNABLES say".into()),
    ]
}

fn files(groups: &[Group]) -> String {
    let regions = groups.iter().filter(|group| group.covered).flat_map(|group| &group.regions);
    let bytes: u64 =
        regions.filter(|region| region.sealed == Some(true) && region.file.is_some()).map(|region| region.size).sum();
    match bytes {
        0 => "no sealed memory is a mapping of a file".into(),
        bytes => format!(
            "{} KiB of sealed memory are mappings of files: who may write to them changes or truncates it (ldseal.anonymous=all)",
            bytes / 1024
        ),
    }
}

fn setting(name: &str) -> Option<String> {
    Some(fs::read_to_string(format!("/proc/sys/{name}")).ok()?.trim().to_owned())
}
