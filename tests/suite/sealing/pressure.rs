//! A process that has as many mappings as the kernel allows (`vm.max_map_count`), or a few fewer: the seal of a part of a mapping needs a
//! split, which is refused then, after other parts of the range have been sealed. At each number of mappings that are left the library or
//! program is loaded, or it fails and leaves nothing behind; what is open is what `LD_DEBUG=seal` names at level 1, and at level 2 nothing
//! but what the plan leaves open, or the process ends with the line that names the range.

use crate::refusals::range_of_line;
use crate::stage::{compile, Stage, Wish};
use crate::Check;
use conformance::process::{self, Ending, Outcome};
use conformance::Way;
use std::ops::Range;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// The checks.
pub const CHECKS: &[(&str, Check)] = &[
    ("a dlopen among all mappings at level 1", |s, w| opened(s, w, 1)),
    ("a dlopen among all mappings at level 2", |s, w| opened(s, w, 2)),
    ("a start among all mappings at level 1", |s, w| started(s, w, 1)),
    ("a start among all mappings at level 2", |s, w| started(s, w, 2)),
];

const ENOMEM: i32 = 12;
const LIMIT: Duration = Duration::from_secs(180);

/// More mappings than this take too long to make.
const MANY: u64 = 300_000;

/// The library, which keeps a page in the middle of its data open: with `ldseal.data=1` what lies on both sides of it is sealed.
const LIBRARY: &str = "./exceptions/mutable/libguarded.so";

/// With so many mappings left nothing is refused.
const ROOMS: usize = 12;

/// The same for a whole start.
const ROOMS_AT_START: Range<usize> = 8..20;

/// Why these checks can't be made here, if so.
pub fn unfit() -> Option<String> {
    let most: Option<u64> =
        std::fs::read_to_string("/proc/sys/vm/max_map_count").ok().and_then(|text| text.trim().parse().ok());
    match most {
        Some(most) if most <= MANY => None,
        most => Some(format!("vm.max_map_count is {most:?}, more than {MANY}")),
    }
}

/// Builds the program and the audit module.
///
/// # Errors
/// What the compiler said.
pub fn build(tree: &Path, sources: &Path) -> Result<(), String> {
    compile(tree, "open", &sources.join("pressure/open.c"), &["-Wl,-z,now"])?;
    compile(tree, "filler.so", &sources.join("pressure/module.c"), &["-shared", "-fPIC", "-Wl,-z,now"])
}

fn opened(stage: &Stage, way: Way, level: u8) -> Result<(), String> {
    let (tree, mut words) = stage.way(way);
    words.push("./open".into());
    let mut command = Command::new(words.remove(0));
    command.args(words).args([LIBRARY, &ROOMS.to_string()]).current_dir(tree).env_clear().env("LD_DEBUG", "seal");
    command.env("GLIBC_TUNABLES", format!("glibc.rtld.seal={level}:ldseal.data=1"));
    let outcome = process::capture(&mut command, b"", LIMIT).map_err(|e| e.to_string())?;
    let (stdout, stderr) = (String::from_utf8_lossy(&outcome.stdout), String::from_utf8_lossy(&outcome.stderr));
    let (told, logs) = (by_room(&stdout), by_room(&stderr));
    if outcome.ending != Ending::Exit(0) || told.len() != ROOMS + 1 || logs.len() != told.len() {
        return Err(format!("ended with {}, {} rooms, {} logs", outcome.ending, told.len(), logs.len()));
    }
    let results = told.iter().zip(&logs).map(|(told, log)| of_room(told, log, level));
    let mut seen = Seen::default();
    for (room, result) in results.enumerate() {
        seen.note(result.map_err(|e| format!("room {room}: {e}\n{}\n{}", told[room], logs[room]))?);
    }
    seen.is_whole()
}

/// What came of it.
enum Came {
    /// It was not loaded.
    Failed,
    /// A seal was refused.
    Refused,
    /// All was sealed.
    Sealed,
}

/// How often each.
#[derive(Default, Debug)]
struct Seen {
    failed: usize,
    refused: usize,
    sealed: usize,
}

impl Seen {
    fn note(&mut self, came: Came) {
        *match came {
            Came::Failed => &mut self.failed,
            Came::Refused => &mut self.refused,
            Came::Sealed => &mut self.sealed,
        } += 1;
    }

    /// All three have been met, or the checks did not check what they are for.
    fn is_whole(&self) -> Result<(), String> {
        match self.failed > 0 && self.refused > 0 && self.sealed > 0 {
            true => Ok(()),
            false => Err(format!("not all that there is was met: {self:?}")),
        }
    }
}

/// The parts of a stream between its lines `room N`.
fn by_room(text: &str) -> Vec<String> {
    text.split("room ").skip(1).map(|part| part.split_once('\n').map_or(part, |(_, rest)| rest).to_owned()).collect()
}

