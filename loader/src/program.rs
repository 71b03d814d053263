//! A program and all that is mapped with it: the part of a start that decides which objects there are, in which order they stand, and what
//! of them is sealed. It runs nothing of them, so that whoever only wants to know can call it too.

use crate::addr::{Addr, Bias, VAddr};
use crate::elf::header::{self, ProgramHeader};
use crate::error::{Consequence, LoadError, Lossy, Reason};
use crate::file::{self, Occasion, Opened};
use crate::image::Image;
use crate::linker::{Linker, Transaction};
use crate::object::{Kind, Object, ObjectId, ObjectTable, Origin, OriginDirectory, Stage, BASE_NAMESPACE};
use crate::rule::{holds, Rule};
use crate::seal::tunables::{ImageMemory, SealTunables};
use crate::seal::vvar;
use crate::seal::{self, plan::SealPlan};
use crate::search::finder::{self, Finder, SearchOptions};
use crate::search::path;
use crate::static_program::StaticProgram;
use crate::sys;
use alloc::borrow::ToOwned;
use alloc::boxed::Box;
use alloc::ffi::CString;
use alloc::vec::Vec;
use core::ffi::CStr;
use core::fmt;
use core::ops::Range;
use goblin::elf64::program_header::PT_LOAD;
use rustix::fd::{AsFd, AsRawFd};

/// The name under which other objects need the interpreter (psABI, "Program Interpreter").
pub const INTERPRETER_SONAME: &[u8] = b"ld-linux-x86-64.so.2";

/// Where programs look for their interpreter (psABI, "Program Interpreter").
pub const INTERPRETER_PATH: &[u8] = b"/lib64/ld-linux-x86-64.so.2";

/// The preloads of the whole system (ld.so(8)).
const PRELOAD_FILE: &CStr = c"/etc/ld.so.preload";

/// The name of the interpreter's own read-only tables in a seal plan.
pub const TABLES: &[u8] = b"[interpreter's tables]";

/// The name of the kernel's data pages in a seal plan.
const VVAR: &[u8] = b"[vvar]";

/// What a program is put together from.
pub struct Parts {
    /// The program.
    pub program: Box<Object>,
    /// What messages call it: its `argv[0]`.
    pub called: Vec<u8>,
    /// The vDSO, if the kernel lends one.
    pub vdso: Option<Box<Object>>,
    /// The interpreter; see [`as_interpreter`].
    pub interpreter: Box<Object>,
    /// What memory libraries are mapped in.
    pub memory: ImageMemory,
}

/// What is preloaded.
#[derive(Clone, Copy, Default)]
pub struct Preloads<'a> {
    /// `LD_PRELOAD`
    pub environment: &'a [u8],
    /// `--preload`
    pub option: &'a [u8],
    /// `AT_SECURE`
    pub secure: bool,
}

/// A program with its preloads and everything they need: mapped, and nothing of it relocated or run.
pub struct Program {
    /// The objects.
    pub linker: Linker,
    /// The finder, with what it has learned.
    pub finder: Finder,
    /// The program.
    pub main: ObjectId,
    /// The interpreter.
    pub interpreter: ObjectId,
    /// The vDSO.
    pub vdso: Option<ObjectId>,
    /// The program, the preloads, and their closure, breadth first: the global scope.
    pub closure: Vec<ObjectId>,
}

