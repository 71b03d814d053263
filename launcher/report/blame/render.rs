//! The refused calls as text.

use super::model::{Blame, Caller, Ending, Frame, Memory, Refusal};
use crate::report::model::Role;
use crate::report::objects::file_name;
use std::fmt::Write;

/// How many ranges and processes of an entry are shown.
const SHOWN: usize = 3;
/// How many callers are shown behind the one to blame.
const CALLERS: usize = 8;

/// One JSON object and a newline.
pub fn json(blame: &Blame) -> String {
    match serde_json::to_string_pretty(blame) {
        Ok(text) => text + "\n",
        // There is nothing in it that JSON could not hold: no map, no number beyond its range.
        Err(error) => format!("{{\"error\": {:?}}}\n", error.to_string()),
    }
}

/// A heading and a paragraph for each entry.
pub fn text(blame: &Blame) -> String {
    let level = match blame.level {
        Some(level) => format!("level {level} ({})", blame.level_source),
        None => format!("level unknown ({})", blame.level_source),
    };
    let ended = blame.ended.as_ref().map_or_else(|| "runs on".into(), ending);
    let mut text = format!("ldseal: {}: {ended}, {level}\n", blame.command.join(" "));
    let _ = match blame.calls {
        0 => writeln!(text, "No call was refused on sealed memory."),
        1 => writeln!(text, "1 call was refused on sealed memory:"),
        calls => writeln!(text, "{calls} calls were refused on sealed memory:"),
    };
    for refusal in &blame.refused {
        let _ = write!(text, "\n{}", entry(refusal));
    }
    if !blame.unsealed.is_empty() {
        let _ = writeln!(text, "\nUnder another loader, so nothing of these was sealed: {}", blame.unsealed.join(", "));
    }
    text
}

fn entry(refusal: &Refusal) -> String {
    let times = if refusal.count == 1 { String::new() } else { format!(", {} times", refusal.count) };
    let mut text = format!("{}: refused{times}\n", refusal.first);
    let mut line = |label: &str, rest: String| {
        let _ = writeln!(text, "  {label:<4} {rest}");
    };
    for part in &refusal.memory {
        line("on", memory(part));
    }
    if refusal.sealed.is_none() {
        line("", "whether it is sealed can't be known: its mappings can't be read, or the kernel does not tell".into());
    }
    if refusal.ranges.len() > 1 {
        let shown = refusal.ranges.iter().take(SHOWN).map(|r| format!("{:x}-{:x}", r.start.0, r.end.0));
        line("each", listed(shown.collect(), refusal.ranges.len()));
    }
    let frames = refusal.frames.iter().enumerate().take(refusal.caller + 1 + CALLERS);
    let (mut before, mut behind) = (Vec::new(), Vec::new());
    for (index, frame) in frames {
        match index.cmp(&refusal.caller) {
            std::cmp::Ordering::Less => before.push(name(frame)),
            std::cmp::Ordering::Equal => {}
            std::cmp::Ordering::Greater => behind.push(name(frame)),
        }
    }
    if let Some(frame) = refusal.frames.get(refusal.caller) {
        let through = if before.is_empty() { String::new() } else { format!(", through {}", before.join(", ")) };
        line("by", format!("{}{through}", name(frame)));
    }
    for frame in behind {
        line("from", frame);
    }
    for process in refusal.processes.iter().take(SHOWN) {
        line("in", caller(process));
    }
    if refusal.processes.len() > SHOWN {
        line("", format!("and {} more processes", refusal.processes.len() - SHOWN));
    }
    for remedy in &refusal.remedies {
        match &remedy.set {
            Some(set) => line("try", format!("{set}: {}", remedy.effect)),
            None => line("note", remedy.effect.clone()),
        }
    }
    text
}

fn memory(memory: &Memory) -> String {
    let range = format!("{:x}-{:x}", memory.start.0, memory.end.0);
    match memory.role {
        Role::Kernel | Role::Other => format!("{range} {} {}", memory.kind, memory.object),
        role => format!("{range} {} of {} ({role})", memory.kind, memory.object),
    }
}

/// `function+0x12 (libx.so)`; without a symbol `libx.so+0x1234`; without an object the address.
fn name(frame: &Frame) -> String {
    let object = frame.object.as_deref().map(file_name);
    match (&frame.symbol, frame.offset, object, frame.file_address) {
        (Some(symbol), Some(offset), Some(object), _) => format!("{symbol}+{offset:#x} ({object})"),
        (_, _, Some(object), Some(address)) => format!("{object}+{:#x}", address.0),
        (_, _, Some(object), None) => format!("{:#x} ({object})", frame.address.0),
        _ => format!("{:#x}", frame.address.0),
    }
}

fn caller(caller: &Caller) -> String {
    let pid = caller.pid;
    let threads: Vec<String> = caller.threads.iter().filter(|&&t| t != pid).take(SHOWN).map(u32::to_string).collect();
    let threads = match threads.len() {
        0 => String::new(),
        1 => format!(", thread {}", threads[0]),
        _ => format!(", threads {}", listed(threads, caller.threads.iter().filter(|&&t| t != pid).count())),
    };
    let command = caller.command.join(" ");
    let ended = caller.ended.as_ref().map(|end| format!(", {}", ending(end))).unwrap_or_default();
    let times = if caller.count == 1 { String::new() } else { format!(", {} times", caller.count) };
    format!("process {pid}{threads} ({command}){times}{ended}")
}

fn listed(shown: Vec<String>, all: usize) -> String {
    let more = all - shown.len();
    let text = shown.join(", ");
    if more > 0 {
        format!("{text} and {more} more")
    } else {
        text
    }
}

fn ending(end: &Ending) -> String {
    match end {
        Ending { signal: Some(signal), .. } => format!("killed by {signal}"),
        Ending { status, .. } => format!("exit status {}", status.unwrap_or_default()),
    }
}
