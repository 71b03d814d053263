//! Starts under unusual conditions: a thousand in a row, other address space layouts, huge argument lists, an interpreter
//! that the linker put in, and a whole shell session in which `ld-seal.so` stands in the place of the system's loader.

use conformance::attack::trace::{End, Tracee};
use conformance::compare::difference;
use conformance::loader::{Start, SYSTEM};
use conformance::process::{capture, Ending, Outcome};
use conformance::{interp, requirement, suite, Level, Loader, Way};
use libtest_mimic::{Completion, Failed, Trial};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

type Checked = Result<Completion, Failed>;

fn cache() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("starts")
}

fn main() -> ExitCode {
    suite::prepare();
    match Loader::under_test(option_env!("LDSEAL_INTERPRETER"), env!("CARGO_BIN_EXE_ldseal")) {
        Ok(loader) => suite::run(trials(&loader)),
        Err(reason) => {
            eprintln!("starts: {reason}");
            ExitCode::FAILURE
        }
    }
}

fn trials(loader: &Loader) -> Vec<Trial> {
    let mut trials = Vec::new();
    let mut add = |name: String, check: Box<dyn FnOnce(&Loader) -> Checked + Send>| {
        let loader = loader.clone();
        trials.push(Trial::ignorable_test(name, move || check(&loader)));
    };
    for way in Way::ALL {
        add(format!("a thousand in a row {way}"), Box::new(move |l| a_thousand_in_a_row(l, way)));
        add(format!("many arguments {way}"), Box::new(move |l| many_arguments(l, way)));
        if way != Way::Run {
            add(format!("without vDSO {way}"), Box::new(move |l| without_vdso(l, way)));
        }
        for layout in LAYOUTS {
            add(format!("{} {way}", layout.join(" ")), Box::new(move |l| layout_of_the_address_space(l, way, layout)));
        }
    }
    add("interpreter put in by the linker".into(), Box::new(interpreter_of_the_linker));
    add("in place of the system's loader".into(), Box::new(|l| session(l, Level(1))));
    add("in place of the system's loader, enforced".into(), Box::new(|l| session(l, Level(2))));
    trials
}

/// The wrappers that change where the kernel puts things.
const LAYOUTS: [&[&str]; 4] = [
    &["setarch", "-R"],
    &["setarch", "-L"],
    &["prlimit", "--stack=unlimited:"],
    &["setarch", "-R", "-L", "prlimit", "--stack=unlimited:"],
];

const C_PROGRAM: &str = r#"
#include <stdio.h>
#include <string.h>
int main(int argc, char **argv, char **envp) {
    unsigned long sum = 0, count = 0;
    for (int i = 0; i < argc; i++) sum = sum * 31 + strlen(argv[i]);
    for (; envp[count]; count++) sum += strncmp(envp[count], "GLIBC_TUNABLES", 14) ? strlen(envp[count]) : 0;
    printf("%d arguments, %lx\n", argc, sum);
    return argc % 7;
}
"#;

/// The two programs that most checks start: position independent and not; the folder of them, and one where they name the loader under test.
fn programs(loader: &Loader, name: &str) -> Result<(PathBuf, PathBuf), String> {
    let folder = suite::scratch(&cache(), name)?;
    let (plain, replaced) = (folder.join("plain"), folder.join("replaced"));
    let failed = |e: std::io::Error| format!("{}: {e}", folder.display());
    fs::create_dir_all(&plain).map_err(failed)?;
    fs::write(plain.join("main.c"), C_PROGRAM).map_err(failed)?;
    for (out, flags) in [("pie", ["-pie", "-fPIE"]), ("fixed", ["-no-pie", "-fno-pie"])] {
        compile(&plain, &[&["-o", out, "main.c"], &flags[..]].concat())?;
    }
    interp::replaced_tree(&plain, &replaced, &loader.interpreter).map_err(failed)?;
    Ok((plain, replaced))
}

fn compile(folder: &Path, arguments: &[&str]) -> Result<(), String> {
    let output = capture(Command::new("cc").args(arguments).current_dir(folder), b"", Duration::from_secs(300));
    match output.map_err(|e| format!("cc: {e}"))? {
        Outcome { ending: Ending::Exit(0), .. } => Ok(()),
        outcome => Err(describe(&outcome)),
    }
}

/// What keeps a check from running here, or nothing.
fn missing(loader: &Loader, way: Way, needs: &[&str]) -> Option<Completion> {
    let reason = loader.missing(way).or_else(|| needs.iter().find_map(|need| requirement::unmet(need)));
    reason.map(Completion::ignored_with)
}

fn a_thousand_in_a_row(loader: &Loader, way: Way) -> Checked {
    if let Some(ignored) = missing(loader, way, &["cc"]) {
        return Ok(ignored);
    }
    let (plain, replaced) = programs(loader, &format!("thousand-{way}"))?;
    let expected = Start::new("./pie", &plain).reference(way, Level(1))?;
    let start = Start::new("./pie", if way == Way::Interp { &replaced } else { &plain });
    // HOME, which is part of the checksum, is the one difference that the two folders make.
    let start = Start { env: Start::new("./pie", &plain).env, ..start };
    for repetition in 1..=1000 {
        let got = start.tested(loader, way, Level(1))?;
        if let Some(difference) = difference(&expected, &got) {
            return Err(format!("start {repetition}:\n{difference}").into());
        }
    }
    Ok(Completion::Completed)
}

