//! Which level a string asks for: values are read as glibc reads those of its own tunables.

use crate::stage::{Stage, Wish};
use crate::Check;
use conformance::attack::table::Table;
use conformance::Way;

/// Strings and the level they stand for.
const LEVELS: &[(&str, u8)] = &[
    ("", 1),
    ("glibc.rtld.seal", 1),
    ("glibc.rtld.seal=0", 0),
    ("glibc.rtld.seal=1", 1),
    ("glibc.rtld.seal=2", 2),
    ("glibc.rtld.seal=3", 1),
    ("glibc.rtld.seal=-1", 1),
    ("glibc.rtld.seal=4294967296", 1),
    ("glibc.rtld.seal=18446744073709551617", 1),
    ("glibc.rtld.seal=", 0),
    ("glibc.rtld.seal=yes", 0),
    ("glibc.rtld.seal=0x2", 2),
    ("glibc.rtld.seal=02", 2),
    ("glibc.rtld.seal= 2", 2),
    ("glibc.rtld.seal=2x", 2),
    ("glibc.rtld.seal=2:glibc.rtld.seal=7", 2),
    ("glibc.rtld.seal=2:glibc.rtld.seal=0", 0),
    ("glibc.malloc.check=0:glibc.rtld.seal=0", 0),
    ("nonsense:glibc.rtld.seal=2", 2),
    ("glibc.rtld.seals=0", 1),
    (":::=:glibc.rtld.seal=0::", 0),
];

/// The checks.
pub const CHECKS: &[(&str, Check)] = &[("strings and their levels", |stage, way| {
    let wrong: Vec<String> = LEVELS.iter().filter_map(|&(text, level)| wrong(stage, way, text, level)).collect();
    match wrong.is_empty() {
        true => Ok(()),
        false => Err(wrong.join("\n")),
    }
})];

fn wrong(stage: &Stage, way: Way, tunables: &str, level: u8) -> Option<String> {
    match stage.table(way, &Wish::new("attack", tunables, &[])).map(|table| seen(&table)) {
        Ok(Some(seen)) if seen == level => None,
        Ok(seen) => Some(format!("GLIBC_TUNABLES={tunables:?} stands for level {level}, seen: {seen:?}")),
        Err(reason) => Some(format!("GLIBC_TUNABLES={tunables:?}: {reason}")),
    }
}

/// The level, by what is sealed of the library.
fn seen(table: &Table) -> Option<u8> {
    match (table.of("needed-relro")?.sealed(), table.of("needed-data")?.sealed()) {
        (false, false) => Some(0),
        (true, false) => Some(1),
        (true, true) => Some(2),
        (false, true) => None,
    }
}
