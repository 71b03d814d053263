//! The address space of a traced process: what lies where, what is sealed, and who calls whom.

use super::calls::{Call, Ranges};
use super::model::{Frame, Memory};
use super::symbols::Symbols;
use super::unwind::{self, Tables, Unwinder};
use crate::report::collect::{self, other, roles};
use crate::report::memory;
use crate::report::model::{Address, Role};
use crate::report::objects::{self, inside, Object};
use crate::report::process::Process;
use crate::report::smaps::Mapping;
use nix::libc::user_regs_struct;
use std::collections::HashMap;
use std::fs::{self, File};
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::rc::Rc;

/// The most `iovec`s that a call takes (UIO_MAXIOV).
const VECTORS: u64 = 1024;

/// What many processes have in common, by an object's path and span: it is read once.
#[derive(Default)]
pub struct Shared {
    tables: HashMap<(String, u64), Option<Rc<Tables>>>,
    symbols: HashMap<(String, u64), Rc<Symbols>>,
}

/// One process.
pub struct Space {
    /// The process.
    pub process: Process,
    /// What it is called with.
    pub command: Vec<String>,
    /// Whether `ld-seal.so` is its loader.
    pub under_ld_seal: bool,
    memory: Option<File>,
    mappings: Vec<Mapping>,
    /// Why the mappings can't be seen.
    pub unreadable: Option<io::Error>,
    objects: Vec<Object>,
    roles: Vec<Role>,
    unwinder: Unwinder,
}

impl Space {
    /// A process about which nothing is known yet.
    pub fn new(pid: u32) -> Space {
        let process = Process { pid };
        Space {
            memory: process.memory().ok(),
            command: Vec::new(),
            under_ld_seal: false,
            mappings: Vec::new(),
            unreadable: None,
            objects: Vec::new(),
            roles: Vec::new(),
            unwinder: Unwinder::default(),
            process,
        }
    }

    /// Looks at the mappings as they are now.
    pub fn refresh(&mut self, shared: &mut Shared) {
        let command = self.process.command_line();
        self.command = command.iter().map(|word| String::from_utf8_lossy(word).into_owned()).collect();
        match self.process.mappings() {
            Ok(mappings) => (self.mappings, self.unreadable) = (mappings, None),
            Err(error) => {
                (self.mappings, self.unreadable) = (Vec::new(), Some(error));
                return;
            }
        }
        let process = &self.process;
        let mut images = HashMap::new();
        let mut objects = objects::find(&self.mappings, |mapping| {
            images.entry((mapping.name.clone(), mapping.inode)).or_insert_with(|| process.image(mapping)).clone()
        });
        objects.extend(memory::find(process, &self.mappings, &objects));
        objects.sort_by_key(|object| object.span().start);
        if unwind::same_places(&objects, &self.objects) {
            return;
        }
        self.roles = roles(process, &objects);
        self.under_ld_seal = objects.iter().any(collect::is_ld_seal);
        self.objects = objects;
        self.learn_to_unwind(shared);
    }

    fn learn_to_unwind(&mut self, shared: &mut Shared) {
        self.unwinder = Unwinder::default();
        let Some(memory) = &self.memory else { return };
        let spans = self.objects.iter().map(|object| (object.path.clone(), object.span()));
        let vdso = self.mappings.iter().filter(|m| m.name == "[vdso]").map(|m| (m.name.clone(), m.range.clone()));
        for (path, span) in spans.chain(vdso) {
            let read = || Tables::read(memory, span.start, || self.file(&path, &span)).map(Rc::new);
            let tables = shared.tables.entry((path.clone(), span.end - span.start)).or_insert_with(read);
            if let Some(tables) = tables {
                self.unwinder.add(span, tables);
            }
        }
    }

    /// The instructions that led to the call that a thread is in.
    pub fn callers(&mut self, registers: &user_regs_struct) -> Vec<u64> {
        self.unwinder.callers(registers, self.memory.as_ref())
    }

    /// The memory that a call is about; for process_madvise what is left of it after `result` bytes. It can be another process's, whose
    /// number comes with it.
    pub fn ranges(&self, call: &Call, result: i64) -> (Vec<Range<u64>>, Option<u32>) {
        match call.ranges(result) {
            Ranges::Here(ranges) => (ranges, None),
            Ranges::Segment(start, id) => {
                let size = segment_size(id as i32).unwrap_or(1).next_multiple_of(4096);
                (vec![start..start.saturating_add(size)], None)
            }
            Ranges::Vector(address, count) => {
                let pidfd = format!("/proc/{}/fdinfo/{}", self.process.pid, call.arguments[0] as i32);
                let told = fs::read_to_string(pidfd).unwrap_or_default();
                let target = told.lines().find_map(|line| line.strip_prefix("Pid:")?.trim().parse().ok());
                (self.vectors(address, count, u64::try_from(result).unwrap_or(0)), target)
            }
        }
    }