fn many_arguments(loader: &Loader, way: Way) -> Checked {
    if let Some(ignored) = missing(loader, way, &["cc"]) {
        return Ok(ignored);
    }
    let (plain, replaced) = programs(loader, &format!("arguments-{way}"))?;
    let tested = if way == Way::Interp { &replaced } else { &plain };
    for (count, length) in [(0, 0), (1, 100_000), (20_000, 3), (5000, 100)] {
        for program in ["./pie", "./fixed"] {
            let mut start = Start::new(program, &plain);
            start.args = (0..count).map(|i| format!("{i}{}", "a".repeat(length))).collect();
            start.env.insert("LARGE".into(), "x".repeat(length));
            start.env.extend((0..count / 10).map(|i| (format!("VARIABLE_{i}"), i.to_string())));
            let expected = start.reference(way, Level(1))?;
            let got = Start { directory: tested.clone(), ..start }.tested(loader, way, Level(1))?;
            if let Some(difference) = difference(&expected, &got) {
                return Err(format!("{program} with {count} arguments:\n{difference}").into());
            }
        }
    }
    Ok(Completion::Completed)
}

const CLOCK_PROGRAM: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <link.h>
#include <stdio.h>
#include <sys/auxv.h>
#include <sys/time.h>
#include <time.h>
static int count(struct dl_phdr_info *info, size_t size, void *names) {
    printf("object \"%s\"\n", info->dlpi_addr ? info->dlpi_name : "program at its own address");
    return 0;
}
int main(void) {
    struct timespec now, later;
    struct timeval day;
    int known = getauxval(AT_SYSINFO_EHDR) != 0;
    int failed = clock_gettime(CLOCK_MONOTONIC, &now) + gettimeofday(&day, 0) + clock_gettime(CLOCK_MONOTONIC, &later);
    int ordered = later.tv_sec > now.tv_sec || (later.tv_sec == now.tv_sec && later.tv_nsec >= now.tv_nsec);
    printf("vDSO %d, failures %d, ordered %d, year %d\n", known, failed, ordered, time(0) > 1600000000 && day.tv_sec > 1600000000);
    dl_iterate_phdr(count, 0);
    printf("opened %d\n", dlopen("libm.so.6", RTLD_NOW) != 0);
    return 9;
}
"#;

/// A kernel may pass no vDSO (`vdso=0`, some containers and emulators): here its entry of the auxiliary vector is taken away.
fn without_vdso(loader: &Loader, way: Way) -> Checked {
    if let Some(ignored) = missing(loader, way, &["cc"]) {
        return Ok(ignored);
    }
    let folder = suite::scratch(&cache(), &format!("vdso-{way}"))?;
    fs::write(folder.join("main.c"), CLOCK_PROGRAM)?;
    compile(&folder, &["-o", "clock", "main.c"])?;
    let replaced = folder.join("replaced");
    interp::replaced_copy(&folder.join("clock"), &replaced, &loader.interpreter)?;
    let run = |loader: &Path, program: &Path, level: Level, absent: bool| -> Result<(End, String), Failed> {
        let (mut command, out) = match way {
            Way::Interp => (Command::new(program), folder.join("out")),
            _ => (Command::new(loader), folder.join("out")),
        };
        if way != Way::Interp {
            command.arg("./clock");
        }
        command.current_dir(&folder).stdout(fs::File::create(&out)?).stderr(fs::File::create(folder.join("error"))?);
        command.env("GLIBC_TUNABLES", format!("glibc.rtld.seal={}", level.0));
        let mut tracee = Tracee::start(&mut command)?;
        if absent && !tracee.forget_auxiliary(libc::AT_SYSINFO_EHDR)? {
            return Err("this kernel passes no vDSO anyway".into());
        }
        let end = tracee.run()?;
        Ok((end, fs::read_to_string(&out)? + &fs::read_to_string(folder.join("error"))?))
    };
    let (system, plain) = (Path::new(SYSTEM), folder.join("clock"));
    // The objects have their loader's name.
    let comparable = |text: &str, own: &Path| text.replace(&*own.to_string_lossy(), "LOADER").replace(SYSTEM, "LOADER");
    for level in Level::ALL {
        for absent in [false, true] {
            let (end, text) = run(system, &plain, level, absent)?;
            let expected = format!("vDSO {}, failures 0, ordered 1, year 1", u8::from(!absent));
            if end != End::Exit(9) || !text.contains(&expected) {
                return Err(format!("under the system's loader: {end:?}\n{text}").into());
            }
            let (got_end, got) = run(&loader.interpreter, &replaced, level, absent)?;
            let (text, got) = (comparable(&text, system), comparable(&got, &loader.interpreter));
            if (end, &text) != (got_end, &got) {
                return Err(format!("{level}, absent {absent}: {end:?} and {got_end:?}\n{text}\n{got}").into());
            }
        }
    }
    Ok(Completion::Completed)
}