impl Program {
    /// Maps the preloads and the closure. With `listing` a library that is not found is noted in [`Linker::missing`] and is no error. A
    /// preload that can't be loaded is left out; `warn` gets the line that says so.
    ///
    /// # Errors
    /// The first object that is missing or broken.
    pub fn load(
        parts: Parts,
        mut finder: Finder,
        preloads: Preloads<'_>,
        listing: bool,
        warn: &mut dyn FnMut(fmt::Arguments<'_>),
    ) -> Result<Program, LoadError> {
        let Begun { mut linker, main, interpreter, vdso } = Begun::new(parts, listing);
        let mut transaction = Transaction::new(BASE_NAMESPACE);
        let mut roots = alloc::vec![main];
        let list = preload_file();
        for wanted in preloads.all(&list) {
            roots.extend(wanted.load(&mut linker, &mut transaction, &mut finder, main, warn)?);
        }
        let mut closure = linker.closure(&mut transaction, &mut finder, &roots)?;
        if !holds(Rule::PreloadedFirst) {
            closure[1..].rotate_left(roots.len() - 1);
        }
        finder.rest();
        settle(&mut linker, interpreter, &closure);
        Ok(Program { linker, finder, main, interpreter, vdso, closure })
    }
}

/// A program of which only what the kernel has mapped is there.
pub struct Begun {
    /// The objects.
    pub linker: Linker,
    /// The program.
    pub main: ObjectId,
    /// The interpreter.
    pub interpreter: ObjectId,
    /// The vDSO.
    pub vdso: Option<ObjectId>,
}

impl Begun {
    /// Puts the parts in their places. As for `listing`, see [`Program::load`].
    pub fn new(parts: Parts, listing: bool) -> Begun {
        let mut linker = Linker::new();
        linker.missing = listing.then(Vec::new);
        linker.memory = parts.memory;
        let mut transaction = Transaction::new(BASE_NAMESPACE);
        let mut program = parts.program;
        program.global = true;
        program.open_count = 1;
        program.label = Some(parts.called);
        let main = linker.add(&mut transaction, program);
        let vdso = parts.vdso.map(|object| linker.add(&mut transaction, object));
        let interpreter = linker.add(&mut transaction, parts.interpreter);
        Begun { linker, main, interpreter, vdso }
    }
}

/// Makes a closure that is mapped the program's: the global scope, and the place of the interpreter in the list.
pub fn settle(linker: &mut Linker, interpreter: ObjectId, closure: &[ObjectId]) {
    place_interpreter(linker, interpreter, closure);
    for &id in closure {
        linker.objects[id].global = true;
    }
    linker.namespace_mut(BASE_NAMESPACE).global_scope = closure.to_vec();
    if linker.missing.as_ref().is_some_and(|missing| !missing.is_empty()) {
        linker.forget_versions(closure);
    }
}

/// Opens the file that a command line names. A name without a slash is looked up in the cache of library names and nowhere else, as by
/// glibc 2.36.
///
/// # Errors
/// There is none, or it is broken.
pub fn open(name: &CStr, options: SearchOptions) -> Result<Opened, LoadError> {
    let mut finder = Finder::of_cache(options);
    finder.open(name.to_bytes(), None, &ObjectTable::new())
}

/// Maps the program that a command line names.
///
/// # Errors
/// What can't be mapped or parsed.
pub fn executable(
    opened: Opened,
    name: &CStr,
    origin: Option<Vec<u8>>,
    memory: ImageMemory,
) -> Result<Box<Object>, LoadError> {
    log::debug!(target: "files", "file={} [0];  generating link map", Lossy(name.to_bytes()));
    let mut object = file::load(opened, Kind::Executable, name.to_bytes(), memory, Occasion::Start)?;
    object.log_place();
    object.origin = OriginDirectory::known(origin);
    object.name = CString::default();
    object.file = None;
    Ok(object)
}

/// `$ORIGIN` as the kernel's mapping of a program would give it: the directory of the file, links resolved. `None` without `/proc`.
pub fn origin_of_file(opened: &Opened) -> Option<Vec<u8>> {
    let link = CString::new(alloc::format!("/proc/self/fd/{}", opened.fd.as_raw_fd())).ok()?;
    let mut buffer = [0u8; 4096];
    let path = sys::read_link(&link, &mut buffer).ok()?;
    path.starts_with(b"/").then(|| finder::origin_of(path)).flatten()
}

/// Makes an object the interpreter: it answers to the name that libc needs, and nobody relocates it.
pub fn as_interpreter(mut object: Box<Object>) -> Box<Object> {
    object.add_alias(INTERPRETER_SONAME);
    object.origin = OriginDirectory::known(finder::origin_of(object.name.to_bytes()));
    object.stage = Stage::Relocated;
    object
}

/// The vDSO whose ELF header is at `header` (`AT_SYSINFO_EHDR`); `None` if it has no segments.
///
/// # Errors
/// Its dynamic section is broken.
///
/// # Safety
/// The kernel must have mapped it there, for good.
pub unsafe fn vdso(header: Addr) -> Result<Option<Box<Object>>, LoadError> {
    // SAFETY: the caller's contract.
    let headers = unsafe { headers_at(header) };
    let Some(first) = headers.iter().find(|h| h.p_type == PT_LOAD) else {
        return Ok(None);
    };
    let bias = Bias::between(header, VAddr(first.p_vaddr));
    // SAFETY: the kernel has mapped it.
    let Some(image) = (unsafe { Image::adopt(&headers, bias) }) else {
        return Ok(None);
    };
    let origin = Origin { name: c"linux-vdso.so.1".to_owned(), kind: Kind::Vdso, file: None, entry: VAddr(0) };
    let mut object = Object::parse(origin, headers, image)?;
    if let Some(soname) = object.soname().and_then(|s| CString::new(s).ok()) {
        object.name = soname;
    }
    object.stage = Stage::Relocated;
    Ok(Some(object))
}

/// The program headers of an image whose ELF header is at `base`.
///
/// # Safety
/// The kernel must have mapped an ELF image there, its program headers included.
pub unsafe fn headers_at(base: Addr) -> Vec<ProgramHeader> {
    // SAFETY: an ELF header is mapped at `base`.
    let file_header = unsafe { core::slice::from_raw_parts(base.as_ptr::<u8>(), 64) };
    match header::parse(file_header) {
        // SAFETY: it says where they are.
        Ok(h) => unsafe { headers_in_table(Addr(base.0.wrapping_add(h.phoff as usize)), h.phnum) },
        Err(_) => Vec::new(),
    }
}

/// The program headers that lie at `at`.
///
/// # Safety
/// So many must be mapped there.
pub unsafe fn headers_in_table(at: Addr, count: usize) -> Vec<ProgramHeader> {
    // SAFETY: the caller's contract.
    let table = unsafe { core::slice::from_raw_parts(at.as_ptr::<u8>(), count * header::PHDR_SIZE) };
    let mut headers = Vec::with_capacity(count);
    headers.extend((0..count).filter_map(|i| header::program_header(table, i)));
    headers
}

/// Loads one preload. Secure execution takes a library that is searched for only if it has the set-user-ID bit: the administrator's word
/// that it may be preloaded (ld.so(8), "LD_PRELOAD").
fn preload(
    linker: &mut Linker,
    transaction: &mut Transaction,
    finder: &mut Finder,
    name: &[u8],
    main: ObjectId,
    secure: bool,
) -> Result<ObjectId, LoadError> {
    if linker.find_by_name(transaction.namespace, name).is_none() {
        let (by, at) = (Lossy(linker.objects[main].display_name()), transaction.namespace.0);
        log::debug!(target: "files", "\nfile={} [{at}];  needed by {by} [{at}]", Lossy(name));
    }
    if !secure || name.contains(&b'/') || linker.find_by_name(transaction.namespace, name).is_some() {
        return linker.require(transaction, finder, name, Some(main));
    }
    let opened = finder.open_privileged(name, main, &linker.objects)?;
    linker.adopt(transaction, opened, name, Some(main))
}

/// An object to be preloaded.
#[derive(Clone, Copy)]
pub struct Preload<'a> {
    name: &'a [u8],
    /// Who asks for it, as messages say.
    from: &'static str,
    secure: bool,
}

