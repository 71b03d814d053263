//! The system's ld.so as an oracle: what it says about this machine and what it tries.
#![allow(dead_code, reason = "each test file uses its part")]

use std::os::unix::ffi::OsStrExt;
use std::process::{Command, Output};

use loader::search::hwcaps::Machine;

pub const LD_SO: &str = "/lib64/ld-linux-x86-64.so.2";

/// One library searched by the system's ld.so, from LD_DEBUG=libs.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Search {
    pub name: Vec<u8>,
    /// The files tried, in order; `None` is where the cache was consulted.
    pub tried: Vec<Option<Vec<u8>>>,
}

impl Search {
    /// The file that the cache gave, if the search got so far.
    pub fn cached(&self) -> Option<&[u8]> {
        let at = self.tried.iter().position(Option::is_none)?;
        self.tried.get(at + 1)?.as_deref()
    }
}

/// The searches in the standard error of a program run with LD_DEBUG=libs.
pub fn searches(output: &Output) -> Vec<Search> {
    let mut all: Vec<Search> = Vec::new();
    for line in output.stderr.split(|&byte| byte == b'\n') {
        let Some(colon) = line.iter().position(|&byte| byte == b':') else { continue };
        let text = line[colon + 1..].trim_ascii_start();
        if let Some(rest) = text.strip_prefix(b"find library=") {
            let end = rest.windows(2).position(|pair| pair == b" [").unwrap_or(rest.len());
            all.push(Search { name: rest[..end].to_vec(), tried: Vec::new() });
        } else if let (Some(search), Some(file)) = (all.last_mut(), text.strip_prefix(b"trying file=")) {
            search.tried.push(Some(file.to_vec()));
        } else if let (Some(search), true) = (all.last_mut(), text.starts_with(b"search cache=")) {
            search.tried.push(None);
        }
    }
    all
}

/// The facts about this machine that decide searches, as the system's ld.so reports them.
pub struct SystemLoader {
    diagnostics: String,
}

impl SystemLoader {
    /// `None`, said loudly, if there is no glibc here that reports them.
    pub fn find() -> Option<Self> {
        let output =
            Command::new(LD_SO).arg("--list-diagnostics").output().ok().filter(|output| output.status.success());
        if output.is_none() {
            eprintln!("SKIPPED: {LD_SO} --list-diagnostics does not work here");
        }
        Some(SystemLoader { diagnostics: String::from_utf8_lossy(&output?.stdout).into_owned() })
    }

    fn value(&self, key: &str) -> Option<&str> {
        let line =
            self.diagnostics.lines().find(|line| line.strip_prefix(key).is_some_and(|rest| rest.starts_with('=')))?;
        Some(line[key.len() + 1..].trim_matches('"'))
    }

    fn number(&self, key: &str) -> u64 {
        let text = self.value(key).unwrap_or("0x0");
        u64::from_str_radix(text.trim_start_matches("0x"), 16).unwrap()
    }

    pub fn dst_lib(&self) -> &str {
        self.value("dl_dst_lib").unwrap()
    }

    pub fn system_dirs(&self) -> Vec<&str> {
        (0..).map_while(|n| self.value(&format!("path.system_dirs[{n:#x}]"))).collect()
    }

    pub fn machine(&self) -> Machine<'_> {
        let minor: u32 = self.value("version.version").unwrap().split('.').nth(1).unwrap().parse().unwrap();
        Machine {
            isa_1: self.number("x86.cpu_features.isa_1") as u32,
            platform: self.value("dl_platform").map(str::as_bytes),
            hwcap: self.number("dl_hwcap") & self.number("dl_hwcap_important"),
            disabled_levels: 0,
            os_version: 0,
            legacy_subdirectories: minor <= 36,
        }
    }
}

/// Whether a program can be started here; if not, says that the test is skipped.
pub fn have(program: &str) -> bool {
    let found = Command::new(program).arg("--version").output().is_ok_and(|output| output.status.success());
    if !found {
        eprintln!("SKIPPED: no {program} here");
    }
    found
}

/// Bytes as they go into an argument.
pub fn argument(bytes: &[u8]) -> &std::ffi::OsStr {
    std::ffi::OsStr::from_bytes(bytes)
}