fn layout_of_the_address_space(loader: &Loader, way: Way, layout: &[&str]) -> Checked {
    if let Some(ignored) = missing(loader, way, &["cc", "setarch", "prlimit"]) {
        return Ok(ignored);
    }
    let (plain, replaced) = programs(loader, &format!("{}-{way}", layout.join("")))?;
    for level in Level::ALL {
        for program in ["./pie", "./fixed", "/bin/bash"] {
            let mut start = Start::new(program, &plain);
            start.wrapper = layout.iter().map(|w| w.to_string()).collect();
            start.args = ["-c", "echo started; ls / | sort | head -2"].map(String::from).into();
            let expected = start.reference(way, level)?;
            if expected.stdout.is_empty() {
                return Err(format!("{program} under the system's loader: {}", describe(&expected)).into());
            }
            if way == Way::Interp && program.starts_with('/') {
                start.program = replaced.join("bash");
                interp::replaced_copy(Path::new(program), &start.program, &loader.interpreter)?;
            }
            if way == Way::Interp {
                start.directory = replaced.clone();
            }
            for _ in 0..10 {
                let got = start.tested(loader, way, level)?;
                if let Some(difference) = difference(&expected, &got) {
                    return Err(format!("{program} {level}:\n{difference}").into());
                }
            }
        }
    }
    Ok(Completion::Completed)
}

fn interpreter_of_the_linker(loader: &Loader) -> Checked {
    if let Some(ignored) = missing(loader, Way::Interp, &["cc"]) {
        return Ok(ignored);
    }
    let (plain, _) = programs(loader, "linker")?;
    let flag = format!("-Wl,--dynamic-linker={}", loader.interpreter.display());
    for mode in [["-pie", "-fPIE"], ["-no-pie", "-fno-pie"]] {
        for (folder, flags) in [("system", vec![]), ("tested", vec![flag.as_str()])] {
            fs::create_dir_all(plain.join(folder))?;
            let out = format!("{folder}/main");
            compile(&plain, &[&["-o", &out, "main.c"], &mode[..], &flags].concat())?;
        }
        for level in Level::ALL {
            let mut start = Start::new("./main", plain.join("system"));
            start.args = vec!["x".into()];
            let expected = start.reference(Way::Interp, level)?;
            start.directory = plain.join("tested");
            if let Some(difference) = difference(&expected, &start.tested(loader, Way::Interp, level)?) {
                return Err(format!("{} {level}:\n{difference}", mode[0]).into());
            }
        }
    }
    Ok(Completion::Completed)
}

fn describe(outcome: &Outcome) -> String {
    format!("{}\n{}", outcome.ending, String::from_utf8_lossy(&outcome.stderr))
}

/// In a mount namespace of its own, the interpreter is mounted over the system's loader, and a shell session runs in which
/// everything that is started is started by it. The same session without the mount says what must come out.
fn session(loader: &Loader, level: Level) -> Checked {
    if let Some(ignored) = missing(loader, Way::Interp, &["unshare", "mount"]) {
        return Ok(ignored);
    }
    let Some(namespace) = requirement::mount_namespace() else {
        return Ok(Completion::ignored_with("neither root nor a user namespace: nothing can be mounted"));
    };
    let folder = suite::scratch(&cache(), &format!("session-{}", level.0))?;
    fs::write(folder.join("session.sh"), SESSION)?;
    let run = |mounted: &Path, side: &str| -> Result<Outcome, Failed> {
        let work = folder.join(side);
        fs::create_dir_all(&work)?;
        let mut command = Command::new("unshare");
        command.args(namespace).args(["sh", "-c", ENTER]).arg("sh").arg(mounted).arg(fs::canonicalize(SYSTEM)?);
        command.current_dir(&work).env_clear();
        command.envs([
            ("PATH", "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"),
            ("HOME", "/nonexistent"),
            ("LC_ALL", "C"),
        ]);
        command.env("GLIBC_TUNABLES", format!("glibc.rtld.seal={}", level.0));
        Ok(capture(&mut command, b"", Duration::from_secs(300))?)
    };
    let expected = run(Path::new(SYSTEM), "reference")?;
    if expected.ending != Ending::Exit(0) || !expected.stdout.ends_with(b"the session ends\n") {
        let stdout = String::from_utf8_lossy(&expected.stdout).into_owned();
        return Err(format!("the session fails under the system's loader: {}\n{stdout}", describe(&expected)).into());
    }
    match difference(&expected, &run(&loader.interpreter, "tested")?) {
        Some(difference) => Err(difference.into()),
        None => Ok(Completion::Completed),
    }
}

/// Mounts the interpreter `$1` over the loader `$2` and becomes a shell that was started by it.
const ENTER: &str = r#"mount --bind "$(readlink -f "$1")" "$2" && exec bash ../session.sh"#;

const SESSION: &str = include_str!("session.sh");
