//! What this start is asked to do: by the kernel, the command line and the environment.

use super::{disguise, help};
use crate::audit::modules;
use crate::auxv;
use crate::environment::{self, Environment};
use crate::glibc::cpu::CpuFeatures;
use crate::glibc::tunables::{Mode, Tunable, TunableSet};
use crate::initial_stack::{AuxKey, InitialStack};
use crate::logger;
use crate::options::{Action, OptionError, Options};
use crate::profile;
use alloc::ffi::CString;
use alloc::vec::Vec;
use core::ffi::CStr;
use core::sync::atomic::Ordering;
use loader::addr::Addr;
use loader::error::Lossy;
use loader::file::Opened;
use loader::lookup;
use loader::object::Object;
use loader::program::{self, Preloads};
use loader::reloc::{self, PltMode};
use loader::rule::{holds, Rule};
use loader::seal::tunables::SealTunables;
use loader::search::finder::{self, SearchOptions};
use loader::search::hwcaps::{Hwcaps, Machine};
use loader::sys::{self, MemoryMap};
use rustix::fd::IntoRawFd;

/// Audit modules for the object itself, and for what it needs: to glibc the same.
const DT_AUDIT: u64 = 0x6fff_fefc;
const DT_DEPAUDIT: u64 = 0x6fff_fefb;

/// The whole request.
pub struct Request {
    /// The options of direct invocation; defaults otherwise.
    pub options: Options,
    /// The environment.
    pub environment: Environment,
    /// `AT_SECURE`
    pub secure: bool,
    /// The tunables of sealing, with the level that counts.
    pub seal: SealTunables<'static>,
    /// The program named on the command line; `None` when the kernel has mapped it.
    pub program: Option<&'static CStr>,
    /// What the kernel shows of a launched process, if that could be changed.
    pub shown: Option<MemoryMap>,
    /// `argv[0]` of direct invocation.
    pub invoked_as: Option<&'static CStr>,
}

impl Request {
    /// Finds out what is asked. In direct invocation the interpreter's own arguments are taken off the stack.
    pub fn read(stack: &mut InitialStack, base: Addr) -> Request {
        let secure = stack.aux(AuxKey::Secure).unwrap_or(0) != 0;
        let environment = Environment::read(stack, secure);
        // The words are read in secure execution too; whether they have an effect there the administrator says.
        let heeded = !secure || environment.debug.is_some() && is_debugging_allowed();
        logger::install(environment.debug.unwrap_or_default(), heeded);
        if secure {
            stack.retain_environment(environment::is_safe);
            if environment.trace.is_some() {
                // As in glibc, which gives no other sign: a privileged program is run, or nothing is.
                sys::exit(5);
            }
        }
        if environment.show_auxv {
            auxv::show(stack);
        }
        reloc::WARNS_OF_SMALLER.store(environment.warn, Ordering::Relaxed);
        lookup::DYNAMIC_WEAK.store(environment.dynamic_weak, Ordering::Relaxed);
        redirect(&environment);
        if let Some(name) = environment.profile {
            profile::want(name, environment.profile_output.unwrap_or(default_profile_output(secure)));
        }
        let mut seal = SealTunables::parse(environment.tunables.unwrap_or_default(), secure);
        // The kernel names no interpreter, or this image is the program itself: invoked directly.
        let is_direct = match stack.aux(AuxKey::Base) {
            None | Some(0) => true,
            Some(at) => at != base.0,
        };
        let traced = if environment.trace.is_some() { Action::Trace } else { Action::Run };
        let mut request = Request {
            options: Options { action: traced, ..Options::default() },
            environment,
            secure,
            seal,
            program: None,
            shown: None,
            invoked_as: None,
        };
        if is_direct {
            if stack.arg(1) == Some(c"--launched") {
                disguise::copy_arguments(stack);
            }
            request.invoked_as = stack.arg(0);
            request.options = Options::parse(stack, traced).unwrap_or_else(|error| refuse(stack, error));
            if request.options.action == Action::Version {
                help::version();
            }
            if let Some(level) = request.options.seal {
                seal.level = level;
                request.seal = seal;
            }
            request.take_off_own_arguments(stack);
        }
        request
    }

    fn take_off_own_arguments(&mut self, stack: &mut InitialStack) {
        self.program = stack.arg(self.options.consumed);
        stack.drop_arguments(self.options.consumed);
        if self.options.launched {
            if let Some(program) = self.program {
                // Last, because it puts the strings of the arguments where they will stay.
                let named = self.options.execfn.unwrap_or(program);
                self.shown = disguise::as_direct_start(stack, named, self.options.argv0);
            }
        }
    }

    /// Gives the program the name that `--argv0` says: once it has been found, so that what is said of one that is not names the file. For
    /// the launcher the disguise has done so.
    pub fn name_program(&self, stack: &mut InitialStack) {
        if let Some(name) = self.options.argv0.filter(|_| !self.options.launched && holds(Rule::Argv0)) {
            stack.set_argv0(name);
        }
    }

    /// Where libraries are searched. `hwcap_mask` is glibc's tunable of that name.
    pub fn search_options(&self, cpu: &CpuFeatures, hwcap_mask: u64) -> SearchOptions {
        // The kernel's AT_PLATFORM where the processor has no name of its own.
        let platform = Some(cpu.platform().map_or(&b"x86_64"[..], str::as_bytes));
        let machine = Machine {
            isa_1: cpu.isa_1,
            disabled_levels: cpu.disabled_levels(),
            platform,
            hwcap: cpu.hwcap() & hwcap_mask,
            os_version: 0,
            legacy_subdirectories: true,
        };
        let library_path = self.options.library_path.or(self.environment.library_path);
        let library_path = library_path.filter(|_| !self.secure || !holds(Rule::LibraryPathInSecureMode));
        SearchOptions {
            library_path: library_path.map(<[u8]>::to_vec),
            library_path_from: self.library_path_from(),
            inhibit_cache: self.options.inhibit_cache,
            inhibit_rpath: self.options.inhibit_rpath.map(<[u8]>::to_vec).filter(|_| holds(Rule::InhibitRpath)),
            secure: self.secure,
            hwcaps: Hwcaps::new(machine, self.options.hwcaps_prepend, self.options.hwcaps_mask),
            platform,
        }
    }

