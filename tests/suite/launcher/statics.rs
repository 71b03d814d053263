//! Static programs under the loader: as in a direct start, with text and read-only data sealed.

use crate::support::{check, command, ldseal, same, skip, write, Outcome, DONE, LDSEAL};
use conformance::attack::mseal;
use conformance::requirement::unmet;
use libtest_mimic::Failed;
use std::path::Path;
use std::process::Output;

const SOURCE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/sealing/statics/program.c");
const INTERPRETER: &str = env!("LDSEAL_INTERPRETER");
const MUSL: &str = "/usr/lib/x86_64-linux-musl";

/// Starts a program in the ways that map it, and compares with a direct start.
fn as_direct(folder: &Path, name: &str, arguments: &[&str]) -> Result<(), Failed> {
    let program = format!("./{name}");
    let direct = command(&program, folder).args(arguments).output()?;
    check(!direct.stdout.is_empty(), || format!("{name}: {direct:?}"))?;
    for level in ["0", "1", "2"] {
        let launched = [&["run", "--seal", level, "--", &program][..], arguments].concat();
        let launched = ldseal(folder, &launched)?;
        check(direct == launched, || format!("{name} at level {level}: directly {direct:?}, launched {launched:?}"))?;
        let mut invoked = command(INTERPRETER, folder);
        let invoked = invoked.args(["--seal", level, &program]).args(arguments).output()?;
        check(direct == invoked, || format!("{name} at level {level}: directly {direct:?}, invoked {invoked:?}"))?;
    }
    Ok(())
}

/// What the program says about its own memory must be so at each level.
fn attacked(folder: &Path, name: &str) -> Result<(), Failed> {
    if mseal::probe().is_err() {
        return Ok(());
    }
    let program = format!("./{name}");
    let lines = |output: &Output, expected: [&str; 4]| {
        let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
        let wanted = ["text", "rodata", "data", "vdso"].iter().zip(expected).map(|(what, e)| format!("{what}: {e}\n"));
        let missing: Vec<String> = wanted.filter(|line| !stdout.contains(line)).collect();
        check(missing.is_empty() && output.status.code() == Some(3), || format!("{name}: not {missing:?}: {output:?}"))
    };
    for (level, expected) in
        [("0", ["ok"; 4]), ("1", ["EPERM", "EPERM", "ok", "EPERM"]), ("2", ["EPERM", "EPERM", "ok", "EPERM"])]
    {
        lines(&ldseal(folder, &["run", "--seal", level, &program, "attack"])?, expected)?;
    }
    let invoked = command(INTERPRETER, folder).args(["--seal", "2", &program, "attack"]).output()?;
    lines(&invoked, ["EPERM", "EPERM", "ok", "EPERM"])?;
    let excluded = command(LDSEAL, folder)
        .args(["run", &program, "attack"])
        .env("GLIBC_TUNABLES", format!("glibc.rtld.seal=2:ldseal.exclude=*{name}"))
        .output()?;
    lines(&excluded, ["ok", "ok", "ok", "EPERM"])
}

fn built(folder: &Path, compiler: &str, name: &str, flags: &[&str]) -> Result<(), Failed> {
    let mut command = command(compiler, folder);
    let output = command.args(["-O1", "-w", "-D_GNU_SOURCE", "-pthread", "-o", name]).args(flags).output()?;
    check(output.status.success(), || format!("{name}: {output:?}"))
}

fn checked(folder: &Path, name: &str) -> Result<(), Failed> {
    as_direct(folder, name, &[])?;
    attacked(folder, name)
}

/// Programs with glibc.
pub fn glibc(folder: &Path) -> Outcome {
    if let Some(reason) = unmet("/usr/lib/x86_64-linux-gnu/libc.a") {
        return skip(reason);
    }
    for (name, flags) in [
        ("static", &["-static", "-DIFUNC"][..]),
        ("static-pie", &["-static-pie", "-fPIE", "-DIFUNC"]),
        ("static-stripped", &["-static", "-s"]),
        ("static-no-relro", &["-static", "-Wl,-z,norelro"]),
        ("static-large-pages", &["-static", "-Wl,-z,max-page-size=0x200000"]),
        ("static-executable-stack", &["-static", "-Wl,-z,execstack", "-DEXECUTABLE_STACK"]),
        ("static-pie-executable-stack", &["-static-pie", "-fPIE", "-Wl,-z,execstack", "-DEXECUTABLE_STACK"]),
    ] {
        built(folder, "cc", name, &[&[SOURCE], flags].concat())?;
        checked(folder, name)?;
    }
    DONE
}

