//! Loading the program, the preloads and everything they need.

use super::request::{self, Request};
use super::Failure;
use super::{images, listing};
use crate::glibc::cpu::CpuFeatures;
use crate::glibc::libc;
use crate::glibc::link_map::LinkMaps;
use crate::glibc::start::tell_vdso;
use crate::initial_stack::{AuxKey, InitialStack};
use crate::logger;
use crate::options::Action;
use alloc::borrow::ToOwned;
use alloc::boxed::Box;
use alloc::ffi::CString;
use alloc::vec::Vec;
use core::ffi::CStr;
use goblin::elf64::dynamic::{DT_NULL, DT_SONAME, DT_STRTAB};
use goblin::elf64::header::ET_EXEC;
use goblin::elf64::program_header::{PT_DYNAMIC, PT_INTERP, PT_LOAD, PT_PHDR};
use loader::addr::{Addr, Bias, VAddr};
use loader::elf::header::{self, ProgramHeader};
use loader::elf::view::u64_at;
use loader::error::LoadError;
use loader::file::Opened;
use loader::image::Image;
use loader::linker::Linker;
use loader::object::{Kind, Object, ObjectId, Origin, OriginDirectory, BASE_NAMESPACE};
use loader::program::{self, Parts, Program};
use loader::search::finder::{self, Finder};
use loader::static_program;
use loader::sys;
use rustix::fd::AsFd;

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

/// What there is to start.
pub enum Start {
    /// A program that needs a loader.
    Dynamic(Box<Beginning>),
    /// A static program, not mapped yet.
    Static(Box<Opened>),
}

/// What is known of a program that is listed and not run.
#[derive(Clone, Copy)]
pub struct Listed<'l> {
    /// The objects.
    pub linker: &'l Linker,
    /// The program.
    pub main: ObjectId,
    /// The interpreter.
    pub interpreter: ObjectId,
    /// The program, the preloads, and their closure, breadth first: the global scope.
    pub closure: &'l [ObjectId],
}

/// What a start begins with: the program, the vDSO and the interpreter.
pub struct Beginning {
    /// These.
    pub parts: Parts,
    /// A finder that has not been asked for anything.
    pub finder: Finder,
}

impl Beginning {
    /// Maps the program, unless the kernel has done so.
    pub fn map(
        stack: &mut InitialStack,
        request: &Request,
        cpu: &CpuFeatures,
        hwcap_mask: u64,
        base: Addr,
        dynamic: Addr,
    ) -> Result<Start, Failure> {
        let options = request.search_options(cpu, hwcap_mask);
        let program = match &request.program {
            None => adopt_program(stack, request)?,
            Some(path) => {
                let opened = program::open(path, options.clone()).inspect_err(|_| unverified(request))?;
                // As in glibc, which knows a program by its dynamic section, but for those that may lie at one address only.
                let is_known = request.options.launched || opened.header.e_type == ET_EXEC || opened.has_dynamic();
                if request.options.action == Action::Run && is_known && static_program::is_static(&opened) {
                    request::refuse_interpreter(request, soname_in_file(&opened).as_deref());
                    request.name_program(stack);
                    return Ok(Start::Static(Box::new(opened)));
                }
                let program = load_program(stack, request, opened, path, base).inspect_err(|_| unverified(request))?;
                request.name_program(stack);
                program
            }
        };
        if request.options.action == Action::Verify {
            listing::verify(&program);
        }
        let finder = Finder::new(options);
        let vdso = vdso(stack)?;
        vdso.iter().for_each(|vdso| tell_vdso(vdso));
        let interpreter = adopt_interpreter(base, dynamic, InterpreterNames::of(&program, request))?;
        let called = stack.arg(0).map_or(&b"<main program>"[..], CStr::to_bytes).to_vec();
        let memory = request.seal.image_memory();
        let parts = Parts { program, called, vdso, interpreter, memory };
        Ok(Start::Dynamic(Box::new(Beginning { parts, finder })))
    }
}

