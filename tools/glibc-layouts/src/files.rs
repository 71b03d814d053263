//! Where the debug information of an installed file is, and of which release it is.

use std::fs;
use std::path::{Path, PathBuf};

use object::read::elf::{ElfFile64, FileHeader};
use object::{Object, ObjectSection};

use crate::Error;

const DEBUG_DIRECTORY: &str = "/usr/lib/debug/.build-id";

fn read(path: &Path) -> Result<Vec<u8>, Error> {
    fs::read(path).map_err(|error| Error(format!("{}: {error}", path.display())))
}

/// The file with the debug information of `path`: itself if it has any, else the one that distributions install under its
/// build ID.
///
/// # Errors
/// If neither is there.
pub fn debug_file(path: &Path) -> Result<PathBuf, Error> {
    let data = read(path)?;
    let file = object::File::parse(&*data)?;
    if file.section_by_name(".debug_info").is_some_and(|section| section.size() > 0) {
        return Ok(path.to_owned());
    }
    let id = file.build_id()?.ok_or_else(|| format!("{}: no build ID", path.display()))?;
    let hex: String = id.iter().map(|byte| format!("{byte:02x}")).collect();
    let (directory, name) = hex.split_at_checked(2).ok_or_else(|| format!("{}: short build ID", path.display()))?;
    let found = Path::new(DEBUG_DIRECTORY).join(directory).join(format!("{name}.debug"));
    if found.exists() {
        Ok(found)
    } else {
        Err(Error(format!(
            "{}: no debug information at {} (Debian: package libc6-dbg)",
            path.display(),
            found.display()
        )))
    }
}

/// The release of a libc.so.6: its highest version definition of the form `GLIBC_x.y`.
///
/// # Errors
/// If it defines none.
pub fn version(libc: &Path) -> Result<(u32, u32), Error> {
    let data = read(libc)?;
    let file: ElfFile64<'_> = ElfFile64::parse(&*data)?;
    let endian = file.endian();
    let sections = file.elf_header().sections(endian, &*data)?;
    let (mut definitions, strings) =
        sections.gnu_verdef(endian, &*data)?.ok_or_else(|| format!("{}: no version definitions", libc.display()))?;
    let strings = sections.strings(endian, &*data, strings)?;
    let mut highest = None;
    while let Some((_, mut names)) = definitions.next()? {
        if let Some(name) = names.next()? {
            highest = highest.max(release(name.name(endian, strings)?));
        }
    }
    highest.ok_or_else(|| Error(format!("{}: defines no GLIBC_x.y", libc.display())))
}

fn release(name: &[u8]) -> Option<(u32, u32)> {
    let (major, minor) = std::str::from_utf8(name).ok()?.strip_prefix("GLIBC_")?.split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_have_two_numbers() {
        assert_eq!(release(b"GLIBC_2.36"), Some((2, 36)));
        assert_eq!(release(b"GLIBC_2.2.5"), None);
        assert_eq!(release(b"GLIBC_PRIVATE"), None);
        assert_eq!(release(b"libc.so.6"), None);
    }
}