    /// The first range of a list of `iovec`s that lies behind `done` bytes.
    fn vectors(&self, address: u64, count: u64, mut done: u64) -> Vec<Range<u64>> {
        let mut bytes = vec![0; count.min(VECTORS) as usize * 16];
        if self.memory.as_ref().is_none_or(|memory| memory.read_exact_at(&mut bytes, address).is_err()) {
            return Vec::new();
        }
        let word = |bytes: &[u8]| bytes.iter().rev().fold(0u64, |word, &byte| word << 8 | u64::from(byte));
        for entry in bytes.chunks_exact(16) {
            let (start, length) = (word(&entry[..8]), word(&entry[8..]));
            if done < length {
                let end = start.saturating_add(length).checked_next_multiple_of(4096).unwrap_or(u64::MAX);
                return vec![start.saturating_add(done)..end];
            }
            done -= length;
        }
        Vec::new()
    }

    /// Whether any of the mappings shows a seal.
    pub fn shows_seals(&self) -> bool {
        self.mappings.iter().any(|mapping| mapping.sealed)
    }

    /// Whether the mapping at an address is the break area.
    pub fn is_break_area(&self, address: u64) -> bool {
        self.mappings.iter().any(|m| m.name == "[heap]" && m.range.contains(&address))
    }

    /// What of these ranges is sealed, or, without `told`, what there is at all of objects and of the kernel's mappings.
    pub fn sealed_in(&self, ranges: &[Range<u64>], told: bool) -> Vec<Memory> {
        let mut found: Vec<Memory> = Vec::new();
        for mapping in self.mappings.iter().filter(|mapping| mapping.sealed || !told) {
            for range in ranges {
                let (start, end) = (range.start.max(mapping.range.start), range.end.min(mapping.range.end));
                if start < end {
                    self.cut(mapping, start..end, &mut found);
                }
            }
        }
        found.retain(|memory| told || memory.file_address.is_some() || memory.role == Role::Kernel);
        found
    }

    /// Tells a piece of a mapping apart by object and kind.
    fn cut(&self, mapping: &Mapping, range: Range<u64>, into: &mut Vec<Memory>) {
        let owners = self.objects.iter().zip(&self.roles);
        let of_objects: Vec<_> = owners.filter_map(|(o, &role)| Some((o, role, inside(&range, o)?))).collect();
        let mut add = |piece: Memory| match into.last_mut() {
            // Neighbours of one kind are one part, whatever the mappings are.
            Some(last) if last.end == piece.start && (&last.object, last.kind) == (&piece.object, piece.kind) => {
                last.end = piece.end;
            }
            _ => into.push(piece),
        };
        for (object, role, range) in &of_objects {
            for (piece, kind) in object.cut(range.clone()) {
                add(Memory {
                    object: object.path.clone(),
                    role: *role,
                    kind,
                    start: Address(piece.start),
                    end: Address(piece.end),
                    file_address: Some(Address(piece.start.wrapping_sub(object.bias))),
                });
            }
        }
        if of_objects.is_empty() {
            let (kind, role) = other(&mapping.name);
            let object = if mapping.name.is_empty() { "[anonymous]".into() } else { mapping.name.clone() };
            let (start, end) = (Address(range.start), Address(range.end));
            add(Memory { object, role, kind, start, end, file_address: None });
        }
    }

    /// What an address of code is called.
    pub fn frame(&self, address: u64, shared: &mut Shared) -> Frame {
        let mut frame =
            Frame { address: Address(address), object: None, file_address: None, symbol: None, offset: None };
        let (symbols, in_file) = if let Some(object) = self.objects.iter().find(|o| o.span().contains(&address)) {
            frame.object = Some(object.path.clone());
            (self.symbols(object, shared), address.wrapping_sub(object.bias))
        } else if let Some(vdso) = self.mappings.iter().find(|m| m.name == "[vdso]" && m.range.contains(&address)) {
            frame.object = Some(vdso.name.clone());
            (self.vdso_symbols(&vdso.range, shared), address - vdso.range.start)
        } else {
            let mapping = self.mappings.iter().find(|mapping| mapping.range.contains(&address));
            frame.object = mapping.map(|m| if m.name.is_empty() { "[anonymous]".into() } else { m.name.clone() });
            return frame;
        };
        frame.file_address = Some(Address(in_file));
        if let Some((symbol, offset)) = symbols.find(in_file) {
            (frame.symbol, frame.offset) = (Some(symbol), Some(offset));
        }
        frame
    }

