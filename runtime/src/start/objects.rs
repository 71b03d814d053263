//! Loading the program, the preloads and everything they need.

use super::images;
use super::request::{self, Request};
use super::Failure;
use crate::glibc::cpu::CpuFeatures;
use crate::glibc::libc;
use crate::glibc::link_map::LinkMaps;
use crate::initial_stack::{AuxKey, InitialStack};
use crate::options::Action;
use alloc::borrow::ToOwned;
use alloc::ffi::CString;
use alloc::vec::Vec;
use core::ffi::CStr;
use goblin::elf64::program_header::{PT_DYNAMIC, PT_INTERP, PT_LOAD, PT_PHDR};
use loader::addr::{Addr, Bias, VAddr};
use loader::elf::header::{self, ProgramHeader};
use loader::elf::property;
use loader::elf::view::u64_at;
use loader::error::{LoadError, Lossy, Reason};
use loader::file::{self, Opened};
use loader::image::Image;
use loader::linker::{Linker, Transaction};
use loader::map::plan;
use loader::object::{Kind, Object, ObjectId, Origin, BASE_NAMESPACE};
use loader::search::finder::{self, Finder, SearchOptions};
use loader::search::path;
use loader::sys;
use rustix::fd::AsFd;

/// The name under which other objects need the interpreter.
const INTERPRETER_SONAME: &[u8] = b"ld-linux-x86-64.so.2";
const PRELOAD_FILE: &CStr = c"/etc/ld.so.preload";

/// Everything that is mapped, before it is linked.
pub struct Loaded {
    /// The objects.
    pub linker: Linker,
    /// The finder, with what it has learned.
    pub finder: Finder,
    /// The link maps, none made yet.
    pub maps: LinkMaps,
    /// The program.
    pub main: ObjectId,
    /// The interpreter.
    pub interpreter: ObjectId,
    /// The vDSO.
    pub vdso: Option<ObjectId>,
    /// The program's libc.so.6.
    pub libc: Option<ObjectId>,
    /// The program, the preloads, and their closure, breadth first: the global scope.
    pub closure: Vec<ObjectId>,
}

impl Loaded {
    /// Maps everything.
    pub fn load(
        stack: &mut InitialStack,
        request: &Request,
        cpu: &CpuFeatures,
        base: Addr,
        dynamic: Addr,
    ) -> Result<Loaded, Failure> {
        let mut linker = Linker::new();
        linker.missing = (request.options.action == Action::List).then(Vec::new);
        let mut transaction = Transaction::new(BASE_NAMESPACE);
        let mut finder = Finder::new(request.search_options(cpu));
        let mut program = match &request.program {
            None => adopt_program(stack)?,
            Some(path) => load_program(stack, request, path, base)?,
        };
        program.global = true;
        program.open_count = 1;
        program.label = Some(stack.arg(0).map_or(&b"<main program>"[..], CStr::to_bytes).to_vec());
        let interpreter_name = interpreter_name(&program, request);
        let main = linker.add(&mut transaction, program);
        let vdso = match stack.aux(AuxKey::VdsoHeader).map(Addr) {
            None => None,
            Some(header) => adopt_vdso(header)?.map(|object| linker.add(&mut transaction, object)),
        };
        let interpreter = linker.add(&mut transaction, adopt_interpreter(base, dynamic, interpreter_name)?);
        linker.objects[interpreter].stage = loader::object::Stage::Relocated;
        let mut roots = alloc::vec![main];
        roots.extend(load_preloads(&mut linker, &mut transaction, &mut finder, request, main)?);
        let closure = linker.closure(&mut transaction, &mut finder, &roots)?;
        finder.rest();
        place_interpreter(&mut linker, interpreter, &closure);
        for &id in &closure {
            linker.objects[id].global = true;
        }
        linker.namespace_mut(BASE_NAMESPACE).global_scope = closure.clone();
        let libc = linker.find_by_name(BASE_NAMESPACE, libc::SONAME);
        Ok(Loaded { linker, finder, maps: LinkMaps::default(), main, interpreter, vdso, libc, closure })
    }
}

