//! The acceptance test that came with glibc's sealing patches of 2024, in words of our own: under level 2, with a preloaded library and a
//! plain dlopen, every mapping whose name is that of something loaded at start-up refuses mprotect, mmap and mremap, every such
//! name is seen, and no mapping is of an unknown kind. (The patches' test also opens a library with RTLD_NODELETE.)

use crate::stage::{Stage, Wish};
use conformance::attack::table::Attacked;
use conformance::Way;
use std::collections::BTreeSet;

/// Mappings with these names may be anything.
const ALLOWED: [&str; 9] =
    ["", "[heap]", "[stack]", "[vsyscall]", "[vvar]", "[vvar_vclock]", "/dev/zero", "libplugin.so", "libplugged.so"];

/// Indices of mprotect of the other kind, mremap, mmap over it.
const REFUSED: [usize; 3] = [0, 3, 4];

/// The check.
pub fn check(stage: &Stage, way: Way) -> Result<(), String> {
    let table = stage.table(way, &Wish::new("attack", "glibc.rtld.seal=2", &["open", "./libplugin.so"]))?;
    let expected = ["attack", "libneeded.so", "libpreloaded.so", "libc.so.6", stage.interpreter_name(), "[vdso]"];
    let mut missing: BTreeSet<&str> = expected.into();
    let mut report = Vec::new();
    for attacked in &table.regions {
        let name = attacked.region.base_name();
        if expected.contains(&name) {
            missing.remove(name);
            if !refused(attacked) {
                report.push(format!("not refused: {}", attacked.told()));
            }
        } else if !ALLOWED.contains(&name) {
            report.push(format!("an unexpected mapping: {}", attacked.told()));
        }
    }
    report.extend(missing.into_iter().map(|name| format!("never seen: {name}")));
    match report.is_empty() {
        true => Ok(()),
        false => Err(report.join("\n")),
    }
}

fn refused(attacked: &Attacked) -> bool {
    REFUSED.iter().all(|&attack| attacked.outcomes[attack] == "EPERM")
}