    fn symbols(&self, object: &Object, shared: &mut Shared) -> Rc<Symbols> {
        let span = object.span();
        let key = (object.path.clone(), span.end - span.start);
        let read = || {
            let file = self.file(&object.path, &span);
            Rc::new(file.map_or_else(Symbols::default, Symbols::of_file))
        };
        Rc::clone(shared.symbols.entry(key).or_insert_with(read))
    }

    /// The file of an object.
    fn file(&self, path: &str, span: &Range<u64>) -> Option<File> {
        let mapping = self.mappings.iter().find(|m| m.name == path && span.contains(&m.range.start));
        self.process.open(mapping?)
    }

    fn vdso_symbols(&self, range: &Range<u64>, shared: &mut Shared) -> Rc<Symbols> {
        let read = || {
            let mut bytes = vec![0; (range.end - range.start) as usize];
            let memory = self.memory.as_ref().and_then(|memory| memory.read_exact_at(&mut bytes, range.start).ok());
            Rc::new(memory.map_or_else(Symbols::default, |()| Symbols::of_bytes(&bytes)))
        };
        Rc::clone(shared.symbols.entry(("[vdso]".into(), range.end - range.start)).or_insert_with(read))
    }

    /// The names by which an object may be known: of its file, its DT_SONAME, and what the program was called by.
    pub fn names(&self, path: &str, program: Option<&str>) -> Vec<String> {
        let mut names = vec![objects::file_name(path).to_owned()];
        let known = self.objects.iter().zip(&self.roles).find(|(object, _)| object.path == path);
        if let Some((object, role)) = known {
            names.extend(object.image.soname.clone());
            names.extend(program.filter(|_| *role == Role::Executable).map(|name| objects::file_name(name).to_owned()));
        }
        names
    }

    /// The object that an object's path names.
    pub fn soname(&self, path: &str) -> Option<&str> {
        self.objects.iter().find(|object| object.path == path)?.image.soname.as_deref()
    }

    /// Whether the level shows in writable memory of objects that is sealed; None if nothing of them is.
    pub fn data_is_sealed(&self) -> Option<bool> {
        let sealed = || {
            let in_object = |m: &&Mapping| self.objects.iter().any(|object| inside(&m.range, object).is_some());
            self.mappings.iter().filter(|mapping| mapping.sealed).filter(in_object)
        };
        sealed().next().map(|_| sealed().any(|mapping| mapping.permissions.write))
    }
}

/// The size of a System V segment (proc_sysvipc_shm(5)).
fn segment_size(id: i32) -> Option<u64> {
    let table = fs::read_to_string("/proc/sysvipc/shm").ok()?;
    let mut rows = table.lines().skip(1).map(|row| row.split_whitespace());
    rows.find_map(|mut row| {
        let found = row.nth(1)?.parse::<i32>().ok()? == id;
        row.nth(1).filter(|_| found)?.parse().ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::model::Kind;

    #[test]
    fn without_the_kernels_word_all_of_an_object_may_be_sealed() {
        let mut space = Space::new(std::process::id());
        space.refresh(&mut Shared::default());
        let text = segment_size as *const () as usize as u64 & !4095;
        let text = std::slice::from_ref(&(text..text + 4096)).to_vec();
        assert_eq!(space.sealed_in(&text, true), []);
        let found = space.sealed_in(&text, false);
        assert_eq!(found.iter().map(|memory| memory.kind).collect::<Vec<_>>(), [Kind::Text]);
        assert!(found[0].file_address.is_some() && found[0].role == Role::Executable);
        let local = 0u8;
        let stack = std::ptr::from_ref(&local) as u64 & !4095;
        assert_eq!(space.sealed_in(std::slice::from_ref(&(stack..stack + 4096)), false), []);
    }

    #[test]
    fn functions_of_this_process_have_names() {
        let (mut space, mut shared) = (Space::new(std::process::id()), Shared::default());
        space.refresh(&mut shared);
        let frame = space.frame(segment_size as *const () as usize as u64 + 1, &mut shared);
        assert!(frame.symbol.is_some_and(|symbol| symbol.ends_with("segment_size")) && frame.offset == Some(1));
        assert_eq!(space.frame(0, &mut shared).object, None);
    }
}