/// The program that the kernel has mapped and told of in the auxiliary vector.
fn adopt_program(stack: &InitialStack) -> Result<Object, Failure> {
    let (at, count) = (stack.aux(AuxKey::Phdr).unwrap_or(0), stack.aux(AuxKey::Phnum).unwrap_or(0));
    let headers = images::table_at(Addr(at), count);
    let bias = program_bias(&headers, Addr(at));
    let entry = bias.link_time(Addr(stack.aux(AuxKey::Entry).unwrap_or(0)));
    let broken = |what| LoadError::fault(program_name(stack), what);
    // SAFETY: the kernel has mapped these segments.
    let mut image =
        unsafe { Image::adopt(&headers, bias) }.ok_or_else(|| broken("object file has no loadable segments"))?;
    let relro = loader::relro::pages(&headers).map_err(|reason| LoadError::new(program_name(stack), reason))?;
    images::complete(&mut image, relro.as_ref())
        .map_err(|e| LoadError::system(program_name(stack), "cannot map zero-fill pages", e))?;
    let origin = Origin { name: CString::default(), kind: Kind::Executable, file: None, entry };
    let mut object = Object::parse(origin, headers, image).map_err(|mut e| {
        e.object = program_name(stack).to_vec();
        e
    })?;
    if object.headers_at == Addr(0) {
        object.headers_at = Addr(at);
    }
    object.origin = executable_origin();
    Ok(object)
}

fn program_name(stack: &InitialStack) -> &'static [u8] {
    stack.arg(0).map_or(b"<main program>", CStr::to_bytes)
}

/// The load bias of a program whose headers are at `at`.
fn program_bias(headers: &[ProgramHeader], at: Addr) -> Bias {
    if let Some(h) = header::find(headers, PT_PHDR) {
        return Bias::between(at, VAddr(h.p_vaddr));
    }
    // Without PT_PHDR the headers follow the ELF header, in the segment that maps the start of the file.
    match headers.iter().find(|h| h.p_type == PT_LOAD && h.p_offset == 0) {
        Some(h) => Bias::between(Addr(at.0 & !0xfff), VAddr(h.p_vaddr)),
        None => Bias(0),
    }
}

/// The directory of the file that is being executed, links resolved.
fn executable_origin() -> Option<Vec<u8>> {
    let mut buffer = [0u8; 4096];
    let path = sys::read_link(c"/proc/self/exe", &mut buffer).ok()?;
    path.starts_with(b"/").then(|| finder::origin_of(path)).flatten()
}

/// The program that the command line names.
fn load_program(
    stack: &mut InitialStack,
    request: &Request,
    path: &'static CStr,
    base: Addr,
) -> Result<Object, Failure> {
    // A name without a slash is not searched in the library path.
    let options = SearchOptions { library_path: None, ..request.search_options(&CpuFeatures::default()) };
    let mut finder = Finder::new(options);
    let opened = finder.open(path.to_bytes(), None, &loader::object::ObjectTable::new()).map_err(|mut error| {
        // As glibc, which has no error number for a search that found nothing.
        error.errno = error.errno.filter(|_| path.to_bytes().contains(&b'/'));
        error
    })?;
    request::refuse_own_image(&opened, base)?;
    let has_interpreter = header::find(&opened.headers, PT_INTERP).is_some();
    // A file that can't be mapped is not given to the kernel either: what is wrong with it is said below.
    let can_be_mapped = plan::plan(opened.header.e_type, &opened.headers, opened.status.size).is_ok();
    if !has_interpreter && can_be_mapped && request.options.action == Action::Run && !needs_libraries(&opened) {
        return Err(request::execute_static(stack, request, &opened));
    }
    let origin = request.program_origin(&opened);
    let mut object = file::load(opened, Kind::Executable, path.to_bytes())?;
    object.origin = origin;
    object.name = CString::default();
    object.file = None;
    stack.set_aux(AuxKey::Phdr, object.headers_at.0);
    stack.set_aux(AuxKey::Phnum, object.headers.len());
    stack.set_aux(AuxKey::Entry, object.image.bias.run_time(object.entry).0);
    stack.set_aux(AuxKey::ExecFn, request.options.execfn.unwrap_or(path).as_ptr() as usize);
    if request.options.launched {
        stack.set_aux(AuxKey::Base, base.0);
        super::disguise::show_auxv(stack, request.shown);
    }
    Ok(object)
}

