//! Where a program is: the search in PATH, and the right to execute.

use super::{Refusal, NOT_EXECUTABLE, NOT_FOUND};
use rustix::fs::{Access, AtFlags, CWD};
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// The path that `execvp(3)` searches when the environment has no PATH.
const DEFAULT_PATH: &str = "/bin:/usr/bin";

/// Finds the file that a shell would execute for `name`. A name with a slash is that file; any other is searched for in
/// `path`, where an empty entry is the current directory, a directory is no program, what can't be seen is not there, and a
/// file that may not be executed is only reported when nothing better follows.
///
/// # Errors
/// 127 when there is none, 126 when there is one but it may not be executed.
pub fn find(name: &OsStr, path: Option<&OsStr>) -> Result<PathBuf, Refusal> {
    if name.as_bytes().contains(&b'/') {
        let file = PathBuf::from(name);
        return match executable(&file) {
            Ok(()) => Ok(file),
            Err(error) => Err(Refusal::new(status(&error), name, text(&error))),
        };
    }
    let mut denied = None;
    for candidate in candidates(name, path.unwrap_or(OsStr::new(DEFAULT_PATH))) {
        match executable(&candidate) {
            Ok(()) => return Ok(candidate),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied && candidate.exists() => {
                log::debug!("{}: {error}", candidate.display());
                denied.get_or_insert(Refusal::new(NOT_EXECUTABLE, candidate, text(&error)));
            }
            Err(error) => log::trace!("{}: {error}", candidate.display()),
        }
    }
    Err(denied.unwrap_or_else(|| Refusal::new(NOT_FOUND, name, "command not found")))
}

/// The files that a search for `name` looks at, in order.
fn candidates<'a>(name: &'a OsStr, path: &'a OsStr) -> impl Iterator<Item = PathBuf> + 'a {
    let entries = if name.is_empty() { &[][..] } else { path.as_bytes() };
    let searched = !name.is_empty();
    entries.split(|&byte| byte == b':').filter(move |_| searched).map(move |entry| {
        let mut file = OsString::from(OsStr::from_bytes(if entry.is_empty() { b"." } else { entry }));
        if !entry.ends_with(b"/") {
            file.push("/");
        }
        file.push(name);
        PathBuf::from(file)
    })
}

/// Whether this process may execute the file: what `execve(2)` asks for, the mount option `noexec` included.
///
/// # Errors
/// The kernel's, and EISDIR for a directory.
pub fn executable(file: &Path) -> io::Result<()> {
    let metadata = std::fs::metadata(file)?;
    if metadata.is_dir() {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    if !metadata.is_file() {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    rustix::fs::accessat(CWD, file, Access::EXEC_OK, AtFlags::EACCESS)?;
    Ok(())
}

/// The exit status of a shell for a file that can't be executed for this reason.
pub fn status(error: &io::Error) -> u8 {
    if error.kind() == io::ErrorKind::NotFound {
        NOT_FOUND
    } else {
        NOT_EXECUTABLE
    }
}

/// The text of an error as a shell prints it: strerror's, without a number.
pub fn text(error: &io::Error) -> String {
    let text = match error.kind() {
        io::ErrorKind::IsADirectory => "Is a directory".into(),
        io::ErrorKind::PermissionDenied => "Permission denied".into(),
        _ => error.to_string(),
    };
    match text.find(" (os error") {
        Some(end) => text[..end].to_owned(),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn searched(name: &str, path: &str) -> Vec<PathBuf> {
        candidates(OsStr::new(name), OsStr::new(path)).collect()
    }

    #[test]
    fn empty_entries_are_the_current_directory() {
        assert_eq!(searched("x", "/a::b/:"), ["/a/x", "./x", "b/x", "./x"].map(PathBuf::from));
        assert_eq!(searched("x", ""), ["./x"].map(PathBuf::from));
        assert!(searched("", "/bin").is_empty());
    }

    #[test]
    fn names_with_a_slash_are_not_searched_for() {
        let refusal = find(OsStr::new("./no-such-file"), Some(OsStr::new("/bin"))).expect_err("found");
        assert_eq!((refusal.status, refusal.to_string().as_str()), (127, "./no-such-file: No such file or directory"));
        let refusal = find(OsStr::new("/"), None).expect_err("found");
        assert_eq!((refusal.status, refusal.to_string().as_str()), (126, "/: Is a directory"));
        let refusal = find(OsStr::new("/dev/null"), None).expect_err("found");
        assert_eq!((refusal.status, refusal.to_string().as_str()), (126, "/dev/null: Permission denied"));
    }

    #[test]
    fn a_search_skips_what_is_no_program() {
        let path = Some(OsStr::new("/nonexistent:/dev:/:/bin"));
        assert_eq!(find(OsStr::new("sh"), path).ok(), Some(PathBuf::from("/bin/sh")));
        let refusal = find(OsStr::new("etc"), path).expect_err("found");
        assert_eq!((refusal.status, refusal.to_string().as_str()), (127, "etc: command not found"));
    }
}
