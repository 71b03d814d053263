//! From calls that have returned to what was refused, equal calls together.

use super::calls::Call;
use super::model::{Asked, Caller, Ending, Frame, Memory, Refusal};
use super::remedy::{self, Situation};
use super::space::{Shared, Space};
use super::trace::End;
use crate::elf::Headers;
use crate::interpreter;
use crate::report::image::Image;
use crate::report::model::{Address, Kernel};
use crate::report::objects::file_name;
use crate::report::process::Process;
use crate::report::reason::Settings;
use loader::seal::tunables::SealLevel;
use nix::sys::ptrace;
use nix::unistd::Pid;
use std::collections::{BTreeSet, HashMap};
use std::fs::{self, File};
use std::ops::Range;

/// A process, and the calls of it that were seen: a call that comes again from the same place is only counted.
struct Known {
    space: Space,
    calls: HashMap<(Call, Vec<u64>), Place>,
}

/// What makes calls one entry of the report, wherever in memory their objects lie: program, call, wish, memory and callers.
type Sort = (String, &'static str, String, Vec<(String, String)>, Vec<(Option<String>, u64)>, bool);

/// Where a call was counted.
#[derive(Clone, Copy)]
struct Place {
    refusal: usize,
    range: usize,
    caller: usize,
}

/// What is known before the program starts.
pub struct Circumstances {
    /// The program, which this command has started.
    pub program: u32,
    /// The path by which its loader is told of it.
    pub path: String,
    /// `--seal`
    pub level: Option<SealLevel>,
    /// What the kernel offers.
    pub kernel: Kernel,
    /// Whether the kernel says in smaps what is sealed; None if that could not be tried.
    pub tells_seals: Option<bool>,
}

/// Everything that was refused so far.
pub struct Collector {
    circumstances: Circumstances,
    known: HashMap<u32, Known>,
    /// The processes of threads.
    threads: HashMap<Pid, u32>,
    shared: Shared,
    sorts: HashMap<Sort, usize>,
    /// How many programs the first process has executed: the interpreter is the first.
    executed: u32,
    /// The settings of the program itself, once they can be seen.
    settings: Option<(Option<SealLevel>, &'static str)>,
    /// The calls, in the order of their first.
    pub refused: Vec<Refusal>,
    /// How many there were.
    pub calls: u64,
    /// Programs that were executed under another loader.
    pub unsealed: BTreeSet<String>,
}

impl Collector {
    /// Without any calls.
    pub fn new(circumstances: Circumstances) -> Collector {
        Collector {
            circumstances,
            known: HashMap::new(),
            threads: HashMap::new(),
            shared: Shared::default(),
            sorts: HashMap::new(),
            executed: 0,
            settings: None,
            refused: Vec::new(),
            calls: 0,
            unsealed: BTreeSet::new(),
        }
    }

    /// Whether the program was executed at all.
    pub fn started(&self) -> bool {
        self.executed > 0
    }

    /// The program's level, and where it is known from.
    pub fn level(&self) -> (Option<SealLevel>, &'static str) {
        self.settings.unwrap_or((self.circumstances.level, "--seal"))
    }

    /// A process has executed a program: nothing of what was known about its memory holds.
    pub fn executed(&mut self, process: Pid) {
        let pid = number(process);
        self.known.remove(&pid);
        self.threads.remove(&process);
        let executed = Process { pid };
        if let Some(program) = executed.executable().filter(|_| !starts_ld_seal(&executed)) {
            self.unsealed.insert(program);
        }
        if pid == self.circumstances.program {
            self.executed += 1;
            if self.executed == 1 {
                let settings = Settings::of(&Space::new(pid).process, Some(self.circumstances.level));
                self.settings = Some((settings.level, settings.source));
            }
        }
    }

    /// A thread has ended.
    pub fn ended(&mut self, thread: Pid, end: End) {
        let pid = number(thread);
        let callers = self.refused.iter_mut().flat_map(|refusal| &mut refusal.processes);
        callers.filter(|caller| caller.pid == pid).for_each(|caller| caller.ended = Some(Ending::from(end)));
        self.known.remove(&pid);
        self.threads.remove(&thread);
    }

    /// The processes of threads.
    pub fn processes(&self, threads: impl Iterator<Item = Pid>) -> BTreeSet<Pid> {
        threads.map(|thread| process_of(thread).map_or(thread, |pid| Pid::from_raw(pid as i32))).collect()
    }

    /// A thread has come to the end of a call that the filter picked out.
    pub fn called(&mut self, thread: Pid) {
        let Ok(registers) = ptrace::getregs(thread) else { return };
        let r = &registers;
        let arguments = [r.rdi, r.rsi, r.rdx, r.r10, r.r8, r.r9];
        let call = Call { number: r.orig_rax as i64, arguments };
        let result = r.rax as i64;
        if !call.may_be_refused(result) {
            return;
        }
        let Some(pid) = self.threads.get(&thread).copied().or_else(|| process_of(thread)) else { return };
        self.threads.insert(thread, pid);
        let new = || Known { space: Space::new(pid), calls: HashMap::new() };
        let mut known = self.known.remove(&pid).unwrap_or_else(new);
        let callers = known.space.callers(&registers);
        let place = known.calls.get(&(call, callers)).copied().or_else(|| {
            known.space.refresh(&mut self.shared);
            let callers = known.space.callers(&registers);
            let place = self.examine(&known.space, &call, result, &callers)?;
            known.calls.insert((call, callers), place);
            Some(place)
        });
        if let Some(place) = place {
            self.count(place, number(thread));
        }
        self.known.insert(pid, known);
    }

    fn count(&mut self, place: Place, thread: u32) {
        let refusal = &mut self.refused[place.refusal];
        refusal.count += 1;
        refusal.ranges[place.range].count += 1;
        let caller = &mut refusal.processes[place.caller];
        caller.count += 1;
        if !caller.threads.contains(&thread) {
            caller.threads.push(thread);
        }
        self.calls += 1;
    }

    /// A call that was not seen before: finds out whether a seal has refused it.
    fn examine(&mut self, space: &Space, call: &Call, result: i64, callers: &[u64]) -> Option<Place> {
        let (ranges, target) = space.ranges(call, result);
        let other = target.filter(|&target| target != space.process.pid).map(|target| {
            let mut other = Space::new(target);
            other.refresh(&mut self.shared);
            other
        });
        let owner = other.as_ref().unwrap_or(space);
        let told = self.circumstances.tells_seals == Some(true) || owner.shows_seals();
        if let Some(error) = &owner.unreadable {
            log::debug!("process {}: its mappings can't be seen: {error}", owner.process.pid);
        }
        let memory = owner.sealed_in(&ranges, told);
        let sealed = (told && owner.unreadable.is_none()).then_some(true);
        // Below its first address the break is refused to move in any process.
        let elsewhere = call.number == libc::SYS_brk && !ranges.iter().all(|range| owner.is_break_area(range.start));
        if memory.is_empty() && owner.unreadable.is_none() || ranges.is_empty() || elsewhere {
            return None;
        }
        let frames: Vec<Frame> = callers.iter().map(|&at| space.frame(at, &mut self.shared)).collect();
        let program = space.process.executable().unwrap_or_default();
        let parts = memory.iter().map(|part| (part.object.clone(), part.kind.to_string())).collect();
        let places = frames.iter().map(|f| (f.object.clone(), f.file_address.map_or(f.address.0, |address| address.0)));
        let sort = (program, call.name(), call.wish(), parts, places.collect(), sealed.is_some());
        let refusal = match self.sorts.get(&sort) {
            Some(&refusal) => refusal,
            None => {
                let remedies = self.remedies(owner, &memory);
                self.sorts.insert(sort, self.refused.len());
                self.refused.push(refusal(space, call, sealed, memory, frames, remedies));
                self.refused.len() - 1
            }
        };
        let asked = ranges.first().cloned().unwrap_or_default();
        Some(self.place(refusal, space, &asked))
    }

    /// The place of a range and a process in an entry.
    fn place(&mut self, refusal: usize, space: &Space, asked: &Range<u64>) -> Place {
        let entry = &mut self.refused[refusal];
        let (start, end) = (Address(asked.start), Address(asked.end));
        let range = entry.ranges.iter().position(|range| (range.start, range.end) == (start, end));
        let range = range.unwrap_or_else(|| {
            entry.ranges.push(Asked { start, end, count: 0 });
            entry.ranges.len() - 1
        });
        let pid = space.process.pid;
        let caller = entry.processes.iter().position(|caller| caller.pid == pid && caller.ended.is_none());
        let caller = caller.unwrap_or_else(|| {
            let command = space.command.clone();
            entry.processes.push(Caller { pid, threads: Vec::new(), command, count: 0, ended: None });
            entry.processes.len() - 1
        });
        Place { refusal, range, caller }
    }

    fn remedies(&self, space: &Space, memory: &[Memory]) -> Vec<super::model::Remedy> {
        let own = self.executed == 1 && space.process.pid == self.circumstances.program;
        let mut settings = Settings::of(&space.process, own.then_some(self.circumstances.level));
        settings.deduce(space.data_is_sealed());
        let situation = Situation {
            under_ld_seal: space.under_ld_seal,
            by_option: self.circumstances.level.is_some() && space.process.executable().is_some_and(|p| is_loader(&p)),
            kernel_seals_vdso: self.circumstances.kernel.seals_system_mappings,
            level: settings.level,
            data: settings.tunables().data,
        };
        let object = memory.iter().find(|part| part.file_address.is_some()).map_or("", |part| part.object.as_str());
        let program = own.then_some(self.circumstances.path.as_str());
        remedy::remedies(memory, &space.names(object, program), &situation)
    }
}

fn refusal(
    space: &Space,
    call: &Call,
    sealed: Option<bool>,
    memory: Vec<Memory>,
    frames: Vec<Frame>,
    remedies: Vec<super::model::Remedy>,
) -> Refusal {
    Refusal {
        call: call.name(),
        first: call.text(),
        count: 0,
        sealed,
        memory,
        ranges: Vec::new(),
        caller: blamed(&frames, call.name(), |path| space.soname(path).map(str::to_owned)),
        frames,
        processes: Vec::new(),
        remedies,
    }
}

/// Which of the frames is to blame: the first outside of the C library, whose functions only pass the call on.
fn blamed(frames: &[Frame], call: &str, soname: impl Fn(&str) -> Option<String>) -> usize {
    let passes_on = |frame: &Frame| {
        let object = frame.object.as_deref().unwrap_or_default();
        let name = soname(object).unwrap_or_else(|| file_name(object).to_owned());
        let symbol = frame.symbol.as_deref().unwrap_or_default().trim_start_matches('_');
        let is_libc =
            ["libc.so.", "libpthread.so.", "libc.musl-", "ld-musl-"].iter().any(|libc| name.starts_with(libc));
        is_libc || symbol == call || symbol == "syscall"
    };
    frames.iter().position(|frame| !passes_on(frame)).unwrap_or(0)
}

impl From<End> for Ending {
    fn from(end: End) -> Ending {
        match end {
            End::Status(status) => Ending { status: Some(status), signal: None },
            End::Signal(signal) => Ending { status: None, signal: Some(signal_name(signal)) },
        }
    }
}

/// `SIGSEGV`; a real-time one has a number only.
fn signal_name(signal: i32) -> String {
    nix::sys::signal::Signal::try_from(signal).map_or_else(|_| format!("signal {signal}"), |s| s.as_str().to_owned())
}

fn number(pid: Pid) -> u32 {
    pid.as_raw().unsigned_abs()
}

/// Whether this is the path of the loader, which is what the kernel has executed where `ldseal run` starts programs.
fn is_loader(path: &str) -> bool {
    let name = file_name(path);
    name.strip_prefix("memfd:").unwrap_or(name) == interpreter::NAME
}

/// Whether what a process has just executed is `ld-seal.so`, or a program whose interpreter it is.
fn starts_ld_seal(process: &Process) -> bool {
    let Ok(file) = process.executed() else { return false };
    let is_it = |file: &File| Image::read(file).is_some_and(|image| Image::read(interpreter::IMAGE) == Some(image));
    let named = Headers::read(&file).and_then(|headers| headers.interpreter(&file).ok().flatten());
    let named = named.and_then(|path| File::open(format!("/proc/{}/root{path}", process.pid)).ok());
    is_it(&file) || named.is_some_and(|file| is_it(&file))
}

/// The process that a thread belongs to.
fn process_of(thread: Pid) -> Option<u32> {
    let status = fs::read_to_string(format!("/proc/{thread}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("Tgid:")?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(object: &str, symbol: Option<&str>) -> Frame {
        let symbol = symbol.map(str::to_owned);
        Frame { address: Address(1), object: Some(object.into()), file_address: None, symbol, offset: None }
    }

    #[test]
    fn the_c_library_only_passes_calls_on() {
        let soname = |path: &str| (path == "/lib/renamed").then(|| "libc.so.6".to_owned());
        let caller = |frames: &[Frame]| blamed(frames, "mprotect", soname);
        let libc = frame("/lib/libc.so.6", Some("mprotect"));
        let own = frame("/bin/prog", Some("patch"));
        assert_eq!(caller(&[libc.clone(), own.clone()]), 1);
        assert_eq!(caller(&[frame("/lib/renamed", None), own.clone()]), 1);
        // In a static program by name; and nobody else, if it is all there is.
        assert_eq!(caller(&[frame("/bin/prog", Some("__mprotect")), own.clone()]), 1);
        assert_eq!(caller(&[frame("/bin/prog", Some("syscall")), own.clone()]), 1);
        assert_eq!(caller(&[own, libc.clone()]), 0);
        assert_eq!(caller(&[libc.clone(), libc]), 0);
        assert_eq!(caller(&[]), 0);
    }

    #[test]
    fn signals_have_names() {
        assert_eq!(signal_name(libc::SIGSEGV), "SIGSEGV");
        assert_eq!(signal_name(34), "signal 34");
    }
}
