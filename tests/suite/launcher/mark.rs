//! `ldseal mark`: files that are marked work as before, under the system's loader too, and are left open.

use crate::support::{check, command, ldseal, Outcome, DONE, LDSEAL};
use conformance::requirement::find_command;
use libtest_mimic::Failed;
use std::fs;
use std::os::unix::fs::{symlink, MetadataExt, PermissionsExt};
use std::path::Path;

/// Programs of the system, with arguments whose output is compared.
const PROGRAMS: [(&str, &[&str]); 6] = [
    ("true", &[]),
    ("ls", &["--version"]),
    ("/usr/bin/python3", &["-c", "import math; print(math.pi)"]),
    ("perl", &["-e", "print 6 * 7"]),
    ("git", &["--version"]),
    ("gdb", &["--version"]),
];

/// Ways to link a program that leave more or less room in the file.
const LINKED: [(&str, &[&str]); 9] = [
    ("pie", &["-pie"]),
    ("no-pie", &["-no-pie"]),
    ("one-text", &["-pie", "-Wl,-z,noseparate-code"]),
    ("one-text-no-pie", &["-no-pie", "-Wl,-z,noseparate-code"]),
    ("no-notes", &["-pie", "-Wl,--build-id=none"]),
    ("stripped", &["-pie", "-s"]),
    ("huge-pages", &["-pie", "-Wl,-z,max-page-size=0x200000"]),
    ("static", &["-static"]),
    ("static-pie", &["-static-pie"]),
];

const SOURCE: &str = r#"
#include <stdio.h>
#include <stdlib.h>
#include <link.h>
int twice(int);
static char large[1 << 20];
static _Thread_local int local = 20;
static int count(struct dl_phdr_info *info, size_t size, void *data) { return info->dlpi_phnum == 0; }
int main(void) {
    char *heap = malloc(100000);
    heap[99999] = 1;
    printf("%d %d %d %d\n", twice(local) + 2, large[12345], heap[99999], dl_iterate_phdr(count, 0));
    return 0;
}
"#;

/// Copies a file that is to be executed. A child does it: a descriptor of this process could be open for writing in a child of another
/// thread, and the kernel executes no such file.
fn copied(folder: &Path, from: &Path, to: &Path) -> Result<(), Failed> {
    let output = command("cp", folder).arg(from).arg(to).output()?;
    check(output.status.success(), || format!("{output:?}"))
}

/// Whether the plan of a program leaves all of the object with this name open by its note.
fn opts_out(folder: &Path, program: &Path, level: &str, object: &str) -> Result<bool, Failed> {
    let output = command(LDSEAL, folder).args(["plan", "--json", "--seal", level]).arg(program).output()?;
    let plan: serde_json::Value = serde_json::from_slice(&output.stdout)
        .map_err(|e| format!("{}: {e}: {}", program.display(), String::from_utf8_lossy(&output.stderr)))?;
    let objects = plan["objects"].as_array().ok_or("no objects")?;
    let named = |o: &&serde_json::Value| o["name"].as_str().is_some_and(|n| n.ends_with(object));
    let found = objects.iter().find(named).ok_or(format!("no {object} in {plan}"))?;
    let parts = found["parts"].as_array().ok_or("no parts")?;
    let overruled = found["opt_out_overruled"] == true;
    check(overruled == (level == "2"), || format!("overruled at level {level}: {found}"))?;
    Ok(parts.iter().all(|part| part["why_not"] == "its own note (ldseal mark)"))
}

/// Marks a program and compares what it does before and after, directly and under ld-seal.so.
fn marked(folder: &Path, program: &Path, arguments: &[&str]) -> Result<(), Failed> {
    let name = program.display();
    let run = |words: &[&str]| {
        let mut words: Vec<&std::ffi::OsStr> = words.iter().map(|w| w.as_ref()).collect();
        words.push(program.as_os_str());
        Ok::<_, Failed>(command(words[0], folder).args(&words[1..]).args(arguments).output()?)
    };
    let before = run(&[])?;
    let (mode, owner) = (fs::metadata(program)?.permissions(), fs::metadata(program)?.uid());
    let path = program.to_string_lossy();
    let output = ldseal(folder, &["mark", "--no-seal", &path])?;
    check(output.status.success() && output.stdout.is_empty() && output.stderr.is_empty(), || {
        format!("{name}: {output:?}")
    })?;
    check((fs::metadata(program)?.permissions(), fs::metadata(program)?.uid()) == (mode, owner), || {
        format!("{name}: mode")
    })?;
    check(run(&[])? == before, || format!("{name}: {:?}, before {before:?}", run(&[])))?;
    for level in ["1", "2"] {
        let launched = run(&[LDSEAL, "run", "--seal", level])?;
        check(launched == before, || format!("{name} at level {level}: {launched:?}, before {before:?}"))?;
    }
    let base = program.file_name().unwrap_or_default().to_string_lossy();
    check(opts_out(folder, program, "1", &base)?, || format!("{name}: is sealed at level 1"))?;
    check(!opts_out(folder, program, "2", &base)?, || format!("{name}: is open at level 2"))?;
    let shown = ldseal(folder, &["mark", "--show", &path])?;
    check(shown.stdout == format!("{path}: no-seal\n").into_bytes(), || format!("{shown:?}"))?;
    let once_more = fs::read(program)?;
    ldseal(folder, &["mark", "--no-seal", &path])?;
    check(fs::read(program)? == once_more, || format!("{name}: marked twice"))?;
    let cleared = ldseal(folder, &["mark", "--clear", &path])?;
    let shown = ldseal(folder, &["mark", "--show", &path])?;
    check(cleared.status.success() && shown.stdout == format!("{path}: none\n").into_bytes(), || format!("{shown:?}"))?;
    check(run(&[])? == before, || format!("{name}: cleared"))
}

