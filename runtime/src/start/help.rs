//! Answers about the interpreter itself: `--help`, `--version`, `--list-tunables` and `--list-diagnostics`.

use super::request::Request;
use crate::glibc::cpu::CpuFeatures;
use crate::glibc::diagnostics::{self, Diagnostics};
use crate::glibc::tables;
use crate::glibc::tunables::list::Listing;
use crate::glibc::tunables::TunableSet;
use crate::initial_stack::InitialStack;
use crate::logger;
use alloc::string::String;
use alloc::vec::Vec;
use core::ffi::CStr;
use core::fmt::{self, Write};
use loader::error::Lossy;
use loader::linker::{Linker, Transaction};
use loader::object::{ObjectId, BASE_NAMESPACE};
use loader::program;
use loader::search::finder::Finder;
use loader::search::hwcaps::{self, LEGACY_NAMES};
use loader::sys;

const OPTIONS: &str = "\
\x20 --list                list the dependencies and where they are found; arguments
                        are symbols, for which it is said where they are
  --verify              tell by the exit status whether this is an object for us
  --inhibit-cache       do not use /etc/ld.so.cache
  --library-path PATH   use PATH instead of LD_LIBRARY_PATH
  --glibc-hwcaps-prepend LIST
                        search the glibc-hwcaps subdirectories in LIST first
  --glibc-hwcaps-mask LIST
                        search only those built-in subdirectories that LIST has
  --inhibit-rpath LIST  ignore RUNPATH and RPATH of the objects in LIST
  --preload LIST        load the objects in LIST first
  --audit LIST          use the objects in LIST as audit modules
  --argv0 STRING        set argv[0] to STRING
  --list-tunables       list all tunables with lowest and highest values
  --list-diagnostics    list what is known of process, system and processor
  --seal LEVEL          0: seal nothing, 1: what can be sealed (the default),
                        2: all or die
  --execfn FILE         name the process after FILE (goes with --launched)
  --launched            look like a direct start (used by ldseal run)
  --help                show this help; with a program, its search path too
  --version             show the version
";

/// Prints the version.
pub fn version() -> ! {
    let (major, minor) = tables::LAYOUTS[0].version;
    let version = env!("CARGO_PKG_VERSION");
    logger::print(format_args!("ld-seal.so {version}, a sealing loader for programs of glibc {major}.{minor}\n"));
    sys::exit(0)
}

/// Lists glibc's tunables and those of sealing, with their values.
pub fn tunables(request: &Request, set: &TunableSet<'_>) -> ! {
    let seal = &request.seal;
    let exclude = seal.exclude.unwrap_or_default();
    let blank = if exclude.is_empty() { "" } else { " " };
    logger::print(format_args!(
        "{}glibc.rtld.seal: {} (min: 0, max: 2)\n\
         ldseal.data: {}\n\
         ldseal.vdso: {} (min: 0, max: 1)\n\
         ldseal.exclude:{blank}{}\n\
         ldseal.late: {} (min: 0, max: 1)\n\
         ldseal.policy: {}\n\
         ldseal.anonymous: {}\n",
        Listing(set),
        seal.level.number(),
        seal.data.word(),
        u8::from(seal.vdso),
        Lossy(exclude),
        u8::from(seal.late),
        seal.policy.word(),
        seal.anonymous.word(),
    ));
    sys::exit(0)
}

/// Reports on interpreter, process, system and processor.
pub fn diagnostics(stack: &InitialStack, request: &Request, cpu: &CpuFeatures) -> ! {
    let diagnostics = Diagnostics { stack, cpu, layout: tables::LAYOUTS[0], profile_output: request.profile_output() };
    logger::print(format_args!("{}", diagnostics::report(&diagnostics)));
    sys::exit(0)
}

/// Shows the options and where libraries are searched; with a program that can be loaded, those it needs.
pub fn help(request: &Request, cpu: &CpuFeatures, hwcap_mask: u64) -> ! {
    let mut text = String::new();
    // Nothing can fail: it is a string.
    let _ = write_help(&mut text, request, cpu, hwcap_mask);
    logger::print(format_args!("{text}"));
    sys::exit(0)
}

