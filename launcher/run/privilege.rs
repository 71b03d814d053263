//! Programs that the kernel would start with more rights than their caller has. Under the interpreter it is the interpreter
//! that the kernel starts, so those rights would silently be missing.

use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;

/// A right that a direct start would give.
#[derive(Debug, PartialEq, Eq)]
pub enum Privilege {
    /// The set-user-ID bit, and a user who is not the caller.
    User(u32),
    /// The set-group-ID bit, and a group which is not the caller's.
    Group(u32),
    /// The extended attribute `security.capability`.
    Capabilities,
}

impl fmt::Display for Privilege {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Privilege::User(user) => {
                write!(f, "can't be sealed: a setuid program (of user {user}) would lose its privileges")
            }
            Privilege::Group(group) => {
                write!(f, "can't be sealed: a setgid program (of group {group}) would lose its privileges")
            }
            Privilege::Capabilities => {
                f.write_str("can't be sealed: a program with file capabilities (setcap) would lose them")
            }
        }
    }
}

const SET_USER: u32 = 0o4000;
const SET_GROUP: u32 = 0o2000;
/// Without it the set-group-ID bit once meant mandatory locking, and the kernel ignores it.
const GROUP_EXECUTE: u32 = 0o010;

/// Checks that a direct start of the file would change no rights: no effective setuid or setgid bit, no file
/// capabilities. The kernel ignores all three under the mount option `nosuid` and after `PR_SET_NO_NEW_PRIVS`.
///
/// # Errors
/// The right that would be lost.
pub fn check(file: &File) -> Result<(), Privilege> {
    let Ok(metadata) = file.metadata() else { return Ok(()) };
    let found = if metadata.mode() & SET_USER != 0 && metadata.uid() != rustix::process::geteuid().as_raw() {
        Privilege::User(metadata.uid())
    } else if metadata.mode() & (SET_GROUP | GROUP_EXECUTE) == SET_GROUP | GROUP_EXECUTE
        && metadata.gid() != rustix::process::getegid().as_raw()
    {
        Privilege::Group(metadata.gid())
    } else if has_capabilities(file) {
        Privilege::Capabilities
    } else {
        return Ok(());
    };
    match without_effect(file) {
        Ok(true) => {
            log::debug!("{found:?} has no effect here (nosuid or no_new_privs)");
            Ok(())
        }
        Ok(false) | Err(_) => Err(found),
    }
}

fn has_capabilities(file: &File) -> bool {
    let mut value = [0u8; 64];
    rustix::fs::fgetxattr(file, "security.capability", &mut value).is_ok_and(|length| length > 0)
}

fn without_effect(file: &File) -> io::Result<bool> {
    let mount = rustix::fs::fstatvfs(file)?;
    Ok(mount.f_flag.contains(rustix::fs::StatVfsMountFlags::NOSUID) || rustix::thread::no_new_privs()?)
}
