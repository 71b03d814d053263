//! What a process has when it ends: the protections of the pages of its objects, and open descriptors.

use crate::attack::maps::{self, Region};
use crate::attack::trace::{Stop, Tracee};
use crate::loader::{Level, Loader, Start, Way};
use crate::verdict::Difference;
use object::elf::{FileHeader64, PT_LOAD};
use object::read::elf::{FileHeader, ProgramHeader};
use object::Endianness;
use std::fs;
use std::io;
use std::path::Path;
use std::process::Stdio;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

const PAGE: u64 = 4096;

/// The number of exit_group(2) on x86-64.
const EXIT_GROUP: u64 = 231;

/// What was seen at the call that ends a process.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Remains {
    /// A line for each object, sorted: its file, and the ranges of equal protection, counted from its first page.
    pub pages: Vec<String>,
    /// A line for each open descriptor: its number, and what it leads to.
    pub descriptors: Vec<String>,
}

/// Starts a program once more, traced, without any input, and looks at it when it calls exit_group(2). Nothing if it never does.
///
/// # Errors
/// It can't be started or traced, or its files in `/proc` can't be read.
pub fn observe(start: &Start, loader: &Loader, way: Way, level: Level) -> io::Result<Option<Remains>> {
    let mut command = start.prepared(loader, way, level);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut tracee = Tracee::start(&mut command)?;
    let _watchdog = Watchdog::start(tracee.pid(), start.limit);
    loop {
        match tracee.resume()? {
            Stop::Enter { number: EXIT_GROUP, .. } => break,
            Stop::Ended(_) => return Ok(None),
            Stop::Enter { .. } | Stop::Leave(_) => {}
        }
    }
    let pid = tracee.pid();
    let text = fs::read_to_string(format!("/proc/{pid}/maps"))?;
    let regions =
        maps::parse(&text).ok_or_else(|| io::Error::other(format!("/proc/{pid}/maps has an unknown form")))?;
    let interpreter = fs::canonicalize(&loader.interpreter)?;
    let remains = Remains { pages: pages(&regions, &interpreter), descriptors: descriptors(pid)? };
    log::debug!("{}: at its end {remains:?}", start.program.display());
    Ok(Some(remains))
}

/// The command under which a person sees what differs.
pub fn watched(difference: &Difference) -> &'static [&'static str] {
    match difference.observations.iter().any(|o| o.aspect == "pages") {
        true => &[
            "gdb",
            "-q",
            "-batch",
            "-ex",
            "catch syscall exit_group",
            "-ex",
            "run",
            "-ex",
            "info proc mappings",
            "--args",
        ],
        false => &["strace", "-e", "trace=%desc"],
    }
}

/// Kills a process that has not ended in time.
struct Watchdog {
    _ended: mpsc::Sender<()>,
}

impl Watchdog {
    fn start(pid: u32, limit: Duration) -> Watchdog {
        let (ended, waiting) = mpsc::channel::<()>();
        let pid = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw);
        thread::spawn(move || {
            if let (Err(mpsc::RecvTimeoutError::Timeout), Some(pid)) = (waiting.recv_timeout(limit), pid) {
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
        });
        Watchdog { _ended: ended }
    }
}

/// A line for each object and for the main stack, without the loader.
fn pages(regions: &[Region], interpreter: &Path) -> Vec<String> {
    let mut lines = Vec::new();
    let mut covered = 0;
    for region in regions {
        if region.name == "[stack]" {
            lines.push(format!("[stack]: {}", &region.permissions[..3]));
        }
        // Parts of an object that was met already: it may have several regions of its file's first page.
        if !region.name.starts_with('/') || region.start < covered || Path::new(&region.name) == interpreter {
            continue;
        }
        let Some(size) = size_in_memory(Path::new(&region.name)) else { continue };
        covered = region.start + size;
        lines.push(format!("{}:{}", region.name, ranges(regions, region.start, covered)));
    }
    lines.sort();
    lines
}

/// The ranges of equal protection between two addresses. What is not mapped and what can't be accessed are the same.
fn ranges(regions: &[Region], start: u64, end: u64) -> String {
    let mut text = String::new();
    let mut previous = String::new();
    let mut address = start;
    while address < end {
        let region = regions.iter().find(|r| (r.start..r.end).contains(&address));
        let protection = region.map_or("---", |r| &r.permissions[..3]).to_string();
        if protection != previous {
            text += &format!(" {:#x} {protection}", address - start);
            previous = protection;
        }
        let next = regions.iter().map(|r| r.start).find(|&s| s > address).unwrap_or(end);
        address = region.map_or(next, |r| r.end).min(end);
    }
    format!("{text} {:#x}", end - start)
}

/// How many bytes an ELF file takes from its first page to its last.
fn size_in_memory(path: &Path) -> Option<u64> {
    let bytes = fs::read(path).ok()?;
    let header = FileHeader64::<Endianness>::parse(bytes.as_slice()).ok()?;
    let endian = header.endian().ok()?;
    let headers = header.program_headers(endian, bytes.as_slice()).ok()?;
    let loads = || headers.iter().filter(|h| h.p_type(endian) == PT_LOAD);
    let start = loads().map(|h| h.p_vaddr(endian)).min()? & !(PAGE - 1);
    let end = loads().map(|h| h.p_vaddr(endian).saturating_add(h.p_memsz(endian))).max()?;
    Some(end.checked_next_multiple_of(PAGE)? - start)
}

/// What is open, without the numbers that the kernel gives to pipes and the like.
fn descriptors(pid: u32) -> io::Result<Vec<String>> {
    let mut lines = Vec::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fd"))? {
        let entry = entry?;
        let target = match fs::read_link(entry.path()) {
            Ok(target) => target.to_string_lossy().replace(&format!("/proc/{pid}/"), "/proc/self/"),
            // Another thread, which still runs, has closed it.
            Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
            Err(e) => return Err(e),
        };
        let target = target.split_once(":[").map_or(target.as_str(), |(kind, _)| kind);
        lines.push(format!("{} {target}", entry.file_name().to_string_lossy()));
    }
    lines.sort();
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::loader::SYSTEM;

    #[test]
    fn ranges_are_joined_and_gaps_are_shown() {
        let region = |start, end, permissions: &str| Region {
            start,
            end,
            permissions: permissions.into(),
            name: String::new(),
            anonymous: 0,
            sealed: false,
        };
        let regions = [region(0x1000, 0x2000, "r--p"), region(0x2000, 0x3000, "r--p"), region(0x5000, 0x9000, "rw-p")];
        assert_eq!(ranges(&regions, 0x1000, 0x6000), " 0x0 r-- 0x2000 --- 0x4000 rw- 0x5000");
    }

    #[test]
    fn a_program_is_seen_at_its_end() {
        let mut start = Start::new("/bin/sh", "/");
        start.args = vec!["-c".into(), "exec 7</dev/zero; exit 0".into()];
        let remains = observe(&start, &Loader::system(), Way::Interp, Level(1)).expect("it can be traced");
        let remains = remains.expect("it ends by itself");
        assert!(remains.descriptors.contains(&"7 /dev/zero".into()), "{remains:?}");
        assert!(remains.pages.iter().any(|line| line.contains("/libc.so.6: 0x0 r--")), "{remains:?}");
        let loader = fs::canonicalize(SYSTEM).expect("it is there");
        assert!(remains.pages.iter().all(|line| !line.starts_with(&*loader.to_string_lossy())), "{remains:?}");
    }
}
