//! What may stand in the place of a file, and libraries that ask for strange ones.

use super::image::Image;
use super::stage::Role;
use super::Case;
use super::Freedom::Words;
use object::elf::{DT_NEEDED, DT_SONAME};
use std::fs::{self, File, Permissions};
use std::os::unix::fs::{symlink, PermissionsExt};

/// The cases.
pub const CASES: &[Case] = &[
    Case::replaced("file/none", |_| Ok(())),
    Case::replaced("file/empty", |path| fs::write(path, "")),
    Case::replaced("file/text", |path| {
        fs::write(path, "This is a line of text, and it is long enough to hold a file header.\n")
    }),
    Case::replaced("file/script", |path| {
        fs::write(path, "#!/bin/sh\necho run by a shell\n")?;
        fs::set_permissions(path, Permissions::from_mode(0o755))
    }),
    Case::replaced("file/archive", |path| fs::write(path, [b"!<arch>\n".as_slice(), &[b' '; 200]].concat())),
    Case::replaced("file/zeros", |path| File::create(path)?.set_len(1 << 30)),
    Case::replaced("file/directory", |path| fs::create_dir(path)),
    Case::replaced("file/dangling-link", |path| symlink("nowhere", path)),
    Case::replaced("file/link-to-itself", |path| symlink(path.file_name().unwrap_or_default(), path)),
    Case::replaced("file/null-device", |path| symlink("/dev/null", path)),
    Case::replaced("file/zero-device", |path| symlink("/dev/zero", path)),
    Case::replaced("file/proc-file", |path| symlink("/proc/version", path)),
    Case::hidden("file/unreadable", |path| {
        fs::write(path, "secret")?;
        fs::set_permissions(path, Permissions::from_mode(0o000))
    }),
    Case::hidden("file/only-executable", |path| {
        fs::copy("/bin/true", path)?;
        fs::set_permissions(path, Permissions::from_mode(0o111))
    }),
    Case::hidden("file/in-a-closed-folder", |path| {
        let folder = path.with_file_name("closed");
        fs::create_dir(&folder)?;
        fs::copy("/bin/true", folder.join("true"))?;
        fs::set_permissions(&folder, Permissions::from_mode(0o000))?;
        symlink("closed/true", path)
    }),
    Case::new("needed/itself", |i| {
        let own = i.value(DT_SONAME);
        i.add(DT_NEEDED, own);
    })
    .only(&Role::LIBRARY),
    Case::new("needed/only-itself", |i| {
        let own = i.value(DT_SONAME);
        i.set(DT_NEEDED, own);
    })
    .only(&Role::LIBRARY)
    .free(Words),
    Case::new("needed/missing", |i| {
        let name = string(i, b"puts\0");
        i.add(DT_NEEDED, name);
    }),
    Case::new("needed/the-same-twice", |i| {
        let name = i.value(DT_NEEDED);
        i.add(DT_NEEDED, name);
    }),
];

/// The offset of a string in the string table.
fn string(image: &mut Image, wanted: &[u8]) -> u64 {
    let table = image.offset_of(object::elf::DT_STRTAB);
    let found = image.bytes()[table..].windows(wanted.len()).position(|window| window == wanted);
    found.expect("this string") as u64
}