/// Judges one dlopen by what the child and its loader said.
fn of_room(told: &str, log: &str, level: u8) -> Result<Came, String> {
    let lines: Vec<&str> = told.lines().collect();
    match lines.as_slice() {
        [failed, "again: opened", "status 0"] if failed.starts_with("failed: ") => Ok(Came::Failed),
        ["status 127"] if level == 2 => {
            let fatal = log.lines().last().map(|line| format!("{line}\n")).unwrap_or_default();
            range_of_line(&fatal, ENOMEM).map(|_| Came::Refused).ok_or_else(|| "not the fatal line".into())
        }
        ["opened: 42", pages @ .., "status 0"] => {
            let log = Log::read(log)?;
            if level == 2 && !log.refused.is_empty() {
                return Err("it went on after a refusal".into());
            }
            for page in pages {
                log.agrees(page).ok_or_else(|| format!("not what the loader said: {page}"))?;
            }
            Ok(if log.refused.is_empty() { Came::Sealed } else { Came::Refused })
        }
        _ => Err("neither loaded nor cleanly refused".into()),
    }
}

/// What `LD_DEBUG=seal` told.
#[derive(Default)]
struct Log {
    sealed: Vec<Range<u64>>,
    open: Vec<Range<u64>>,
    refused: Vec<Range<u64>>,
}

impl Log {
    fn read(text: &str) -> Result<Log, String> {
        let mut log = Log::default();
        for line in text.lines() {
            // The process's number stands before the tab.
            let fields: Vec<&str> = line.split_once('\t').map_or(line, |(_, rest)| rest).split_whitespace().collect();
            let (list, at) = match fields.as_slice() {
                ["refused", range, ..] => (&mut log.refused, range),
                [range, _, "sealed", ..] => (&mut log.sealed, range),
                [range, _, "open", ..] => (&mut log.open, range),
                _ => return Err(format!("an unknown line: {line}")),
            };
            list.push(range(at).ok_or_else(|| format!("not a range: {line}"))?);
        }
        Ok(log)
    }

    /// Whether a line `page ADDRESS STATE` is what was told: of a range that was refused each page may be sealed or open.
    fn agrees(&self, line: &str) -> Option<()> {
        let (at, state) = line.strip_prefix("page ")?.split_once(' ')?;
        let at = u64::from_str_radix(at, 16).ok()?;
        let holds = |ranges: &[Range<u64>]| ranges.iter().any(|range| range.contains(&at));
        match state {
            "sealed" => holds(&self.sealed),
            "open" => holds(&self.open) || holds(&self.refused),
            _ => false,
        }
        .then_some(())
    }
}

fn range(text: &str) -> Option<Range<u64>> {
    let (start, end) = text.split_once('-')?;
    let number = |text: &str| u64::from_str_radix(text.strip_prefix("0x")?, 16).ok();
    Some(number(start)?..number(end)?)
}

/// The same for a whole start: an audit module takes the mappings before the program's libraries are mapped.
fn started(stage: &Stage, way: Way, level: u8) -> Result<(), String> {
    let mut seen = Seen::default();
    for room in ROOMS_AT_START {
        let mut command = stage.command(way, &Wish::new("attack", &format!("glibc.rtld.seal={level}"), &["nothing"]));
        command.env_remove("LD_PRELOAD").env("LD_AUDIT", "./filler.so").env("ROOM", room.to_string());
        command.env("LD_DEBUG", "seal");
        let outcome = process::capture(&mut command, b"", LIMIT).map_err(|e| e.to_string())?;
        let came = of_start(&outcome, level).ok_or_else(|| {
            format!("room {room}: ended with {}: {}", outcome.ending, String::from_utf8_lossy(&outcome.stderr))
        })?;
        seen.note(came);
    }
    seen.is_whole()
}

fn of_start(outcome: &Outcome, level: u8) -> Option<Came> {
    let stderr = String::from_utf8_lossy(&outcome.stderr);
    let refused = stderr.lines().any(|line| line.contains("\trefused 0x"));
    let last = stderr.lines().last().unwrap_or_default();
    match outcome.ending {
        Ending::Exit(0) if outcome.stdout == b"constructor\tneeded\n" => match (refused, level) {
            (true, 2) => None,
            (true, _) => Some(Came::Refused),
            (false, _) => Some(Came::Sealed),
        },
        Ending::Exit(127) if outcome.stdout.is_empty() && last.contains("error while loading shared libraries: ") => {
            Some(Came::Failed)
        }
        Ending::Exit(127) if outcome.stdout.is_empty() && level == 2 => {
            range_of_line(&format!("{last}\n"), ENOMEM).map(|_| Came::Refused)
        }
        _ => None,
    }
}
