//! Loading the program, the preloads and everything they need.

use super::images;
use super::request::{self, Request};
use super::Failure;
use crate::glibc::cpu::CpuFeatures;
use crate::glibc::libc;
use crate::glibc::link_map::LinkMaps;
use crate::initial_stack::{AuxKey, InitialStack};
use crate::logger;
use crate::options::Action;
use alloc::borrow::ToOwned;
use alloc::ffi::CString;
use alloc::vec::Vec;
use core::ffi::CStr;
use goblin::elf64::program_header::{PT_DYNAMIC, PT_INTERP, PT_LOAD, PT_PHDR};
use loader::addr::{Addr, Bias, VAddr};
use loader::elf::header::{self, ProgramHeader};
use loader::elf::view::u64_at;
use loader::error::LoadError;
use loader::file::Opened;
use loader::image::Image;
use loader::linker::Linker;
use loader::map::plan;
use loader::object::{Kind, Object, ObjectId, Origin, BASE_NAMESPACE};
use loader::program::{self, Parts, Preloads, Program};
use loader::seal::tunables::ImageMemory;
use loader::search::finder::{self, Finder};
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

impl Loaded {
    /// Maps everything.
    pub fn load(
        stack: &mut InitialStack,
        request: &Request,
        cpu: &CpuFeatures,
        base: Addr,
        dynamic: Addr,
    ) -> Result<Loaded, Failure> {
        let finder = Finder::new(request.search_options(cpu));
        let program = match &request.program {
            None => adopt_program(stack, request.seal.image_memory())?,
            Some(path) => load_program(stack, request, path, base).inspect_err(|_| {
                if request.options.action == Action::Verify {
                    // What can't even be mapped is told by the status alone.
                    sys::exit(1);
                }
            })?,
        };
        let vdso = match stack.aux(AuxKey::VdsoHeader).map(Addr) {
            None => None,
            // SAFETY: the kernel says that its vDSO is there.
            Some(header) => unsafe { program::vdso(header)? },
        };
        let interpreter = adopt_interpreter(base, dynamic, interpreter_name(&program, request))?;
        let called = stack.arg(0).map_or(&b"<main program>"[..], CStr::to_bytes).to_vec();
        let preloads = Preloads {
            environment: request.environment.preload.unwrap_or_default(),
            option: request.options.preload.unwrap_or_default(),
            secure: request.secure,
        };
        let listing = request.options.action == Action::List;
        let parts = Parts { program, called, vdso, interpreter, memory: request.seal.image_memory() };
        let program = Program::load(parts, finder, preloads, listing, &mut logger::line)?;
        let Program { linker, finder, main, interpreter, vdso, closure } = program;
        let libc = linker.find_by_name(BASE_NAMESPACE, libc::SONAME);
        Ok(Loaded { linker, finder, maps: LinkMaps::default(), main, interpreter, vdso, libc, closure })
    }
}

/// The program that the kernel has mapped and told of in the auxiliary vector.
fn adopt_program(stack: &InitialStack, memory: ImageMemory) -> Result<Object, Failure> {
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
    images::complete(program_name(stack), &headers, &mut image, relro.as_ref(), memory)?;
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
    let opened = program::open(path, request.search_options(&CpuFeatures::default()))?;
    request::refuse_own_image(&opened, base)?;
    let has_interpreter = header::find(&opened.headers, PT_INTERP).is_some();
    // A file that can't be mapped is not given to the kernel either: what is wrong with it is said below.
    let can_be_mapped = plan::plan(opened.header.e_type, &opened.headers, opened.status.size).is_ok();
    if !has_interpreter && can_be_mapped && request.options.action == Action::Run && !needs_libraries(&opened) {
        return Err(request::execute_static(stack, request, &opened));
    }
    let origin = request.program_origin(&opened);
    let object = program::executable(opened, path, origin, request.seal.image_memory())?;
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
    // SAFETY: this very code runs from that image.
    let headers = unsafe { program::headers_at(base) };
    let bias = Bias::between(base, VAddr(0));
    // SAFETY: this very code runs from that image.
    let image = unsafe { Image::adopt(&headers, bias) }
        .ok_or_else(|| LoadError::fault(name.to_bytes(), "object file has no loadable segments"))?;
    let origin = Origin { name, kind: Kind::Interpreter, file: None, entry: VAddr(0) };
    let object = Object::parse(origin, headers, image)?;
    debug_assert_eq!(object.image.bias.run_time(object.dynamic_at), dynamic);
    Ok(program::as_interpreter(object))
}
