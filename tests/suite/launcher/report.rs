//! What `ldseal report` sees.

use crate::support::{check, command, ldseal, refused, skip, Outcome, DONE, LDSEAL};
use libtest_mimic::Failed;
use std::fs;
use std::path::Path;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

pub fn json(folder: &Path, arguments: &[&str]) -> Result<serde_json::Value, Failed> {
    let output = command(LDSEAL, folder).args(["report", "--json"]).args(arguments).output()?;
    check(output.status.success(), || format!("{output:?}"))?;
    Ok(serde_json::from_slice(&output.stdout)?)
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
