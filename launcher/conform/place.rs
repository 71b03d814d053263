//! Where the cases of `ldseal conform` come from, where they are built, and which files are the loaders.

use super::arguments::Arguments;
use crate::interpreter;
use conformance::Loader;
use include_dir::{include_dir, Dir};
use rustix::fs::{flock, FlockOperation};
use rustix::io::Errno;
use std::collections::hash_map::DefaultHasher;
use std::fs::{self, File};
use std::hash::{Hash, Hasher};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// The cases of this build.
static FIXTURES: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/fixtures");

/// The folder where things are built, and the one with the cases.
pub fn folders(arguments: &Arguments) -> Result<(PathBuf, PathBuf), String> {
    let cache = interpreter::cache_directory().ok_or("neither XDG_CACHE_HOME nor HOME is set")?.join("conform");
    fs::create_dir_all(&cache).map_err(|e| format!("{}: {e}", cache.display()))?;
    // Programs name the folder as their working directory, and must name the same.
    let cache = fs::canonicalize(&cache).map_err(|e| format!("{}: {e}", cache.display()))?;
    let fixtures = match &arguments.fixtures {
        Some(folder) => fs::canonicalize(folder).map_err(|e| format!("{}: {e}", folder.display()))?,
        None => unpacked(&cache)?,
    };
    Ok((cache, fixtures))
}

/// The turn of this process to work below `cache`, until the file is dropped. Waits, and says so, while another process has it: they
/// would write the same files.
pub fn turn(cache: &Path) -> Result<File, String> {
    let path = cache.join("lock");
    let failed = |reason: String| format!("{}: {reason}", path.display());
    let file = File::options().create(true).append(true).open(&path).map_err(|e| failed(e.to_string()))?;
    let taken = flock(&file, FlockOperation::NonBlockingLockExclusive).or_else(|e| match e {
        Errno::WOULDBLOCK => {
            eprintln!("ldseal: conform: waiting for another run, which works in {}", cache.display());
            rustix::io::retry_on_intr(|| flock(&file, FlockOperation::LockExclusive))
        }
        // A file system without locks.
        Errno::OPNOTSUPP | Errno::NOLCK => Ok(()),
        e => Err(e),
    });
    taken.map(|()| file).map_err(|e| failed(e.to_string()))
}

/// The built-in cases as files.
fn unpacked(cache: &Path) -> Result<PathBuf, String> {
    let mut hasher = DefaultHasher::new();
    hash(&FIXTURES, &mut hasher);
    let folder = cache.join(format!("fixtures-{:016x}", hasher.finish()));
    if folder.is_dir() {
        return Ok(folder);
    }
    let failed = |e: std::io::Error| format!("{}: {e}", folder.display());
    let partial = cache.join(format!("fixtures.{}", std::process::id()));
    fs::create_dir_all(&partial).map_err(failed)?;
    FIXTURES.extract(&partial).map_err(failed)?;
    match fs::rename(&partial, &folder) {
        // Somebody else was faster.
        Err(_) if folder.is_dir() => fs::remove_dir_all(&partial).map_err(failed)?,
        other => other.map_err(failed)?,
    }
    Ok(folder)
}

fn hash(folder: &Dir<'_>, hasher: &mut DefaultHasher) {
    for file in folder.files() {
        file.path().hash(hasher);
        file.contents().hash(hasher);
    }
    folder.dirs().for_each(|inner| hash(inner, hasher));
}

/// The loader that is right.
pub fn reference(arguments: &Arguments) -> Result<Loader, String> {
    match &arguments.reference {
        None => Ok(Loader::system()),
        Some(path) => Ok(Loader { interpreter: existing(path)?, launcher: None }),
    }
}

/// The loader under test: that of this command comes with its launcher.
pub fn tested(arguments: &Arguments, cache: &Path) -> Result<Loader, String> {
    if let Some(path) = &arguments.loader {
        return Ok(Loader { interpreter: existing(path)?, launcher: None });
    }
    let launcher = std::env::current_exe().map_err(|e| format!("/proc/self/exe: {e}"))?;
    let beside = launcher.with_file_name(interpreter::NAME);
    let holds_image = |path: &Path| fs::read(path).is_ok_and(|present| present == interpreter::IMAGE);
    if holds_image(&beside) {
        return Ok(Loader { interpreter: beside, launcher: Some(launcher) });
    }
    let own = cache.join(interpreter::NAME);
    if !holds_image(&own) {
        let failed = |e: std::io::Error| format!("{}: {e}", own.display());
        let new = own.with_extension(format!("so.{}", std::process::id()));
        fs::write(&new, interpreter::IMAGE).map_err(failed)?;
        fs::set_permissions(&new, fs::Permissions::from_mode(0o755)).map_err(failed)?;
        fs::rename(&new, &own).map_err(failed)?;
    }
    Ok(Loader { interpreter: own, launcher: Some(launcher) })
}

/// The system's loader is known by the name that programs have for it.
fn existing(path: &Path) -> Result<PathBuf, String> {
    let absolute = std::path::absolute(path).map_err(|e| format!("{}: {e}", path.display()))?;
    match absolute.is_file() {
        true => Ok(absolute),
        false => Err(format!("{}: no such loader", path.display())),
    }
}
