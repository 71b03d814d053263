//! The committed tables are what the tool makes of the system's glibc, if that is one of those they are for.

use std::path::Path;

use glibc_layouts::{files, generate};
use object::{Object, ObjectSegment, ObjectSymbol};
use runtime::glibc::layout::choose;

const LOADER: &str = "/lib64/ld-linux-x86-64.so.2";
const LIBC: &str = "/lib/x86_64-linux-gnu/libc.so.6";

/// The words of an object that a libc.so.6 exports, as far as it is long.
fn exported(file: &object::File<'_>, name: &str) -> Option<[u32; 3]> {
    let symbol = file.dynamic_symbols().find(|symbol| symbol.name() == Ok(name))?;
    let (address, size) = (symbol.address(), symbol.size());
    let bytes = file.segments().find_map(|segment| segment.data_range(address, size).ok().flatten())?;
    let mut words = [0; 3];
    for (word, bytes) in words.iter_mut().zip(bytes.chunks_exact(4)) {
        *word = u32::from_le_bytes(bytes.try_into().ok()?);
    }
    Some(words)
}

#[test]
fn the_table_of_the_system_s_glibc_is_what_its_debug_information_says() {
    let skipped = |why: &dyn std::fmt::Display| eprintln!("SKIPPED committed layout table: {why}");
    if !Path::new(LIBC).exists() || !Path::new(LOADER).exists() {
        return skipped(&"no glibc at the usual places");
    }
    for file in [LOADER, LIBC] {
        if let Err(error) = files::debug_file(Path::new(file)) {
            return skipped(&error);
        }
    }
    let data = std::fs::read(LIBC).expect("libc.so.6");
    let libc = object::File::parse(&*data).expect("an ELF file");
    let version = files::version(Path::new(LIBC)).expect("a version");
    let layout = match choose(version, &|name| exported(&libc, name)) {
        Ok(layout) => layout,
        Err(error) => return skipped(&error),
    };
    let (major, minor) = layout.version;
    let suffix = if layout.snapshot == "as released" { "_tag" } else { "" };
    let committed =
        format!("{}/../../runtime/src/glibc/tables/layout_v{major}_{minor}{suffix}.rs", env!("CARGO_MANIFEST_DIR"));
    let committed = std::fs::read_to_string(committed).expect("the committed table");
    let made = generate(Path::new(LOADER), Path::new(LIBC), layout.snapshot).expect("a table");
    for (number, (made, committed)) in made.lines().zip(committed.lines()).enumerate() {
        assert_eq!(made, committed, "line {}", number + 1);
    }
    assert_eq!(made.lines().count(), committed.lines().count());
}

#[test]
fn a_file_without_debug_information_is_named() {
    let path = Path::new("/bin/true");
    if !path.exists() {
        return eprintln!("SKIPPED: no {}", path.display());
    }
    if let Err(error) = files::debug_file(path) {
        assert!(
            error.to_string().starts_with("/bin/true: no debug information at /usr/lib/debug/.build-id/"),
            "{error}"
        );
    }
}
