//! The cases in which `ld-seal.so` is known to differ, with the reasons: one file beside the cases.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::Path;

/// The name of the file in the folder of the fixtures: a table of names of cases and reasons.
pub const FILE: &str = "known-differences.toml";

/// Reasons by the names of cases.
///
/// # Errors
/// The file can't be read, or is not such a table. That there is none is no error.
pub fn read(fixtures: &Path) -> Result<BTreeMap<String, String>, String> {
    let path = fixtures.join(FILE);
    match fs::read_to_string(&path) {
        Ok(text) => toml::from_str(&text).map_err(|e| format!("{}: {e}", path.display())),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(BTreeMap::new()),
        Err(e) => Err(format!("{}: {e}", path.display())),
    }
}