impl Loaded {
    /// For a listing.
    pub fn listed(&self) -> Listed<'_> {
        let Loaded { linker, main, interpreter, closure, .. } = self;
        Listed { linker, main: *main, interpreter: *interpreter, closure }
    }

    /// Maps everything else.
    pub fn load(beginning: Beginning, request: &Request) -> Result<Loaded, Failure> {
        let Beginning { parts, finder } = beginning;
        let listing = request.options.action == Action::Trace;
        let program = Program::load(parts, finder, request.preloads(), listing, &mut logger::line)?;
        let Program { linker, finder, main, interpreter, vdso, closure } = program;
        let libc = linker.find_by_name(BASE_NAMESPACE, libc::SONAME);
        let maps = LinkMaps::default();
        Ok(Loaded { linker, finder, maps, main, interpreter, vdso, libc, closure })
    }
}

/// The program that the kernel has mapped and told of in the auxiliary vector.
fn adopt_program(stack: &InitialStack, request: &Request) -> Result<Box<Object>, Failure> {
    let (at, count) = (stack.aux(AuxKey::Phdr).unwrap_or(0), stack.aux(AuxKey::Phnum).unwrap_or(0));
    // SAFETY: the kernel says that they are there.
    let headers = unsafe { program::headers_in_table(Addr(at), count) };
    let bias = program_bias(&headers, Addr(at));
    let entry = bias.link_time(Addr(stack.aux(AuxKey::Entry).unwrap_or(0)));
    let broken = |what| LoadError::fault(program_name(stack), what);
    // SAFETY: the kernel has mapped these segments.
    let mut image =
        unsafe { Image::adopt(&headers, bias) }.ok_or_else(|| broken("object file has no loadable segments"))?;
    let relro = loader::relro::pages(&headers).map_err(|reason| LoadError::new(program_name(stack), reason))?;
    images::complete(program_name(stack), &headers, &mut image, relro.as_ref(), request.seal.image_memory())?;
    let origin = Origin { name: CString::default(), kind: Kind::Executable, file: None, entry };
    let mut object = Object::parse(origin, headers, image).map_err(|mut e| {
        e.object = program_name(stack).to_vec();
        e
    })?;
    if object.headers_at == Addr(0) {
        object.headers_at = Addr(at);
    }
    object.log_flags();
    object.origin = executable_origin(request);
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

/// The directory of the file that is being executed, links resolved; without `/proc` what `LD_ORIGIN_PATH` says. The kernel is asked only
/// where it matters: a look into `/proc` is among the dearest things that a start can do.
fn executable_origin(request: &Request) -> OriginDirectory {
    match request.environment.origin_path {
        None => OriginDirectory::found_by(origin_of_this_process),
        Some(path) => {
            let bare = path.iter().rposition(|&b| b != b'/').map_or(1, |last| last + 1).min(path.len());
            OriginDirectory::known(origin_of_this_process().or_else(|| Some(path[..bare].to_vec())))
        }
    }
}

fn origin_of_this_process() -> Option<Vec<u8>> {
    let mut buffer = [0u8; 4096];
    let path = sys::read_link(c"/proc/self/exe", &mut buffer).ok()?;
    path.starts_with(b"/").then(|| finder::origin_of(path)).flatten()
}

/// The kernel's vDSO, if there is one.
///
/// # Errors
/// Its dynamic section is broken.
pub fn vdso(stack: &InitialStack) -> Result<Option<Box<Object>>, LoadError> {
    match stack.aux(AuxKey::VdsoHeader).map(Addr) {
        None => Ok(None),
        // SAFETY: the kernel says that its vDSO is there.
        Some(header) => unsafe { program::vdso(header) },
    }
}

/// What can't even be mapped is told by the status alone where nothing else is asked.
fn unverified(request: &Request) {
    if request.options.action == Action::Verify {
        sys::exit(1);
    }
}

/// Maps the program that the command line names.
fn load_program(
    stack: &mut InitialStack,
    request: &Request,
    opened: Opened,
    path: &'static CStr,
    base: Addr,
) -> Result<Box<Object>, Failure> {
    let origin = request.program_origin(&opened);
    let object = program::executable(opened, path, origin, request.seal.image_memory())?;
    request::refuse_interpreter(request, object.soname());
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

/// The dynamic section of a file: tags with their values.
fn dynamic_in_file(opened: &Opened) -> Vec<(u64, u64)> {
    let Some(h) = header::find(&opened.headers, PT_DYNAMIC) else {
        return Vec::new();
    };
    let mut section = alloc::vec![0u8; h.p_filesz.min(64 * 1024) as usize];
    let read = sys::read_at(opened.fd.as_fd(), &mut section, h.p_offset).unwrap_or(0);
    let entries = section[..read].chunks_exact(16).map_while(|e| Some((u64_at(e, 0)?, u64_at(e, 8)?)));
    entries.take_while(|(tag, _)| *tag != DT_NULL).collect()
}

/// `DT_SONAME` of a file that is not mapped.
fn soname_in_file(opened: &Opened) -> Option<Vec<u8>> {
    let section = dynamic_in_file(opened);
    let value = |wanted| section.iter().find(|(tag, _)| *tag == wanted).map(|(_, value)| *value);
    let at = value(DT_STRTAB)?.checked_add(value(DT_SONAME)?)?;
    let holds = |h: &&ProgramHeader| h.p_type == PT_LOAD && at.checked_sub(h.p_vaddr).is_some_and(|o| o < h.p_filesz);
    let segment = opened.headers.iter().find(holds)?;
    let mut name = [0u8; 256];
    let read = sys::read_at(opened.fd.as_fd(), &mut name, segment.p_offset.checked_add(at - segment.p_vaddr)?).ok()?;
    Some(name[..read].split(|&b| b == 0).next()?.to_vec())
}

/// What the interpreter is called: by the program, in its PT_INTERP, and by its file, which is the same unless it was invoked directly.
pub struct InterpreterNames {
    by_program: CString,
    file: CString,
}

impl InterpreterNames {
    /// The same name for both.
    pub fn only(name: CString) -> InterpreterNames {
        InterpreterNames { by_program: name.clone(), file: name }
    }

    fn of(program: &Object, request: &Request) -> InterpreterNames {
        let from_program = header::find(&program.headers, PT_INTERP).and_then(|h| {
            let view = program.image.view();
            let bytes = view.bytes(VAddr(h.p_vaddr), h.p_filesz)?;
            Some(CStr::from_bytes_until_nul(bytes).ok()?.to_owned())
        });
        let invoked = request.invoked_as.filter(|_| request.program.is_some()).map(CStr::to_owned);
        let usual = || CString::new(program::INTERPRETER_PATH).unwrap_or_default();
        // A library on the command line names none.
        let by_program = from_program.or_else(|| invoked.clone()).unwrap_or_else(usual);
        InterpreterNames { file: invoked.unwrap_or_else(|| by_program.clone()), by_program }
    }
}

/// The interpreter itself, under its names.
///
/// # Errors
/// Its own image is broken.
pub fn adopt_interpreter(base: Addr, dynamic: Addr, names: InterpreterNames) -> Result<Box<Object>, Failure> {
    // SAFETY: this very code runs from that image.
    let headers = unsafe { program::headers_at(base) };
    let bias = Bias::between(base, VAddr(0));
    // SAFETY: this very code runs from that image.
    let image = unsafe { Image::adopt(&headers, bias) }
        .ok_or_else(|| LoadError::fault(names.file.to_bytes(), "object file has no loadable segments"))?;
    let origin = Origin { name: names.file, kind: Kind::Interpreter, file: None, entry: VAddr(0) };
    let mut object = Object::parse(origin, headers, image)?;
    object.asked = Some(names.by_program.into_bytes());
    debug_assert_eq!(object.image.bias.run_time(object.dynamic_at), dynamic);
    Ok(program::as_interpreter(object))
}