impl<'a> Preloads<'a> {
    /// All of them in their order; `file` is what [`preload_file`] says.
    pub fn all(self, file: &'a [u8]) -> impl Iterator<Item = Preload<'a>> {
        let secure = self.secure;
        let variable = path::split_preload(self.environment, secure).map(|name| (name, "LD_PRELOAD"));
        let option = path::split_preload(self.option, secure).map(|name| (name, "--preload"));
        let file = path::split_preload_file(file).map(|name| (name, "/etc/ld.so.preload"));
        variable.chain(option).chain(file).map(move |(name, from)| Preload { name, from, secure })
    }
}

impl Preload<'_> {
    /// Loads it. If that can't be done it is reported and left out.
    ///
    /// # Errors
    /// Version tables in an unknown format, as in glibc, which reads them when everything is loaded.
    pub fn load(
        self,
        linker: &mut Linker,
        transaction: &mut Transaction,
        finder: &mut Finder,
        main: ObjectId,
        warn: &mut dyn FnMut(fmt::Arguments<'_>),
    ) -> Result<Option<ObjectId>, LoadError> {
        match preload(linker, transaction, finder, self.name, main, self.secure) {
            Ok(id) => Ok(Some(id)),
            Err(error) if matches!(error.reason, Reason::RecordVersion { .. }) => Err(error),
            Err(error) => {
                warn(format_args!(
                    "ERROR: ld.so: object '{}' from {} cannot be preloaded ({}): ignored.",
                    Lossy(self.name),
                    self.from,
                    error.cause()
                ));
                Ok(None)
            }
        }
    }
}

/// The content of `/etc/ld.so.preload`.
pub fn preload_file() -> Vec<u8> {
    let mut list = Vec::new();
    if let Ok(fd) = sys::open_read(PRELOAD_FILE) {
        let size = sys::status(fd.as_fd()).map_or(0, |s| s.size.min(1 << 20));
        list.resize(size as usize, 0);
        let read = sys::read_at(fd.as_fd(), &mut list, 0).unwrap_or(0);
        list.truncate(read);
    }
    list
}

/// Puts the interpreter where the list of objects has it under glibc: behind the object before it in the scope, or nowhere if nobody needs
/// it.
fn place_interpreter(linker: &mut Linker, interpreter: ObjectId, closure: &[ObjectId]) {
    let list = &mut linker.namespace_mut(BASE_NAMESPACE).list;
    list.retain(|id| *id != interpreter);
    let Some(at) = closure.iter().position(|id| *id == interpreter) else {
        return;
    };
    let before = at.checked_sub(1).and_then(|i| closure.get(i)).and_then(|b| list.iter().position(|id| id == b));
    list.insert(before.map_or(list.len(), |i| i + 1), interpreter);
}

/// Whether every version is there that an object of the closure needs. `warn` gets a line for each that is not, and for each object
/// without any versions, in spite of which the start goes on, as in glibc.
///
/// # Errors
/// Any other fault of the versions, the first.
pub fn has_all_versions(
    linker: &Linker,
    closure: &[ObjectId],
    main: ObjectId,
    warn: &mut dyn FnMut(fmt::Arguments<'_>),
) -> Result<bool, LoadError> {
    let mut complete = true;
    for error in closure.iter().flat_map(|&id| linker.missing_versions(id)) {
        match error.reason {
            Reason::NoVersions { .. } | Reason::MissingVersion { weak: true, .. } => {}
            Reason::MissingVersion { .. } => complete = false,
            _ => return Err(error),
        }
        error.tell(Consequence::Continued);
        warn(format_args!("{}: {error}", Lossy(linker.objects[main].display_name())));
    }
    Ok(complete)
}

/// Checks what is cheap to check of the closure before anything is relocated or run: the ISA level, of which the CPU has `isa_1` (bits of
/// `GNU_PROPERTY_X86_ISA_1_NEEDED`), and the places of constructors and destructors.
///
/// # Errors
/// The first object that does not pass.
pub fn check_objects(linker: &Linker, closure: &[ObjectId], isa_1: u32) -> Result<(), LoadError> {
    // As in glibc, what others depend on first.
    for &id in closure.iter().rev() {
        check_isa(&linker.objects[id], isa_1)?;
    }
    for &id in closure {
        linker.objects[id].check_functions()?;
    }
    Ok(())
}

/// What is said of an object that is built for another CPU.
pub const ISA_TOO_LOW: &str = "CPU ISA level is lower than required";

/// Checks that a CPU with the levels `isa_1` (bits of `GNU_PROPERTY_X86_ISA_1_NEEDED`) has those that an object needs.
///
/// # Errors
/// It has not.
pub fn check_isa(object: &Object, isa_1: u32) -> Result<(), LoadError> {
    let needed = object.properties().and_then(|properties| properties.isa_1_needed);
    if needed.is_some_and(|needed| needed & isa_1 != needed) {
        return Err(LoadError::fault(object.display_name(), ISA_TOO_LOW));
    }
    Ok(())
}

/// Checks that the objects of a start may be loaded where seals are enforced ([`seal::plan::check`]).
///
/// # Errors
/// The first that may not.
pub fn check_sealable(linker: &Linker, closure: &[ObjectId], tunables: &SealTunables<'_>) -> Result<(), LoadError> {
    closure.iter().map(|&id| &linker.objects[id]).try_for_each(|o| seal::plan::check(o.display_name(), o, tunables))
}

/// What the commit of a start seals, but for the interpreter's heap: the objects in the order of their list, the interpreter with
/// `tables`, those of its data that are for ever read-only once they are filled.
/// `tell_slots` as for [`SealPlan::add`].
///
/// The kernel's data pages are not among them: [`add_kernel_data`].
pub fn seal_plan(
    linker: &Linker,
    interpreter: ObjectId,
    tables: Range<Addr>,
    tunables: &SealTunables<'_>,
    tell_slots: bool,
) -> SealPlan {
    let list = &linker.namespace(BASE_NAMESPACE).list;
    let own = (!list.contains(&interpreter)).then_some(interpreter);
    // The interpreter, its tables, its heap, and the kernel's pages come to the list: with room for all of them from the beginning a
    // start that seals touches no memory that one without seals does not.
    let mut plan = SealPlan::default();
    plan.objects.reserve_exact(list.len() + 5);
    for id in list.iter().copied().chain(own) {
        let object = &linker.objects[id];
        plan.add(object.display_name(), object, tunables, tell_slots);
    }
    if !tunables.seals() {
        return plan;
    }
    plan.add_range(TABLES, tables, None);
    plan
}

/// Adds the kernel's data pages below the vDSO where they can be told, for which the kernel is asked.
pub fn add_kernel_data(plan: &mut SealPlan, vdso: Option<&Object>, tunables: &SealTunables<'_>) {
    if let Some(vdso) = vdso.filter(|_| tunables.vdso && tunables.seals()) {
        if let Some(pages) = vvar::below(vdso.image.range.start, sys::is_kernel_page) {
            plan.add_range(VVAR, pages, None);
        }
    }
}

/// What the start of a static program seals, but for the interpreter's heap: the program, the vDSO and the interpreter, which stays in the
/// process though nobody calls it again. The kernel's data pages are not among them.
pub fn seal_plan_of_static(
    name: &[u8],
    program: &StaticProgram,
    interpreter: &Object,
    vdso: Option<&Object>,
    tunables: &SealTunables<'_>,
) -> SealPlan {
    let mut plan = SealPlan::default();
    plan.add_static(name, program, tunables);
    for object in vdso.into_iter().chain([interpreter]) {
        plan.add(object.display_name(), object, tunables, true);
    }
    plan
}
