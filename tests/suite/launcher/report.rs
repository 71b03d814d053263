//! What `ldseal report` sees.

use crate::support::{check, command, ldseal, refused, skip, Outcome, DONE, LDSEAL};
use libtest_mimic::Failed;
use std::fs;
use std::io::Read;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

pub fn json(folder: &Path, arguments: &[&str]) -> Result<serde_json::Value, Failed> {
    let output = command(LDSEAL, folder).args(["report", "--json"]).args(arguments).output()?;
    check(output.status.success(), || format!("{output:?}"))?;
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// The paths of all members, `[]` standing for each element of a list.
pub fn members(value: &serde_json::Value, path: &str, into: &mut std::collections::BTreeSet<String>) {
    match value {
        serde_json::Value::Object(map) => {
            for (key, value) in map {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                into.insert(path.clone());
                members(value, &path, into);
            }
        }
        serde_json::Value::Array(list) => list.iter().for_each(|value| members(value, &format!("{path}[]"), into)),
        _ => {}
    }
}

/// The JSON has the members that its page describes, and no others.
pub fn shape(folder: &Path) -> Outcome {
    let report = json(folder, &["--", "true"])?;
    let mut found = std::collections::BTreeSet::new();
    members(&report, "", &mut found);
    let page = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/report.md"))?;
    let page = page.split_once("--blame --json`").map_or(page.as_str(), |(report, _)| report);
    let described: std::collections::BTreeSet<String> =
        page.lines().filter_map(|line| Some(line.strip_prefix("| `")?.split_once('`')?.0.to_owned())).collect();
    // These only group members that the page has, or are described in one line together.
    let grouping = |path: &String| {
        ["kernel", "summary", "verdict"].contains(&path.as_str()) || path.starts_with("objects[].kinds[].")
    };
    let unknown: Vec<_> = found.iter().filter(|path| !described.contains(*path) && !grouping(path)).collect();
    let missing: Vec<_> = described.difference(&found).collect();
    check(unknown.is_empty() && missing.is_empty(), || format!("not described {unknown:?}, not there {missing:?}"))?;
    check(report["version"] == 1, || report["version"].to_string())?;
    DONE
}

/// `--require` and the verdict, at each level.
pub fn required(folder: &Path) -> Outcome {
    if conformance::attack::mseal::probe().is_err() {
        return skip("this kernel does not seal");
    }
    let expect = |words: &[&str], environment: &[(&str, &str)], status: i32| {
        let mut command = command(LDSEAL, folder);
        let output = command.arg("report").args(words).envs(environment.iter().copied()).output()?;
        check(output.status.code() == Some(status), || format!("{words:?} {environment:?}: {output:?}"))?;
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        check((status == 3) == text.contains("not sealed as required"), || text)
    };
    for (level, met) in [("0", [false; 3]), ("1", [true, true, false]), ("2", [true; 3])] {
        for (what, met) in ["code", "relro", "all"].into_iter().zip(met) {
            let words = ["--require", what, "--seal", level, "--", "ls"];
            expect(&words, &[], if met { 0 } else { 3 })?;
        }
    }
    let words = |what| ["--require", what, "--", "ls"];
    let level_2 = |more: &str| format!("glibc.rtld.seal=2{more}");
    for (tunables, what, status) in [
        (level_2(""), "all", 0),
        (level_2(":ldseal.anonymous=all"), "all", 0),
        (level_2(":ldseal.data=0"), "all", 3),
        (level_2(":ldseal.data=0"), "relro", 0),
        (level_2(":ldseal.vdso=0"), "code", 3),
        (level_2(":ldseal.exclude=libc.so.6"), "code", 3),
        (level_2(":ldseal.policy=marked"), "code", 3),
    ] {
        expect(&words(what), &[("GLIBC_TUNABLES", &tunables)], status)?;
    }
    // Under another loader nothing is sealed.
    let sleeper = Sleeper::start(command("sleep", folder).arg("60"))?;
    expect(&["--require", "code", &sleeper.pid()], &[], 3)?;
    DONE
}

/// Objects in anonymous memory are found all the same.
pub fn anonymous(folder: &Path) -> Outcome {
    if conformance::attack::mseal::probe().is_err() {
        return skip("this kernel does not seal");
    }
    let names = |tunables: &str| -> Result<Vec<(String, u64)>, Failed> {
        let mut command = command(LDSEAL, folder);
        let output = command.args(["report", "--json", "--", "ls"]).env("GLIBC_TUNABLES", tunables).output()?;
        check(output.status.success(), || format!("{output:?}"))?;
        let report: serde_json::Value = serde_json::from_slice(&output.stdout)?;
        let objects = report["objects"].as_array().into_iter().flatten().filter(|o| !o["bias"].is_null());
        let told = |o: &serde_json::Value| {
            let name = o["name"].as_str().unwrap_or_default().rsplit('/').next().unwrap_or_default();
            (name.split(".so").next().unwrap_or_default().to_owned(), o["sealed_bytes"].as_u64().unwrap_or(0))
        };
        let mut objects: Vec<_> = objects.map(told).filter(|(name, _)| !name.starts_with("ld-")).collect();
        objects.sort();
        Ok(objects)
    };
    let (files, copies) = (names("glibc.rtld.seal=2")?, names("glibc.rtld.seal=2:ldseal.anonymous=all")?);
    check(files == copies && files.len() > 1, || format!("files {files:?}, copies {copies:?}"))?;
    DONE
}

/// The kernel's own mappings, each with its state.
pub fn system(folder: &Path) -> Outcome {
    if conformance::attack::mseal::probe().is_err() {
        return skip("this kernel does not seal");
    }
    for (tunables, by_loader) in [("ldseal.vdso=1", true), ("ldseal.vdso=0", false)] {
        let mut command = command(LDSEAL, folder);
        let output = command.args(["report", "--json", "--", "true"]).env("GLIBC_TUNABLES", tunables).output()?;
        let report: serde_json::Value = serde_json::from_slice(&output.stdout)?;
        let state = |name: &str| {
            let list = report["system"].as_array().into_iter().flatten();
            list.filter(|s| s["name"] == name)
                .map(|s| s["state"].as_str().unwrap_or_default())
                .next()
                .unwrap_or_default()
        };
        let expected = match (report["kernel"]["seals_system_mappings"] == true, by_loader) {
            (true, _) => "sealed-by-kernel",
            (false, true) => "sealed-by-loader",
            (false, false) => "open",
        };
        check(state("[vdso]") == expected && state("[vvar]") == expected, || report["system"].to_string())?;
        check(["absent", "not-sealable"].contains(&state("[vsyscall]")), || report["system"].to_string())?;
    }
    DONE
}

/// What `/etc/ld.so.preload` names is sealed, and counts as loaded at the start. A namespace has an `/etc` of its own for that.
pub fn preload_file(folder: &Path) -> Outcome {
    const LIBRARY: &str = "/lib/x86_64-linux-gnu/libm.so.6";
    let Some(options) = conformance::requirement::mount_namespace() else {
        return skip("nothing can be mounted here");
    };
    if conformance::attack::mseal::probe().is_err() {
        return skip("this kernel does not seal");
    }
    let etc = folder.join("etc");
    fs::create_dir_all(&etc)?;
    fs::write(etc.join("ld.so.preload"), LIBRARY)?;
    let script = "mount --bind \"$0\" /etc && exec \"$@\"";
    let mut command = command("unshare", folder);
    command.args(options).args(["sh", "-c", script]).arg(&etc);
    let output = command.args([LDSEAL, "report", "--json", "--require", "relro", "--", "true"]).output()?;
    check(output.status.success(), || format!("{output:?}"))?;
    let report: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    let object = report["objects"]
        .as_array()
        .into_iter()
        .flatten()
        .find(|o| o["name"].as_str().is_some_and(|name| name.ends_with("/libm.so.6")));
    let sealed = object.is_some_and(|o| o["covered"] == true && o["sealed_bytes"].as_u64() > Some(0));
    check(sealed, || report.to_string())?;
    DONE
}

/// A process of another user, and one that is not dumpable, may not be looked at: a status of its own, and the reason.
pub fn forbidden(folder: &Path) -> Outcome {
    if crate::support::is_root() {
        // Root may look at everything, so somebody else looks.
        let mut sleeper = command("sleep", folder);
        let sleeper = Sleeper::start(sleeper.arg("60"))?;
        let copy = folder.join("ldseal");
        fs::create_dir_all(folder)?;
        let copied = command("cp", folder).arg(LDSEAL).arg(&copy).status()?;
        if !copied.success() || conformance::requirement::unmet("setpriv").is_some() {
            return skip("setpriv is missing");
        }
        let script = format!(
            "exec 3<{}; exec setpriv --reuid 65534 --clear-groups /proc/self/fd/3 report {}",
            copy.display(),
            sleeper.pid()
        );
        let output = command("sh", folder).args(["-c", &script]).output()?;
        let stderr = String::from_utf8_lossy(&output.stderr);
        check(output.status.code() == Some(4) && stderr.contains("belongs to another user"), || format!("{output:?}"))?;
        return DONE;
    }
    let output = ldseal(folder, &["report", "1"])?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    check(output.status.code() == Some(4) && stderr.contains("belongs to another user"), || format!("{output:?}"))?;
    DONE
}

/// The regions of the objects whose name ends so.
pub fn regions<'a>(report: &'a serde_json::Value, name: &str) -> Vec<&'a serde_json::Value> {
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

