//! What `ldseal` decides by itself: which file runs, what is refused and in which words, and what `report` sees.
//!
//! A direct start by the kernel and execvp(3) is the specification; where both succeed, their output is compared.

use conformance::requirement::{find_command, unmet};
use conformance::suite;
use libtest_mimic::{Completion, Failed, Trial};
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::{chown, symlink, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Output, Stdio};
use std::time::{Duration, Instant};

const LDSEAL: &str = env!("CARGO_BIN_EXE_ldseal");

type Outcome = Result<Completion, Failed>;

fn main() -> ExitCode {
    suite::prepare();
    type Test = fn(&Path) -> Outcome;
    let tests: [(&'static str, Test); 25] = [
        ("usage errors are status 2", usage),
        ("help says that children are not sealed", help),
        ("a program that is not there is status 127", not_found),
        ("a program that may not be executed is status 126", not_executable),
        ("noexec mounts are honoured", noexec_mount),
        ("unreadable programs are refused", unreadable),
        ("other sorts of ELF file are refused by name", other_sorts),
        ("setuid programs are refused", setuid),
        ("setgid programs are refused", setgid),
        ("setuid programs run where the bit has no effect", setuid_without_effect),
        ("programs with capabilities are refused", capabilities),
        ("programs are searched for in PATH", search),
        ("scripts run as the kernel runs them", scripts),
        ("scripts nest as deep as the kernel allows", nesting),
        ("broken scripts are status 126 or 127", broken_scripts),
        ("the environment is untouched", environment),
        ("names and arguments are those of a direct start", names),
        ("signal dispositions and descriptors are those of a direct start", inherited),
        ("exit statuses and signals come through", statuses),
        ("a copied ldseal finds its interpreter", copied),
        ("report: an ordinary process", report_ordinary),
        ("report: a sealed mapping", report_sealed),
        ("report: a program started for it", report_started),
        ("report: a program that runs", report_running),
        ("report: tunables are reasons", report_tunables),
    ];
    let trials =
        tests.into_iter().map(|(name, test)| Trial::ignorable_test(name, move || test(&folder(name)?))).collect();
    suite::run(trials)
}

/// An empty folder of the test's own.
fn folder(name: &str) -> Result<PathBuf, Failed> {
    let name: String = name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("launcher").join(name);
    if folder.exists() {
        fs::remove_dir_all(&folder)?;
    }
    fs::create_dir_all(&folder)?;
    Ok(folder)
}

/// A command in `folder`, free of what in this process's environment would decide the outcome.
fn command(program: impl AsRef<OsStr>, folder: &Path) -> Command {
    let mut command = Command::new(program);
    command.current_dir(folder).env_remove("GLIBC_TUNABLES").env_remove("RUST_LOG").env("LC_ALL", "C");
    command
}

fn ldseal(folder: &Path, arguments: &[&str]) -> Result<Output, Failed> {
    Ok(command(LDSEAL, folder).args(arguments).output()?)
}

fn run(folder: &Path, program: &str) -> Result<Output, Failed> {
    ldseal(folder, &["run", program])
}

fn check(holds: bool, otherwise: impl FnOnce() -> String) -> Result<(), Failed> {
    if holds {
        Ok(())
    } else {
        Err(otherwise().into())
    }
}

/// The launcher refused: nothing on stdout, this status, and one line that holds `words`.
fn refused(output: &Output, status: i32, words: &str) -> Result<(), Failed> {
    let stderr = String::from_utf8_lossy(&output.stderr);
    let as_expected = output.status.code() == Some(status)
        && output.stdout.is_empty()
        && stderr.starts_with("ldseal: ")
        && stderr.lines().count() == 1
        && stderr.contains(words);
    check(as_expected, || format!("expected status {status} and {words:?}, got {output:?}"))
}

/// The same program, started directly and by the launcher: same output, same status.
fn same(folder: &Path, program: &str, arguments: &[&str]) -> Result<(), Failed> {
    let direct = command(program, folder).args(arguments).output()?;
    let mut launched = vec!["run", "--", program];
    launched.extend(arguments);
    let launched = ldseal(folder, &launched)?;
    check(direct == launched, || format!("{program} {arguments:?}: directly {direct:?}, launched {launched:?}"))
}

/// Writes a file that can be executed at once. A child does it: a descriptor of this process could be open for writing in
/// a child that another thread has just forked, and the kernel executes no such file (ETXTBSY).
fn write(path: &Path, content: impl AsRef<[u8]>, mode: u32) -> Result<(), Failed> {
    let mut child = Command::new("sh")
        .args(["-c", "cat > \"$1\" && chmod \"$2\" \"$1\"", "sh"])
        .arg(path)
        .arg(format!("{mode:o}"))
        .stdin(Stdio::piped())
        .spawn()?;
    if let Some(mut input) = child.stdin.take() {
        input.write_all(content.as_ref())?;
    }
    let status = child.wait()?;
    check(status.success(), || format!("writing {}: {status}", path.display()))
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn skip(reason: impl Into<String>) -> Outcome {
    Ok(Completion::ignored_with(reason.into()))
}

const DONE: Outcome = Ok(Completion::Completed);

fn usage(folder: &Path) -> Outcome {
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

fn help(folder: &Path) -> Outcome {
    for arguments in [&["--help"][..], &["run", "--help"]] {
        let output = ldseal(folder, arguments)?;
        let text = String::from_utf8_lossy(&output.stdout);
        check(output.status.success() && text.contains("not sealed") || text.contains("are not)"), || {
            format!("{output:?}")
        })?;
    }
    DONE
}

fn not_found(folder: &Path) -> Outcome {
    refused(&run(folder, "no-such-program")?, 127, "no-such-program: command not found")?;
    refused(&run(folder, "./no-such-program")?, 127, "./no-such-program: No such file or directory")?;
    refused(&run(folder, "")?, 127, "command not found")?;
    symlink("nowhere", folder.join("dangling"))?;
    refused(&run(folder, "./dangling")?, 127, "No such file or directory")?;
    DONE
}

fn not_executable(folder: &Path) -> Outcome {
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

fn noexec_mount(folder: &Path) -> Outcome {
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

fn unreadable(folder: &Path) -> Outcome {
    if is_root() {
        return skip("is about ordinary users: root can read everything");
    }
    write(&folder.join("program"), fs::read("/bin/true")?, 0o111)?;
    refused(&run(folder, "./program")?, 126, "can't be read")?;
    DONE
}

/// A file that begins as an ELF file does and has one program header: PT_INTERP, or PT_LOAD without an interpreter.
fn elf(class: u8, machine: u16, interpreter: &str) -> Vec<u8> {
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

fn other_sorts(folder: &Path) -> Outcome {
    const X86_64: u16 = 62;
    let glibc = "/lib64/ld-linux-x86-64.so.2";
    for (content, words) in [
        (elf(2, X86_64, ""), "a static program, it has no dynamic interpreter"),
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

fn setuid(folder: &Path) -> Outcome {
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

fn setgid(folder: &Path) -> Outcome {
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

fn setuid_without_effect(folder: &Path) -> Outcome {
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

fn capabilities(folder: &Path) -> Outcome {
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

fn search(folder: &Path) -> Outcome {
    for (directory, mode) in [("first", 0o644), ("second", 0o755)] {
        fs::create_dir(folder.join(directory))?;
        write(&folder.join(directory).join("program"), format!("#!/bin/echo {directory}\n"), mode)?;
    }
    fs::create_dir_all(folder.join("zeroth").join("program"))?;
    write(&folder.join("program"), "#!/bin/echo here\n", 0o755)?;
    for (path, expected) in [
        ("/nonexistent:zeroth:first:second", "second second/program\n"),
        ("second:first", "second second/program\n"),
        ("first::second", "here ./program\n"),
        ("second/", "second second/program\n"),
        (":", "here ./program\n"),
    ] {
        let output = command(LDSEAL, folder).args(["run", "program"]).env("PATH", path).output()?;
        check(output.stdout == expected.as_bytes() && output.status.success(), || format!("PATH={path}: {output:?}"))?;
    }
    let output = command(LDSEAL, folder).args(["run", "echo", "found"]).env_remove("PATH").output()?;
    check(output.stdout == b"found\n", || format!("without PATH: {output:?}"))?;
    DONE
}

fn scripts(folder: &Path) -> Outcome {
    symlink("/usr/bin/printf", folder.join("relative"))?;
    let long_argument = format!("#!/usr/bin/printf [%s]{}\n", "x".repeat(300));
    for content in [
        &b"#!/bin/echo\n"[..],
        b"#!/bin/echo",
        b"#!/bin/echo ",
        b"#! \t /bin/echo\t one  two \t\nthree\n",
        b"#!/usr/bin/printf [%s]\n",
        b"#!/usr/bin/printf [%s]",
        b"#!relative [%s]\n",
        b"#!./relative [%s]\r\n",
        b"#!/bin/echo\0 one\n",
        b"#!/bin/echo one\0two\n",
        b"#!/bin/sh\necho \"$0\" \"$@\"; exit 7\n",
        b"#!/bin/sh -e\nfalse\necho not reached\n",
        b"echo no line \"$0\" \"$@\"\n",
        b"#!\necho empty line \"$0\" \"$@\"\n",
        b"",
        long_argument.as_bytes(),
    ] {
        write(&folder.join("script"), content, 0o755)?;
        for program in ["./script", "script"] {
            for arguments in [&[][..], &["a", "b c", "", "-x"]] {
                // env uses execvp, which gives files that the kernel refuses to a shell.
                let with_path = |program: &str| {
                    let mut command = command(program, folder);
                    command.env("PATH", ".:/usr/bin:/bin");
                    command
                };
                let direct = with_path("/usr/bin/env").arg(program).args(arguments).output()?;
                let launched = with_path(LDSEAL).args(["run", program]).args(arguments).output()?;
                check(direct == launched, || format!("{content:?}: directly {direct:?}, launched {launched:?}"))?;
            }
        }
    }
    DONE
}

fn nesting(folder: &Path) -> Outcome {
    write(&folder.join("s0"), "#!/bin/echo\n", 0o755)?;
    for depth in 1..=6 {
        write(&folder.join(format!("s{depth}")), format!("#!./s{} {depth}\n", depth - 1), 0o755)?;
    }
    for depth in 0..=6 {
        let program = format!("./s{depth}");
        match command(&program, folder).arg("x").output() {
            Ok(_) => same(folder, &program, &["x"])?,
            Err(error) => {
                let launched = ldseal(folder, &["run", &program, "x"])?;
                check(error.raw_os_error() == Some(40), || format!("{program}: {error}"))?;
                refused(&launched, 126, "bad interpreter: Too many levels of symbolic links")?;
            }
        }
    }
    DONE
}

fn broken_scripts(folder: &Path) -> Outcome {
    for (line, status, words) in [
        ("#!/no/such/interpreter\n", 127, "/no/such/interpreter: bad interpreter: No such file or directory"),
        ("#!/etc\n", 126, "/etc: bad interpreter: Is a directory"),
        ("#!/etc/passwd\n", 126, "/etc/passwd: bad interpreter: Permission denied"),
        ("#!./script\n", 126, "bad interpreter: Too many levels of symbolic links"),
        ("#!", 127, "bad interpreter: No such file or directory"),
    ] {
        write(&folder.join("script"), line, 0o755)?;
        refused(&run(folder, "./script")?, status, words)?;
    }
    write(&folder.join("script"), "echo\0\n", 0o755)?;
    refused(&run(folder, "./script")?, 126, "cannot execute binary file: Exec format error")?;
    write(&folder.join("static"), elf(2, 62, ""), 0o755)?;
    write(&folder.join("script"), "#!./static\n", 0o755)?;
    refused(&run(folder, "./script")?, 126, "./static: can't be sealed: a static program")?;
    DONE
}

fn environment(folder: &Path) -> Outcome {
    let variables = [
        ("GLIBC_TUNABLES", "glibc.malloc.check=0:nonsense"),
        ("LD_LIBRARY_PATH", "/nonexistent"),
        ("EMPTY", ""),
        ("NEWLINE", "a\nb"),
        ("PATH", "/usr/bin:/bin"),
    ];
    for level in ["0", "1", "2"] {
        let direct = command("env", folder).arg("-0").envs(variables).output()?;
        let launched = command(LDSEAL, folder).args(["run", "--seal", level, "env", "-0"]).envs(variables).output()?;
        check(direct == launched, || format!("level {level}: directly {direct:?}, launched {launched:?}"))?;
    }
    let program = "import os; e = open('/proc/self/environ','rb').read(); print(e == b''.join(k + b'=' + v + b'\\0' for k, v in os.environb.items()))";
    if find_command("python3").is_some() {
        same(folder, "python3", &["-c", program])?;
    }
    DONE
}

fn names(folder: &Path) -> Outcome {
    write(&folder.join("-cat"), fs::read("/bin/cat")?, 0o755)?;
    write(&folder.join("a name of more than fifteen letters"), fs::read("/bin/cat")?, 0o755)?;
    for file in ["/proc/self/cmdline", "/proc/self/comm"] {
        same(folder, "cat", &[file])?;
        same(folder, "/bin/cat", &[file])?;
        same(folder, "./-cat", &["--", file])?;
        same(folder, "./a name of more than fifteen letters", &[file])?;
        let path = format!(".:{}", std::env::var("PATH")?);
        let mut direct = command("/bin/cat", folder);
        std::os::unix::process::CommandExt::arg0(&mut direct, "-cat");
        let direct = direct.arg("/proc/self/cmdline").output()?;
        let launched =
            command(LDSEAL, folder).args(["run", "--", "-cat", "/proc/self/cmdline"]).env("PATH", path).output()?;
        check(direct == launched, || format!("directly {direct:?}, launched {launched:?}"))?;
    }
    same(folder, "sh", &["-c", "echo $0"])?;
    // A process that runs a script is named after the script.
    write(&folder.join("script"), "#!/bin/cat /proc/self/comm\n", 0o755)?;
    same(folder, "./script", &[])?;
    // Text that is no script for the kernel is run by a process that is named after the shell.
    write(&folder.join("text"), "cat /proc/$$/comm; tr '\\0' '|' < /proc/$$/cmdline", 0o755)?;
    write(&folder.join("by-text"), "#!./text\necho \"$0\" \"$@\"\n", 0o755)?;
    for program in ["./text", "./by-text"] {
        let direct = command("env", folder).args([program, "a"]).output()?;
        let launched = ldseal(folder, &["run", program, "a"])?;
        check(direct == launched, || format!("directly {direct:?}, launched {launched:?}"))?;
    }
    DONE
}

fn inherited(folder: &Path) -> Outcome {
    for setting in ["", "trap '' PIPE HUP;", "exec 0<&-;", "exec 0<&- 2>&-;", "ulimit -c 0; umask 027;"] {
        // A pipe of its own for stdin, so that both see the same descriptors; the numbers of pipes differ by nature.
        let watch = "grep -E '^(Sig(Blk|Ign|Cgt)|Umask)' /proc/self/status; ls /proc/self/fd";
        let direct = command("sh", folder).args(["-c", &format!("{setting} exec sh -c \"{watch}\"")]).output()?;
        let script = format!("{setting} exec {LDSEAL} run sh -c \"{watch}\"");
        let launched = command("sh", folder).args(["-c", &script]).output()?;
        check(direct == launched, || format!("{setting} directly {direct:?}, launched {launched:?}"))?;
    }
    DONE
}

fn statuses(folder: &Path) -> Outcome {
    for script in ["exit 0", "exit 3", "exit 126", "exit 255", "kill -TERM $$", "kill -SEGV $$", "kill -PIPE $$"] {
        same(folder, "sh", &["-c", script])?;
    }
    DONE
}

fn copied(folder: &Path) -> Outcome {
    let ldseal = folder.join("ldseal");
    write(&ldseal, fs::read(LDSEAL)?, 0o755)?;
    let output = command(&ldseal, folder).args(["run", "echo", "found"]).env("RUST_LOG", "ldseal=debug").output()?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    let from_memory = output.stdout == b"found\n" && stderr.contains("executing the interpreter from memory");
    check(from_memory, || format!("{output:?}"))?;
    // A file of that name that is something else is not run.
    write(&folder.join("ld-seal.so"), "#!/bin/echo wrong\n", 0o755)?;
    let output = command(&ldseal, folder).args(["run", "echo", "found"]).output()?;
    check(output.stdout == b"found\n" && output.stderr.is_empty(), || format!("{output:?}"))?;
    DONE
}

fn report(folder: &Path, arguments: &[&str]) -> Result<serde_json::Value, Failed> {
    let output = command(LDSEAL, folder).args(["report", "--json"]).args(arguments).output()?;
    check(output.status.success(), || format!("{output:?}"))?;
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// The regions of the objects whose name ends so.
fn regions<'a>(report: &'a serde_json::Value, name: &str) -> Vec<&'a serde_json::Value> {
    let objects = report["objects"].as_array().into_iter().flatten();
    let named = objects.filter(|object| object["name"].as_str().is_some_and(|full| full.ends_with(name)));
    named.flat_map(|object| object["regions"].as_array().into_iter().flatten()).collect()
}

/// A program that waits; killed when this goes.
struct Sleeper(Child);

impl Sleeper {
    /// Starts it, and returns when it waits.
    fn start(command: &mut Command) -> Result<Sleeper, Failed> {
        let sleeper = Sleeper(command.spawn()?);
        let waits = || {
            let stat = fs::read_to_string(format!("/proc/{}/stat", sleeper.pid())).unwrap_or_default();
            stat.contains(" (sleep) S ")
        };
        let end = Instant::now() + Duration::from_secs(10);
        while !waits() && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(sleeper)
    }

    fn pid(&self) -> String {
        self.0.id().to_string()
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn report_ordinary(folder: &Path) -> Outcome {
    let sleeper = Sleeper::start(command("sleep", folder).arg("60"))?;
    let report = report(folder, &[&sleeper.pid()])?;
    let tables = ldseal(folder, &["report", &sleeper.pid()])?;
    check(report["under_ld_seal"] == false && report["summary"]["sealed_bytes"] == 0, || report.to_string())?;
    let libc = regions(&report, "/libc.so.6");
    let kinds: Vec<_> = libc.iter().filter_map(|region| region["kind"].as_str()).collect();
    for kind in ["text", "rodata", "relro", "data"] {
        check(kinds.contains(&kind), || format!("no {kind} in {kinds:?}"))?;
    }
    check(libc.iter().all(|r| r["why_not"] == "not started under ld-seal.so"), || report.to_string())?;
    let text = String::from_utf8_lossy(&tables.stdout);
    check(text.contains("/libc.so.6 (library): 0 KiB of "), || text.to_string())?;
    check(text.contains("/proc/self/mem") && text.contains("MADV_GUARD_INSTALL"), || text.to_string())?;
    DONE
}

fn report_sealed(folder: &Path) -> Outcome {
    use rustix::mm::{mmap_anonymous, MapFlags, ProtFlags};
    // SAFETY: a new mapping, which nothing else refers to.
    let address = unsafe { mmap_anonymous(std::ptr::null_mut(), 3 * 4096, ProtFlags::READ, MapFlags::PRIVATE)? };
    let start = address as usize + 4096;
    match loader::sys::mseal(loader::addr::Addr(start)..loader::addr::Addr(start + 4096)) {
        Err(rustix::io::Errno::NOSYS) => return skip("this kernel has no mseal"),
        other => other?,
    }
    let report = report(folder, &[&std::process::id().to_string()])?;
    let anonymous = regions(&report, "[anonymous]");
    let ours = anonymous.iter().find(|region| region["start"] == format!("{start:#x}"));
    let sealed =
        ours.is_some_and(|region| region["sealed"] == true && region["size"] == 4096 && region["why_not"].is_null());
    check(sealed, || report.to_string())?;
    check(report["summary"]["sealed_bytes"] == 4096 && report["summary"]["sealed_mappings"] == 1, || {
        report.to_string()
    })?;
    DONE
}

fn report_started(folder: &Path) -> Outcome {
    for (level, writable) in [("0", false), ("1", false), ("2", true)] {
        let report = report(folder, &["--seal", level, "--", "cat", "/nonexistent"])?;
        check(report["level"] == level.parse::<u8>()? && report["under_ld_seal"] == true, || report.to_string())?;
        if report["kernel"]["mseal"] == false && level != "0" {
            return skip("this kernel has no mseal");
        }
        for object in ["/cat", "/libc.so.6"] {
            for region in regions(&report, object) {
                let expected =
                    level != "0" && (writable || !region["protections"].as_str().unwrap_or("").contains('w'));
                check(region["sealed"] == expected, || format!("level {level}: {region}"))?;
            }
        }
        let relro = regions(&report, "/libc.so.6").into_iter().filter(|region| region["kind"] == "relro");
        check(relro.clone().count() > 0, || report.to_string())?;
        check(relro.clone().all(|region| region["file"].is_null()), || "RELRO in file-backed memory".into())?;
    }
    let output = ldseal(folder, &["report", "--", "no-such-program"])?;
    refused(&output, 127, "command not found")?;
    DONE
}

fn report_running(folder: &Path) -> Outcome {
    for (level, seen) in [("0", serde_json::Value::Null), ("1", 1.into()), ("2", 2.into())] {
        let sleeper = Sleeper::start(command(LDSEAL, folder).args(["run", "--seal", level, "sleep", "60"]))?;
        let report = report(folder, &[&sleeper.pid()])?;
        if report["kernel"]["mseal"] == false {
            return skip("this kernel has no mseal");
        }
        let expected = report["level"] == seen && report["command"] == serde_json::json!(["sleep", "60"]);
        check(expected, || format!("level {level}: {report}"))?;
        let text = regions(&report, "/sleep").into_iter().find(|region| region["kind"] == "text");
        check(text.is_some_and(|text| text["sealed"] == (level != "0")), || report.to_string())?;
    }
    DONE
}

fn report_tunables(folder: &Path) -> Outcome {
    let tunables = "ldseal.exclude=*/libc.so*:ldseal.vdso=0:ldseal.data=0:glibc.rtld.seal=2";
    let mut command = command(LDSEAL, folder);
    let output = command.args(["report", "--json", "--", "cat"]).env("GLIBC_TUNABLES", tunables).output()?;
    check(output.status.success(), || format!("{output:?}"))?;
    let report: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    check(report["level"] == 2 && report["level_source"] == "GLIBC_TUNABLES", || report.to_string())?;
    if report["kernel"]["mseal"] == false {
        return skip("this kernel has no mseal");
    }
    let because = |object: &str, kind: &str, reason: &str| {
        let region = regions(&report, object).into_iter().find(|region| region["kind"] == kind);
        let said = region.and_then(|region| region["why_not"].as_str()).unwrap_or_default();
        check(said.contains(reason), || format!("{object} {kind}: {region:?}"))
    };
    because("/libc.so.6", "text", "ldseal.exclude=*/libc.so*")?;
    because("/cat", "data", "ldseal.data=0")?;
    because("[stack]", "stack", "never sealed")?;
    if report["kernel"]["seals_system_mappings"] == false {
        because("[vdso]", "vdso", "ldseal.vdso=0")?;
    }
    DONE
}