    /// What gives the library path.
    pub fn library_path_from(&self) -> &'static str {
        if self.options.library_path.is_some() {
            "--library-path"
        } else {
            "LD_LIBRARY_PATH"
        }
    }

    /// glibc's tunables as the environment sets them.
    pub fn glibc_tunables(&self, table: &'static [Tunable], stack: &InitialStack) -> TunableSet<'static> {
        let mode = if self.secure { Mode::Secure { suid_debug: is_debugging_allowed() } } else { Mode::Ordinary };
        TunableSet::from_environment(table, mode, stack.environment())
    }

    /// Where profiles are written.
    pub fn profile_output(&self) -> &'static [u8] {
        self.environment.profile_output.unwrap_or(default_profile_output(self.secure))
    }

    /// The audit modules that the environment and the options name, and those of the program itself.
    pub fn audit_modules(&self, program: &Object) -> Vec<CString> {
        let asked = self.environment.audit.into_iter().chain(self.options.audit.into_iter().flatten());
        let tags = [DT_AUDIT, DT_DEPAUDIT].into_iter().filter_map(|tag| program.dynamic_string(tag));
        modules::names(asked.chain(tags), self.secure)
    }

    /// What is preloaded.
    pub fn preloads(&self) -> Preloads<'static> {
        Preloads {
            environment: self.environment.preload.unwrap_or_default(),
            option: self.options.preload.unwrap_or_default(),
            secure: self.secure,
        }
    }

    /// How PLT slots are bound: lazily in any case where calls are to be counted.
    pub fn binding(&self) -> PltMode {
        if self.environment.bind_now && self.environment.profile.is_none() && holds(Rule::BindNow) {
            PltMode::Now
        } else {
            PltMode::Lazy
        }
    }

    /// `$ORIGIN` of a program named on the command line: as glibc the directory of that name, but for the launcher, whose starts are to
    /// be like direct ones, the directory of the file.
    pub fn program_origin(&self, opened: &Opened) -> Option<Vec<u8>> {
        if self.options.launched {
            if let Some(origin) = program::origin_of_file(opened) {
                return Some(origin);
            }
        }
        finder::origin_of(opened.path.to_bytes())
    }

    /// The absolute path of the program that the command line names, links not resolved; `None` if the kernel has mapped the program.
    pub fn path_of_program(&self, program: &Object) -> Option<CString> {
        let path = self.program?;
        let name = path.to_bytes();
        if name.starts_with(b"/") {
            return Some(CString::from(path));
        }
        // A name without a slash can have been found in a directory of libraries.
        let directory = if name.contains(&b'/') {
            finder::origin_of(name.strip_prefix(b"./").unwrap_or(name))
        } else {
            program.origin.get().map(<[u8]>::to_vec)
        };
        let file = name.rsplit(|&b| b == b'/').next()?;
        CString::new([directory?.as_slice(), file].join(&b'/')).ok()
    }
}

/// Where profiles are written if nobody says.
fn default_profile_output(secure: bool) -> &'static [u8] {
    if secure {
        b"/var/profile"
    } else {
        b"/var/tmp"
    }
}

/// Whether privileged programs may be debugged.
fn is_debugging_allowed() -> bool {
    sys::file_id(c"/etc/suid-debug").is_ok()
}

fn redirect(environment: &Environment) {
    let (Some(name), Some(_)) = (environment.debug_output.filter(|n| !n.is_empty()), environment.debug) else {
        return;
    };
    let mut path = name.to_vec();
    path.extend_from_slice(alloc::format!(".{}", sys::getpid()).as_bytes());
    match CString::new(path).ok().and_then(|p| sys::open_append(&p).ok()) {
        // The descriptor stays open for the life of the process.
        Some(fd) => logger::redirect(fd.into_raw_fd()),
        // As glibc, when the file can't be opened: standard output.
        None => logger::redirect(1),
    }
}

fn refuse(stack: &InitialStack, error: OptionError) -> ! {
    let me = Lossy(stack.arg(0).map_or(&b"ld-seal.so"[..], CStr::to_bytes));
    match error {
        OptionError::Unrecognized(name) => {
            logger::line(format_args!("{me}: unrecognized option '{}'", Lossy(name.to_bytes())));
        }
        OptionError::TooManyAudits => {
            logger::line(format_args!("{me}: Fatal glibc error: Too many audit modules requested"));
        }
        OptionError::MissingProgram => logger::line(format_args!("{me}: missing program name")),
        OptionError::SealLevel(text) => {
            logger::line(format_args!("{me}: --seal takes 0, 1 or 2, not '{}'", Lossy(text.to_bytes())));
        }
    }
    logger::line(format_args!("Try '{me} --help' for more information."));
    sys::exit(1)
}

/// Refuses to load the interpreter as a program: it is known by its `DT_SONAME`, as in glibc. It can be listed.
pub fn refuse_interpreter(request: &Request, soname: Option<&[u8]>) {
    if request.options.action == Action::Run && soname == Some(program::INTERPRETER_SONAME) {
        let name = Lossy(program::INTERPRETER_SONAME);
        logger::line(format_args!("{name}: loader cannot load itself"));
        sys::exit(127)
    }
}