pub fn ordinary(folder: &Path) -> Outcome {
    let sleeper = Sleeper::start(command("sleep", folder).arg("60"))?;
    let report = json(folder, &[&sleeper.pid()])?;
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

pub fn sealed(folder: &Path) -> Outcome {
    use rustix::mm::{mmap_anonymous, MapFlags, ProtFlags};
    // SAFETY: a new mapping, which nothing else refers to.
    let address = unsafe { mmap_anonymous(std::ptr::null_mut(), 3 * 4096, ProtFlags::READ, MapFlags::PRIVATE)? };
    let start = address as usize + 4096;
    match loader::sys::mseal(loader::addr::Addr(start)..loader::addr::Addr(start + 4096)) {
        Err(rustix::io::Errno::NOSYS) => return skip("this kernel has no mseal"),
        other => other?,
    }
    let report = json(folder, &[&std::process::id().to_string()])?;
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

pub fn started(folder: &Path) -> Outcome {
    for (level, writable) in [("0", false), ("1", false), ("2", true)] {
        let report = json(folder, &["--seal", level, "--", "cat", "/nonexistent"])?;
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

pub fn running(folder: &Path) -> Outcome {
    for (level, seen) in [("0", serde_json::Value::Null), ("1", 1.into()), ("2", 2.into())] {
        let sleeper = Sleeper::start(command(LDSEAL, folder).args(["run", "--seal", level, "sleep", "60"]))?;
        let report = json(folder, &[&sleeper.pid()])?;
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

pub fn tunables(folder: &Path) -> Outcome {
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
    let data = |region: &&serde_json::Value| region["kind"] == "data" || region["kind"] == "got-shared";
    let kind = regions(&report, "/cat").into_iter().find(data).and_then(|region| region["kind"].as_str());
    because("/cat", kind.unwrap_or("data"), "ldseal.data=0")?;
    because("[stack]", "stack", "never sealed")?;
    if report["kernel"]["seals_system_mappings"] == false {
        because("[vdso]", "vdso", "ldseal.vdso=0")?;
    }
    DONE
}

/// A process that does not want to be looked at, by a process of the same user: the reason is another.
pub fn undumpable(folder: &Path) -> Outcome {
    // prctl(PR_SET_DUMPABLE, 0)
    const SCRIPT: &str = "syscall(157, 4, 0, 0, 0, 0) == 0 or exit 9; print qq(ready\\n); close STDOUT; sleep 60";
    fs::create_dir_all(folder)?;
    let copy = folder.join("ldseal");
    fs::copy(LDSEAL, &copy)?;
    let is_root = crate::support::is_root();
    if is_root && conformance::requirement::unmet("setpriv").is_some() {
        return skip("setpriv is missing");
    }
    // Root may look at everything, so both are somebody else.
    let script = |words: &str| match is_root {
        true => format!("exec 3<{}; exec setpriv --reuid 65534 --clear-groups {words}", copy.display()),
        false => format!("exec 3<{}; exec {words}", copy.display()),
    };
    let mut perl = command("sh", folder);
    let mut child = perl.args(["-c", &script("perl -e \"$0\""), SCRIPT]).stdout(Stdio::piped()).spawn()?;
    let mut ready = String::new();
    child.stdout.take().ok_or("no pipe")?.read_to_string(&mut ready)?;
    let sleeper = Sleeper(child);
    check(ready == "ready\n", || ready)?;
    let output =
        command("sh", folder).args(["-c", &script("/proc/self/fd/3 report \"$0\"")]).arg(sleeper.pid()).output()?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    check(output.status.code() == Some(4) && stderr.contains("it is not dumpable"), || format!("{output:?}"))?;
    DONE
}
