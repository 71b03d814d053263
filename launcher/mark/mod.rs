//! `ldseal mark`: writes into an ELF file that it is not to be sealed, or takes that out again.
//!
//! * [`edit`] changes the bytes of a file.
#![deny(unsafe_code)]

mod edit;

use crate::cli::{MarkArguments, MarkWish};
use crate::run::error_text;
use edit::Edited;
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{fchown, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Exit status when a file can't be marked.
const FAILURE: u8 = 1;

/// Marks files, or shows how they are marked; returns the exit status.
pub fn mark(arguments: &MarkArguments) -> u8 {
    let mut status = 0;
    for file in &arguments.files {
        if let Err(reason) = treat(file, arguments.wish) {
            eprintln!("ldseal: {}: {reason}", file.to_string_lossy());
            status = FAILURE;
        }
    }
    status
}

fn treat(file: &OsString, wish: MarkWish) -> Result<(), String> {
    let failed = |error: io::Error| error_text(&error);
    let path = fs::canonicalize(file).map_err(failed)?;
    if !fs::metadata(&path).map_err(failed)?.is_file() {
        return Err("not a regular file".into());
    }
    let mut bytes = fs::read(&path).map_err(failed)?;
    let edited = match wish {
        MarkWish::Show => {
            let word = if edit::is_marked(&bytes)? { "no-seal" } else { "none" };
            return writeln!(io::stdout(), "{}: {word}", file.to_string_lossy()).map_err(failed);
        }
        MarkWish::NoSeal => edit::mark(&mut bytes)?,
        MarkWish::Clear => edit::clear(&mut bytes)?,
    };
    log::debug!("{}: {edited:?}", path.display());
    match edited {
        Edited::Unchanged => Ok(()),
        _ => replace(&path, &bytes).map_err(failed),
    }
}

/// Puts a new file in the place of an old one, in one step, with its mode and owner. Who runs the old one keeps it.
fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let metadata = fs::metadata(path)?;
    let mut name = OsString::from(".ldseal-mark.");
    name.push(std::process::id().to_string());
    let new = path.with_file_name(name);
    let outcome = write(&new, bytes, &metadata).and_then(|()| fs::rename(&new, path));
    if outcome.is_err() {
        remove(new);
    }
    outcome
}

fn remove(new: PathBuf) {
    if let Err(error) = fs::remove_file(&new) {
        log::debug!("{}: {error}", new.display());
    }
}

fn write(new: &Path, bytes: &[u8], like: &fs::Metadata) -> io::Result<()> {
    let mut file: File = OpenOptions::new().write(true).create_new(true).mode(0o600).open(new)?;
    file.write_all(bytes)?;
    let own = file.metadata()?;
    if (own.uid(), own.gid()) != (like.uid(), like.gid()) {
        fchown(&file, Some(like.uid()), Some(like.gid()))?;
    }
    // After the owner, whose change takes the set-user-ID bit away.
    file.set_permissions(like.permissions())?;
    file.sync_all()
}