/// Whether a file without an interpreter of its own has `DT_NEEDED` entries: then it is for us; else it is a static program.
fn needs_libraries(opened: &Opened) -> bool {
    let Some(h) = header::find(&opened.headers, PT_DYNAMIC) else {
        return false;
    };
    let mut section = alloc::vec![0u8; h.p_filesz.min(64 * 1024) as usize];
    let read = sys::read_at(opened.fd.as_fd(), &mut section, h.p_offset).unwrap_or(0);
    const DT_NEEDED: u64 = 1;
    section[..read]
        .chunks_exact(16)
        .map(|e| u64_at(e, 0))
        .take_while(|tag| *tag != Some(0))
        .any(|tag| tag == Some(DT_NEEDED))
}

/// What the interpreter is called: as the program's PT_INTERP says, or as it was invoked.
fn interpreter_name(program: &Object, request: &Request) -> CString {
    let from_program = header::find(&program.headers, PT_INTERP).and_then(|h| {
        let view = program.image.view();
        let bytes = view.bytes(VAddr(h.p_vaddr), h.p_filesz)?;
        Some(CStr::from_bytes_until_nul(bytes).ok()?.to_owned())
    });
    let invoked = request.invoked_as.map(CStr::to_owned);
    let chosen = if request.program.is_some() { invoked.or(from_program) } else { from_program };
    chosen.unwrap_or_else(|| c"ld-seal.so".to_owned())
}

fn adopt_interpreter(base: Addr, dynamic: Addr, name: CString) -> Result<Object, Failure> {
    let headers = images::headers_at(base);
    let bias = Bias::between(base, VAddr(0));
    // SAFETY: this very code runs from that image.
    let image = unsafe { Image::adopt(&headers, bias) }
        .ok_or_else(|| LoadError::fault(name.to_bytes(), "object file has no loadable segments"))?;
    let origin = Origin { name, kind: Kind::Interpreter, file: None, entry: VAddr(0) };
    let mut object = Object::parse(origin, headers, image)?;
    debug_assert_eq!(object.image.bias.run_time(object.dynamic_at), dynamic);
    object.add_alias(INTERPRETER_SONAME);
    object.origin = finder::origin_of(object.name.to_bytes());
    Ok(object)
}

fn adopt_vdso(header: Addr) -> Result<Option<Object>, Failure> {
    let headers = images::headers_at(header);
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
    object.stage = loader::object::Stage::Relocated;
    Ok(Some(object))
}

/// Loads the preloads. One that can't be loaded is reported and left out; version tables in an unknown format are an error, as in glibc,
/// which reads them when everything is loaded.
fn load_preloads(
    linker: &mut Linker,
    transaction: &mut Transaction,
    finder: &mut Finder,
    request: &Request,
    main: ObjectId,
) -> Result<Vec<ObjectId>, LoadError> {
    let list = preload_file();
    let variable = path::split_preload(request.environment.preload.unwrap_or_default(), request.secure);
    let option = path::split_preload(request.options.preload.unwrap_or_default(), request.secure);
    let named = variable.map(|name| (name, "LD_PRELOAD")).chain(option.map(|name| (name, "--preload")));
    let mut loaded = Vec::new();
    for (name, from) in named.chain(path::split_preload_file(&list).map(|name| (name, "/etc/ld.so.preload"))) {
        match linker.require(transaction, finder, name, Some(main)) {
            Ok(id) => loaded.push(id),
            Err(error) if matches!(error.reason, Reason::RecordVersion { .. }) => return Err(error),
            Err(error) => crate::logger::line(format_args!(
                "ERROR: ld.so: object '{}' from {from} cannot be preloaded ({}): ignored.",
                Lossy(name),
                error.cause()
            )),
        }
    }
    Ok(loaded)
}

fn preload_file() -> Vec<u8> {
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

/// `GNU_PROPERTY_X86_ISA_1_NEEDED` of an object, if it has one.
pub fn isa_needed(object: &Object) -> Option<u32> {
    let h = header::find(&object.headers, header::PT_GNU_PROPERTY)?;
    let view = object.image.view();
    let bytes = view.bytes(VAddr(h.p_vaddr), h.p_memsz)?;
    property::properties(bytes, h.p_align)?.isa_1_needed
}
