//! Wrong options, and programs that are not run: which, in which words, with which exit status.

use crate::support::{check, command, is_root, ldseal, refused, run, same, skip, write, Outcome, DONE, LDSEAL};
use conformance::requirement::{find_command, unmet};
use libtest_mimic::Failed;
use std::fs::{self, File};
use std::os::unix::fs::{chown, symlink, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

pub fn usage(folder: &Path) -> Outcome {
    for (arguments, words) in [
        (&["run", "--seal", "3", "true"][..], "3 is not a level (0, 1 or 2)"),
        (&["run", "--seal=", "true"], " is not a level"),
        (&["run", "--nonsense", "true"], "--nonsense"),
        (&["run"], "which program?"),
        (&["nonsense"], "nonsense"),
        (&["report", "--seal", "3", "--", "true"], "3 is not a level"),
        (&[], "which command?"),
    ] {
        let output = ldseal(folder, arguments)?;
        let stderr = String::from_utf8_lossy(&output.stderr);
        let as_expected = output.status.code() == Some(2) && output.stdout.is_empty() && stderr.contains(words);
        check(as_expected, || format!("{arguments:?}: {output:?}"))?;
    }
    DONE
}

pub fn help(folder: &Path) -> Outcome {
    for arguments in [&["--help"][..], &["run", "--help"]] {
        let output = ldseal(folder, arguments)?;
        let text = String::from_utf8_lossy(&output.stdout);
        check(output.status.success() && text.contains("not sealed") || text.contains("are not)"), || {
            format!("{output:?}")
        })?;
    }
    DONE
}

pub fn not_found(folder: &Path) -> Outcome {
    refused(&run(folder, "no-such-program")?, 127, "no-such-program: command not found")?;
    refused(&run(folder, "./no-such-program")?, 127, "./no-such-program: No such file or directory")?;
    refused(&run(folder, "")?, 127, "command not found")?;
    symlink("nowhere", folder.join("dangling"))?;
    refused(&run(folder, "./dangling")?, 127, "No such file or directory")?;
    DONE
}

pub fn not_executable(folder: &Path) -> Outcome {
    write(&folder.join("plain"), fs::read("/bin/true")?, 0o644)?;
    refused(&run(folder, "./plain")?, 126, "./plain: Permission denied")?;
    refused(&run(folder, "./plain/below")?, 126, "Not a directory")?;
    fs::create_dir(folder.join("directory"))?;
    refused(&run(folder, "./directory")?, 126, "./directory: Is a directory")?;
    symlink("loop", folder.join("loop"))?;
    refused(&run(folder, "./loop")?, 126, "Too many levels of symbolic links")?;
    let output = command(LDSEAL, folder).args(["run", "plain"]).env("PATH", ".").output()?;
    refused(&output, 126, "./plain: Permission denied")?;
    if !is_root() {
        // What can't be seen is not there.
        fs::create_dir(folder.join("closed"))?;
        write(&folder.join("closed/hidden"), fs::read("/bin/true")?, 0o755)?;
        fs::set_permissions(folder.join("closed"), fs::Permissions::from_mode(0o000))?;
        let output = command(LDSEAL, folder).args(["run", "hidden"]).env("PATH", "closed").output();
        let named = run(folder, "closed/hidden");
        fs::set_permissions(folder.join("closed"), fs::Permissions::from_mode(0o755))?;
        refused(&output?, 127, "hidden: command not found")?;
        refused(&named?, 126, "closed/hidden: Permission denied")?;
    }
    DONE
}

pub fn noexec_mount(folder: &Path) -> Outcome {
    if let Some(reason) = unmet("user namespace").filter(|_| !is_root()) {
        return skip(reason);
    }
    fs::create_dir(folder.join("mount"))?;
    let script = format!(
        "mount -t tmpfs -o noexec none mount || exit 99
         cp /bin/true mount/ && printf '#!/bin/sh\\n' > mount/script && chmod +x mount/script || exit 99
         printf '#!mount/true\\n' > script; chmod +x script
         for program in mount/true mount/script ./script; do {LDSEAL} run $program; echo $?; done"
    );
    let output = command("unshare", folder).args(["-r", "-m", "sh", "-c", &script]).output()?;
    if output.status.code() == Some(99) {
        return skip(format!("no tmpfs could be mounted: {}", String::from_utf8_lossy(&output.stderr).trim()));
    }
    let stderr = String::from_utf8_lossy(&output.stderr);
    let denied = stderr.lines().filter(|line| line.ends_with("Permission denied")).count();
    check(output.stdout == b"126\n126\n126\n" && denied == 3, || format!("{output:?}"))?;
    DONE
}

pub fn unreadable(folder: &Path) -> Outcome {
    if is_root() {
        return skip("is about ordinary users: root can read everything");
    }
    write(&folder.join("program"), fs::read("/bin/true")?, 0o111)?;
    refused(&run(folder, "./program")?, 126, "can't be read")?;
    DONE
}

/// A file that begins as an ELF file does and has one program header: PT_INTERP, or PT_LOAD without an interpreter.
pub fn elf(class: u8, machine: u16, interpreter: &str) -> Vec<u8> {
    let mut file = vec![0x7f, b'E', b'L', b'F', class, 1, 1];
    file.resize(16, 0);
    file.extend([3, 0]);
    file.extend(machine.to_le_bytes());
    file.resize(64, 0);
    (file[32], file[54], file[56]) = (64, 56, 1);
    let path = if interpreter.is_empty() { String::new() } else { format!("{interpreter}\0") };
    file.extend(if path.is_empty() { 1u32 } else { 3 }.to_le_bytes());
    file.extend(4u32.to_le_bytes());
    for value in [120, 120, 120, path.len() as u64, path.len() as u64, 1] {
        file.extend(value.to_le_bytes());
    }
    file.extend(path.bytes());
    file
}

pub fn other_sorts(folder: &Path) -> Outcome {
    const X86_64: u16 = 62;
    let glibc = "/lib64/ld-linux-x86-64.so.2";
    for (content, words) in [
        (elf(2, X86_64, ""), "a library, not a program"),
        (elf(2, X86_64, "/lib/ld-musl-x86_64.so.1"), "a musl program"),
        (elf(2, X86_64, "/lib/other.so"), "its interpreter /lib/other.so is not glibc's"),
        (elf(1, 3, ""), "a 32-bit program (386)"),
        (elf(1, X86_64, ""), "a 32-bit program (x32)"),
        (elf(2, 183, glibc), "a foreign machine (AARCH64)"),
        (elf(1, 40, ""), "a foreign machine (ARM)"),
        (elf(2, X86_64, glibc)[..100].to_vec(), "cannot execute binary file: Exec format error"),
        (elf(2, X86_64, glibc)[..3].to_vec(), "cannot execute binary file: Exec format error"),
        (b"MZ\0\0\n".to_vec(), "cannot execute binary file: Exec format error"),
    ] {
        write(&folder.join("program"), &content, 0o755)?;
        let output = run(folder, "./program")?;
        // Three bytes without a NUL are text to a shell, whatever they are.
        if content.len() > 3 {
            refused(&output, 126, &format!("./program: {words}").replace(": a ", ": can't be sealed: a "))
                .or_else(|_| refused(&output, 126, words))?;
        }
    }
    DONE
}

/// Whether a set-user-ID bit on a file of `folder` would count.
fn counts(folder: &Path) -> Result<bool, Failed> {
    Ok(!rustix::fs::statvfs(folder)?.f_flag.contains(rustix::fs::StatVfsMountFlags::NOSUID)
        && !rustix::thread::no_new_privs()?)
}

pub fn setuid(folder: &Path) -> Outcome {
    if !is_root() {
        // An ordinary user can't make one that belongs to somebody else, but every system has some.
        let names = ["su", "passwd", "mount", "chsh", "gpasswd", "newgrp"];
        let is_setuid = |path: &PathBuf| path.metadata().is_ok_and(|m| m.mode() & 0o4000 != 0 && m.uid() == 0);
        let found = names.into_iter().filter_map(find_command).find(|path| is_setuid(path) && File::open(path).is_ok());
        let Some(program) = found else { return skip("no readable setuid program here") };
        if !counts(&program)? {
            return skip("setuid bits have no effect here (nosuid or no_new_privs)");
        }
        refused(&run(folder, &program.to_string_lossy())?, 126, "a setuid program")?;
        return DONE;
    }
    if !counts(folder)? {
        return skip("setuid bits have no effect here (nosuid or no_new_privs)");
    }
    let program = folder.join("program");
    write(&program, fs::read("/bin/true")?, 0o755)?;
    chown(&program, Some(65534), Some(0))?;
    fs::set_permissions(&program, fs::Permissions::from_mode(0o4755))?;
    refused(&run(folder, "./program")?, 126, "./program: can't be sealed: a setuid program")?;
    DONE
}

pub fn setgid(folder: &Path) -> Outcome {
    if !is_root() {
        return skip("needs root");
    }
    if !counts(folder)? {
        return skip("setgid bits have no effect here (nosuid or no_new_privs)");
    }
    let program = folder.join("program");
    write(&program, fs::read("/bin/true")?, 0o755)?;
    chown(&program, Some(0), Some(65534))?;
    fs::set_permissions(&program, fs::Permissions::from_mode(0o2755))?;
    refused(&run(folder, "./program")?, 126, "./program: can't be sealed: a setgid program")?;
    DONE
}

pub fn setuid_without_effect(folder: &Path) -> Outcome {
    let program = folder.join("program");
    write(&program, fs::read("/bin/true")?, 0o4755)?;
    same(folder, "./program", &[])?;
    if is_root() && counts(folder)? {
        if let Some(reason) = unmet("setpriv") {
            return skip(reason);
        }
        chown(&program, Some(65534), None)?;
        fs::set_permissions(&program, fs::Permissions::from_mode(0o4755))?;
        let output = command("setpriv", folder).args(["--no-new-privs", LDSEAL, "run", "./program"]).output()?;
        check(output.status.success() && output.stderr.is_empty(), || format!("{output:?}"))?;
    }
    DONE
}

pub fn capabilities(folder: &Path) -> Outcome {
    let program = folder.join("program");
    write(&program, fs::read("/bin/true")?, 0o755)?;
    // struct vfs_cap_data, revision 2: effective, CAP_NET_RAW permitted, nothing inheritable.
    let mut value = [0u8; 20];
    value[..4].copy_from_slice(&0x0200_0001u32.to_le_bytes());
    value[4..8].copy_from_slice(&(1u32 << 13).to_le_bytes());
    let flags = rustix::fs::XattrFlags::empty();
    if let Err(error) = rustix::fs::setxattr(&program, "security.capability", &value, flags) {
        return skip(format!("file capabilities can't be set: {error}"));
    }
    if !counts(folder)? {
        return skip("file capabilities have no effect here (nosuid or no_new_privs)");
    }
    refused(&run(folder, "./program")?, 126, "./program: can't be sealed: a program with file capabilities")?;
    DONE
}
