//! Putting another interpreter into an executable: what a linker's `--dynamic-linker=` does, for files that are already linked.

use crate::process::write_executable;
use object::elf::{FileHeader64, ProgramHeader64, ELFCLASS64, PT_INTERP};
use object::read::elf::FileHeader;
use object::{pod, Endianness, LittleEndian};
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// A copy of the ELF file `bytes` whose PT_INTERP names `interpreter`, or `None` if it is no 64-bit ELF file with a PT_INTERP.
///
/// The new name goes behind the last byte of the file and PT_INTERP's file offset and size are pointed at it, so its
/// length does not matter and nothing moves. That is enough for execve(2), which reads the name by its file offset (fs/binfmt_elf.c).
pub fn replaced(bytes: &[u8], interpreter: &Path) -> Option<Vec<u8>> {
    let header = FileHeader64::<Endianness>::parse(bytes).ok()?;
    if header.e_ident.class != ELFCLASS64 || header.endian().ok()? != Endianness::Little {
        return None;
    }
    let table = header.e_phoff.get(Endianness::Little) as usize;
    let count = usize::from(header.e_phnum.get(Endianness::Little));
    let mut name = interpreter.as_os_str().as_bytes().to_vec();
    name.push(0);
    let mut copy = bytes.to_vec();
    let end = copy.len() as u64;
    let (headers, _) =
        pod::slice_from_bytes_mut::<ProgramHeader64<LittleEndian>>(copy.get_mut(table..)?, count).ok()?;
    let interp = headers.iter_mut().find(|h| h.p_type.get(LittleEndian) == PT_INTERP)?;
    interp.p_offset.set(LittleEndian, end);
    interp.p_filesz.set(LittleEndian, name.len() as u64);
    interp.p_memsz.set(LittleEndian, name.len() as u64);
    copy.extend_from_slice(&name);
    Some(copy)
}

/// Copies the tree `from` to `to`, replacing the interpreter of every executable in it. Nothing is done if `to` exists.
///
/// # Errors
/// Any failing file operation.
pub fn replaced_tree(from: &Path, to: &Path, interpreter: &Path) -> io::Result<()> {
    if to.exists() {
        return Ok(());
    }
    let partial = to.with_extension("partial");
    if partial.exists() {
        fs::remove_dir_all(&partial)?;
    }
    copy_tree(from, &partial, interpreter)?;
    fs::rename(&partial, to)
}

fn copy_tree(from: &Path, to: &Path, interpreter: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        let kind = entry.file_type()?;
        if kind.is_dir() {
            copy_tree(&entry.path(), &target, interpreter)?;
        } else if kind.is_symlink() {
            std::os::unix::fs::symlink(fs::read_link(entry.path())?, &target)?;
        } else {
            replaced_copy(&entry.path(), &target, interpreter)?;
        }
    }
    Ok(())
}

/// Copies the file `from` to `to` with its permissions, its interpreter replaced if it has one.
///
/// # Errors
/// Any failing file operation.
pub fn replaced_copy(from: &Path, to: &Path, interpreter: &Path) -> io::Result<()> {
    let bytes = fs::read(from)?;
    match replaced(&bytes, interpreter) {
        Some(copy) => write_executable(to, &copy)?,
        None => write_executable(to, &bytes)?,
    }
    fs::set_permissions(to, fs::metadata(from)?.permissions())
}

#[cfg(test)]
mod tests {
    use super::*;
    use object::read::elf::ProgramHeader;

    #[test]
    fn the_name_is_found_where_execve_looks() {
        let bytes = fs::read("/proc/self/exe").expect("the test itself is readable");
        let copy =
            replaced(&bytes, Path::new("/a/rather/long/path/to/an/interpreter.so")).expect("it has an interpreter");
        let header = FileHeader64::<Endianness>::parse(copy.as_slice()).expect("still an ELF file");
        let headers = header.program_headers(Endianness::Little, copy.as_slice()).expect("still has headers");
        let names = headers.iter().filter_map(|h| h.interpreter(Endianness::Little, copy.as_slice()).ok().flatten());
        assert_eq!(names.collect::<Vec<_>>(), [b"/a/rather/long/path/to/an/interpreter.so"]);
    }

    #[test]
    fn what_has_no_interpreter_stays() {
        assert_eq!(replaced(b"#!/bin/sh\n", Path::new("/x")), None);
    }
}
