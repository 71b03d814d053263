//! Programs that are run: as a direct start by the kernel, a shell or execvp(3) runs them.

use crate::refusals::elf;
use crate::support::{check, command, ldseal, refused, run, same, write, Outcome, DONE, LDSEAL};
use conformance::requirement::find_command;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

pub fn search(folder: &Path) -> Outcome {
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

pub fn scripts(folder: &Path) -> Outcome {
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

pub fn nesting(folder: &Path) -> Outcome {
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

pub fn broken_scripts(folder: &Path) -> Outcome {
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
    refused(&run(folder, "./script")?, 126, "./static: can't be sealed: a library, not a program")?;
    DONE
}

pub fn environment(folder: &Path) -> Outcome {
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

pub fn names(folder: &Path) -> Outcome {
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

pub fn inherited(folder: &Path) -> Outcome {
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

pub fn statuses(folder: &Path) -> Outcome {
    for script in ["exit 0", "exit 3", "exit 126", "exit 255", "kill -TERM $$", "kill -SEGV $$", "kill -PIPE $$"] {
        same(folder, "sh", &["-c", script])?;
    }
    DONE
}

pub fn copied(folder: &Path) -> Outcome {
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