/// Programs of the system and programs linked in many ways, with a library.
pub fn programs(folder: &Path) -> Outcome {
    for (name, arguments) in PROGRAMS {
        let is_elf = |path: &std::path::PathBuf| fs::read(path).is_ok_and(|bytes| bytes.starts_with(b"\x7fELF"));
        let Some(found) = find_command(name).filter(is_elf) else { continue };
        let copy = folder.join(Path::new(name).file_name().unwrap_or_default());
        copied(folder, &fs::canonicalize(found)?, &copy)?;
        marked(folder, &copy, arguments)?;
    }
    fs::write(folder.join("main.c"), SOURCE)?;
    fs::write(folder.join("twice.c"), "int twice(int n) { return 2 * n; }")?;
    for (name, flags) in LINKED {
        let output = command("cc", folder)
            .args(["-O1", "-w", "-D_GNU_SOURCE", "-o", name, "main.c", "twice.c"])
            .args(flags)
            .output()?;
        check(output.status.success(), || format!("{name}: {output:?}"))?;
        marked(folder, &folder.join(name), &[])?;
    }
    DONE
}

/// Libraries, with room for a note and without, with and without notes of their own.
pub fn libraries(folder: &Path) -> Outcome {
    fs::write(folder.join("main.c"), SOURCE)?;
    fs::write(folder.join("twice.c"), "static int large[1 << 18]; int twice(int n) { return 2 * n + large[9]; }")?;
    for (index, flags) in [
        &[][..],
        &["-Wl,-z,noseparate-code"],
        &["-Wl,-z,noseparate-code", "-Wl,--build-id=none", "-nostdlib"],
        &["-Wl,--build-id=none", "-nostdlib"],
        &["-Wl,-z,max-page-size=0x200000", "-s"],
    ]
    .into_iter()
    .enumerate()
    {
        let (library, program) = (format!("libtwice{index}.so"), format!("main{index}"));
        let shared = ["-shared", "-fPIC", "-o", &library, "twice.c"];
        let linked = ["-w", "-D_GNU_SOURCE", "-o", &program, "main.c", &library, "-Wl,-rpath,$ORIGIN"];
        for words in [[&shared[..], flags].concat(), linked.to_vec()] {
            let output = command("cc", folder).args(words).output()?;
            check(output.status.success(), || format!("{output:?}"))?;
        }
        let program = folder.join(&program);
        let before = command(&program, folder).output()?;
        let output = ldseal(folder, &["mark", "--no-seal", &library])?;
        check(output.status.success(), || format!("{flags:?}: {output:?}"))?;
        for level in ["0", "1", "2"] {
            let launched = command(LDSEAL, folder).args(["run", "--seal", level]).arg(&program).output()?;
            check(launched == before, || format!("{flags:?} at level {level}: {launched:?}"))?;
        }
        check(command(&program, folder).output()? == before, || format!("{flags:?}: under the system's loader"))?;
        check(opts_out(folder, &program, "1", &library)?, || format!("{flags:?}: is sealed at level 1"))?;
        check(!opts_out(folder, &program, "2", &library)?, || format!("{flags:?}: is open at level 2"))?;
    }
    DONE
}

/// What can't be marked is refused and stays as it was; a link leads to its file.
pub fn files(folder: &Path) -> Outcome {
    fs::write(folder.join("text"), "#!/bin/sh\n")?;
    for (file, words) in
        [("text", "not a program or library"), ("nothing", "No such file"), (".", "not a regular file")]
    {
        let output = ldseal(folder, &["mark", "--no-seal", file])?;
        let stderr = String::from_utf8_lossy(&output.stderr);
        let refused = output.status.code() == Some(1)
            && stderr.starts_with(&format!("ldseal: {file}: "))
            && stderr.contains(words);
        check(refused, || format!("{file}: {output:?}"))?;
    }
    copied(folder, Path::new("/bin/true"), &folder.join("program"))?;
    fs::set_permissions(folder.join("program"), fs::Permissions::from_mode(0o751))?;
    symlink("program", folder.join("link"))?;
    let output = ldseal(folder, &["mark", "--no-seal", "link"])?;
    check(output.status.success() && folder.join("link").is_symlink(), || format!("{output:?}"))?;
    let shown = ldseal(folder, &["mark", "--show", "program", "/bin/true"])?;
    check(shown.stdout == b"program: no-seal\n/bin/true: none\n", || format!("{shown:?}"))?;
    let left: Vec<_> = fs::read_dir(folder)?.flatten().map(|e| e.file_name()).collect();
    check(left.len() == 3, || format!("files are left behind: {left:?}"))?;
    DONE
}