fn write_help(out: &mut String, request: &Request, cpu: &CpuFeatures, hwcap_mask: u64) -> fmt::Result {
    let me = Lossy(request.invoked_as.map_or(b"ld-seal.so", CStr::to_bytes));
    writeln!(out, "Usage: {me} [OPTION]... EXECUTABLE-FILE [ARGS-FOR-PROGRAM...]")?;
    out.push_str(
        "Loads a program and the libraries it needs, seals them in memory, and runs it. As\n\
         the interpreter that a program names it is started by the kernel and has no options.\n\n",
    );
    out.push_str(OPTIONS);
    let itself = Lossy(program::INTERPRETER_PATH);
    writeln!(out, "\nThis program interpreter self-identifies as: {itself}")?;
    search_path(out, request, cpu, hwcap_mask)?;
    hwcaps_subdirectories(out, request, cpu, hwcap_mask)?;
    legacy_subdirectories(out, request, cpu, hwcap_mask)
}

fn search_path(out: &mut String, request: &Request, cpu: &CpuFeatures, hwcap_mask: u64) -> fmt::Result {
    let mut finder = Finder::new(request.search_options(cpu, hwcap_mask));
    let mut linker = Linker::new();
    let program = load(request, cpu, hwcap_mask, &mut linker);
    let parts = finder.search_parts(program, &linker.objects);
    let variable = request.library_path_from();
    out.push_str("\nShared library search path:\n");
    directories(out, &parts.rpath, "RPATH")?;
    directories(out, &parts.library_path, variable)?;
    directories(out, &parts.runpath, "RUNPATH")?;
    out.push_str("  (libraries located via /etc/ld.so.cache)\n");
    directories(out, &parts.default, "system search path")
}

/// Maps the program that the command line names. One that can't be mapped has no search path to show.
fn load(request: &Request, cpu: &CpuFeatures, hwcap_mask: u64, linker: &mut Linker) -> Option<ObjectId> {
    let path = request.program?;
    let opened = program::open(path, request.search_options(cpu, hwcap_mask)).ok()?;
    let origin = request.program_origin(&opened);
    let program = program::executable(opened, path, origin, request.seal.image_memory()).ok()?;
    Some(linker.add(&mut Transaction::new(BASE_NAMESPACE), program))
}

fn directories(out: &mut String, paths: &[Vec<u8>], origin: &str) -> fmt::Result {
    for path in paths {
        let shown = match path.as_slice() {
            b"" => b".",
            b"/" => b"/",
            path => path.strip_suffix(b"/").unwrap_or(path),
        };
        writeln!(out, "  {} ({origin})", Lossy(shown))?;
    }
    Ok(())
}

/// What becomes of a subdirectory, in parentheses; nothing if it is neither suitable nor left out on purpose.
struct Fate {
    supported: bool,
    searched: bool,
    masked: bool,
}

impl fmt::Display for Fate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = [(self.supported, "supported"), (self.searched, "searched"), (self.masked, "masked")];
        let mut separator = " (";
        for (_, word) in words.iter().filter(|(holds, _)| *holds) {
            write!(f, "{separator}{word}")?;
            separator = ", ";
        }
        f.write_str(if separator == ", " { ")" } else { "" })
    }
}

fn hwcaps_subdirectories(out: &mut String, request: &Request, cpu: &CpuFeatures, hwcap_mask: u64) -> fmt::Result {
    out.push_str("\nSubdirectories of glibc-hwcaps directories, in priority order:\n");
    for name in request.search_options(cpu, hwcap_mask).hwcaps.known_names() {
        let hwcaps::Name { name, supported, searched, masked } = name;
        writeln!(out, "  {}{}", Lossy(name), Fate { supported, searched, masked })?;
    }
    Ok(())
}

fn legacy_subdirectories(out: &mut String, request: &Request, cpu: &CpuFeatures, hwcap_mask: u64) -> fmt::Result {
    out.push_str("\nLegacy HWCAP subdirectories under library search path directories:\n");
    if let Some(platform) = request.search_options(cpu, hwcap_mask).platform {
        writeln!(out, "  {} (AT_PLATFORM; supported, searched)", Lossy(platform))?;
    }
    out.push_str("  tls (supported, searched)\n");
    for (bit, name) in LEGACY_NAMES.iter().enumerate().skip(1).rev() {
        let (supported, unmasked) = (cpu.hwcap() >> bit & 1 != 0, hwcap_mask >> bit & 1 != 0);
        let fate = Fate { supported, searched: supported && unmasked, masked: !unmasked };
        writeln!(out, "  {}{fate}", Lossy(name))?;
    }
    Ok(())
}