/// Programs with musl.
pub fn musl(folder: &Path) -> Outcome {
    if let Some(reason) = unmet("musl-gcc") {
        return skip(reason);
    }
    built(folder, "musl-gcc", "musl", &[SOURCE, "-static"])?;
    checked(folder, "musl")?;
    // The compiler's wrapper knows no static PIE.
    let start = format!("{MUSL}/rcrt1.o");
    let (first, last) = (format!("{MUSL}/crti.o"), format!("{MUSL}/crtn.o"));
    let flags =
        ["-fPIE", "-static", "-nostartfiles", "-Wl,-pie,--no-dynamic-linker,-z,text", &start, &first, SOURCE, &last];
    built(folder, "musl-gcc", "musl-pie", &flags)?;
    checked(folder, "musl-pie")?;
    DONE
}

/// Programs of Go, whose start-up is no C library's.
pub fn go(folder: &Path) -> Outcome {
    if let Some(reason) = unmet("go") {
        return skip(reason);
    }
    const PROGRAM: &str = "package main\n\
        import (\"fmt\"; \"os\"; \"runtime\"; \"sync\")\n\
        func main() { var w sync.WaitGroup; c := make(chan int, 100)\n\
        for i := 0; i < 100; i++ { w.Add(1); go func(i int) { c <- len(make([]byte, i<<12)); w.Done() }(i) }\n\
        w.Wait(); runtime.GC(); s := 0; for i := 0; i < 100; i++ { s += <-c }; fmt.Println(s, os.Args); os.Exit(3) }\n";
    write(&folder.join("main.go"), PROGRAM, 0o644)?;
    for (name, mode) in [("go", "exe"), ("go-pie", "pie")] {
        let mut command = command("go", folder);
        command.env("CGO_ENABLED", "0").env("GOCACHE", folder.with_file_name("go-cache")).env("GOFLAGS", "");
        let output = command.args(["build", "-buildmode", mode, "-o", name, "main.go"]).output()?;
        check(output.status.success(), || format!("{output:?}"))?;
        as_direct(folder, name, &["a", "b"])?;
    }
    DONE
}

/// A static shell, which forks and executes, as program and as the interpreter of a script.
pub fn busybox(folder: &Path) -> Outcome {
    if let Some(reason) = unmet("/bin/busybox") {
        return skip(reason);
    }
    // It would start its own commands through /proc/self/exe, which is another: so only those of others, and what it does itself.
    let script = "for i in 1 2 3; do echo $i; done | /bin/cat -n; (exit 4); echo $?; read line < $0; echo $line $1\n\
                  read name < /proc/$$/comm; echo $name";
    same(folder, "/bin/busybox", &["sh", "-c", "for i in 1 2 3; do echo $i; done; /bin/echo hello"])?;
    write(&folder.join("script"), format!("#!/bin/busybox sh\n{script}\n"), 0o755)?;
    same(folder, "./script", &["a"])?;
    DONE
}

/// What `plan` and `report` say of a static program agrees with each other.
pub fn shown(folder: &Path) -> Outcome {
    if let Some(reason) = unmet("/usr/lib/x86_64-linux-gnu/libc.a") {
        return skip(reason);
    }
    built(folder, "cc", "program", &[SOURCE, "-static"])?;
    let json = |words: &[&str]| -> Result<serde_json::Value, Failed> {
        let output = ldseal(folder, words)?;
        check(output.status.success(), || format!("{output:?}"))?;
        Ok(serde_json::from_slice(&output.stdout)?)
    };
    let plan = json(&["plan", "--json", "./program"])?;
    let report = json(&["report", "--json", "--", "./program"])?;
    let sum = |list: &serde_json::Value, size: &str| -> u64 {
        let sealed = |part: &&serde_json::Value| part["sealed"] == true;
        list.as_array().into_iter().flatten().filter(sealed).filter_map(|part| part[size].as_u64()).sum()
    };
    let object = report["objects"].as_array().ok_or("no objects")?.iter().find(|o| o["role"] == "executable");
    let object = object.ok_or_else(|| format!("no executable in {report}"))?;
    let (planned, sealed) = (sum(&plan["objects"][0]["parts"], "size"), sum(&object["regions"], "size"));
    if mseal::probe().is_ok() {
        check(planned == sealed && sealed > 0, || format!("planned {planned}, sealed {sealed}: {object}"))?;
        let own = |r: &serde_json::Value| r["why_not"].as_str().is_some_and(|why| why.contains("static program"));
        check(object["regions"].as_array().into_iter().flatten().any(own), || object.to_string())?;
    }
    DONE
}
