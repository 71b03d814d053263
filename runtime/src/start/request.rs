//! What this start is asked to do: by the kernel, the command line and the environment.

use super::disguise;
use super::objects::Loaded;
use super::Failure;
use crate::environment::{self, Environment};
use crate::glibc::cpu::CpuFeatures;
use crate::glibc::tunables::{Mode, Tunable, TunableSet};
use crate::initial_stack::{AuxKey, InitialStack};
use crate::logger;
use crate::options::{Action, OptionError, Options};
use alloc::ffi::CString;
use alloc::vec::Vec;
use core::ffi::CStr;
use core::sync::atomic::Ordering;
use loader::addr::Addr;
use loader::error::Lossy;
use loader::file::Opened;
use loader::lookup;
use loader::object::Kind;
use loader::program;
use loader::reloc::PltMode;
use loader::seal::tunables::{SealLevel, SealTunables};
use loader::search::finder::{self, SearchOptions};
use loader::search::hwcaps::{Hwcaps, Machine};
use loader::sys::{self, MemoryMap};
use rustix::fd::AsRawFd;

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
        if secure {
            stack.retain_environment(environment::is_safe);
        }
        lookup::DYNAMIC_WEAK.store(environment.dynamic_weak, Ordering::Relaxed);
        logger::install(environment.debug.unwrap_or_default());
        redirect(&environment);
        let mut seal = SealTunables::parse(environment.tunables.unwrap_or_default(), secure);
        // The kernel names no interpreter, or this image is the program itself: invoked directly.
        let is_direct = match stack.aux(AuxKey::Base) {
            None | Some(0) => true,
            Some(at) => at != base.0,
        };
        let mut request = Request {
            options: Options::default(),
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
            request.options = Options::parse(stack).unwrap_or_else(|error| refuse(stack, error));
            match request.options.action {
                Action::Help => help(),
                Action::Version => version(),
                Action::Run | Action::List | Action::Verify => {}
            }
            if let Some(level) = request.options.seal {
                seal.level = level;
                request.seal = seal;
            }
            request.take_off_own_arguments(stack);
        }
        if environment.trace {
            request.options.action = Action::List;
        }
        request
    }

    fn take_off_own_arguments(&mut self, stack: &mut InitialStack) {
        self.program = stack.arg(self.options.consumed);
        stack.drop_arguments(self.options.consumed);
        if let Some(name) = self.options.argv0 {
            stack.set_argv0(name);
        }
        if self.options.launched {
            if let Some(program) = self.program {
                // Last, because it puts the strings of the arguments where they will stay.
                let named = self.options.execfn.unwrap_or(program);
                self.shown = disguise::as_direct_start(stack, named, self.options.argv0);
            }
        }
    }

    /// Where libraries are searched.
    pub fn search_options(&self, cpu: &CpuFeatures) -> SearchOptions {
        // The kernel's AT_PLATFORM where the processor has no name of its own.
        let platform = Some(cpu.platform().map_or(&b"x86_64"[..], str::as_bytes));
        let machine =
            Machine { isa_1: cpu.isa_1, platform, hwcap: cpu.hwcap(), os_version: 0, legacy_subdirectories: true };
        let library_path = self.options.library_path.or(self.environment.library_path).filter(|_| !self.secure);
        SearchOptions {
            library_path: library_path.map(<[u8]>::to_vec),
            inhibit_cache: self.options.inhibit_cache,
            inhibit_rpath: self.options.inhibit_rpath.map(<[u8]>::to_vec),
            secure: self.secure,
            hwcaps: Hwcaps::new(machine, self.options.hwcaps_prepend, self.options.hwcaps_mask),
            platform,
        }
    }

    /// glibc's tunables as the environment sets them.
    pub fn glibc_tunables(&self, table: &'static [Tunable], stack: &InitialStack) -> TunableSet<'static> {
        let mode = if self.secure {
            Mode::Secure { suid_debug: sys::file_id(c"/etc/suid-debug").is_ok() }
        } else {
            Mode::Ordinary
        };
        TunableSet::from_environment(table, mode, stack.environment())
    }

    /// How PLT slots are bound.
    pub fn binding(&self) -> PltMode {
        if self.environment.bind_now {
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
}

fn redirect(environment: &Environment) {
    let (Some(name), Some(_)) = (environment.debug_output.filter(|n| !n.is_empty()), environment.debug) else {
        return;
    };
    let mut path = name.to_vec();
    path.extend_from_slice(alloc::format!(".{}", sys::getpid()).as_bytes());
    if let Some(fd) = CString::new(path).ok().and_then(|p| sys::open_append(&p).ok()) {
        logger::redirect(fd.as_raw_fd());
        // The descriptor stays open for the life of the process.
        core::mem::forget(fd);
    }
}

fn refuse(stack: &InitialStack, error: OptionError) -> ! {
    let me = Lossy(stack.arg(0).map_or(&b"ld-seal.so"[..], CStr::to_bytes));
    match error {
        OptionError::Unrecognized(name) => {
            logger::line(format_args!("{me}: unrecognized option '{}'", Lossy(name.to_bytes())));
        }
        OptionError::MissingProgram => logger::line(format_args!("{me}: missing program name")),
        OptionError::SealLevel(text) => {
            logger::line(format_args!("{me}: --seal takes 0, 1 or 2, not '{}'", Lossy(text.to_bytes())));
        }
    }
    logger::line(format_args!("Try '{me} --help' for more information."));
    sys::exit(1)
}

/// Runs a static program, as glibc's ld.so does: the kernel takes over. At level 2 it is refused, since nothing would be sealed. Returns
/// only when it can't be run.
pub fn execute_static(stack: &InitialStack, request: &Request, opened: &Opened) -> Failure {
    let name = Lossy(opened.path.to_bytes());
    if request.seal.level == SealLevel::Enforced {
        return Failure::Other(alloc::format!("{name}: statically linked, so it can't be sealed"));
    }
    // SAFETY: the kernel's arrays end with null pointers.
    let errno =
        unsafe { sys::execve(&opened.path, stack.argv().cast_const().cast(), stack.envp().cast_const().cast()) };
    Failure::Other(alloc::format!("cannot execute {name}: {}", errno.raw_os_error()))
}

/// Refuses to load the interpreter as a program.
pub fn refuse_own_image(opened: &Opened, base: Addr) -> Result<(), Failure> {
    // SAFETY: this very code runs from the image at `base`.
    let own = unsafe { program::headers_at(base) };
    let same = own.len() == opened.headers.len()
        && own
            .iter()
            .zip(&opened.headers)
            .all(|(a, b)| (a.p_type, a.p_vaddr, a.p_memsz) == (b.p_type, b.p_vaddr, b.p_memsz));
    if same {
        let text = alloc::format!("{}: loader cannot load itself", Lossy(opened.path.to_bytes()));
        return Err(Failure::Other(text));
    }
    Ok(())
}

/// Answers `--list` and `--verify`.
pub fn answer(action: Action, loaded: &Loaded) -> ! {
    let main = &loaded.linker.objects[loaded.main];
    if main.dynamic.entries.is_empty() {
        if action == Action::List {
            logger::print(format_args!("\tstatically linked\n"));
        }
        sys::exit(i32::from(action == Action::Verify));
    }
    if action == Action::Verify {
        // As glibc: 0 for a program that can be run, 2 for one without an interpreter of its own.
        let has_interpreter =
            loader::elf::header::find(&main.headers, goblin::elf64::program_header::PT_INTERP).is_some();
        sys::exit(if has_interpreter { 0 } else { 2 });
    }
    let missing = loaded.linker.missing.as_deref().unwrap_or_default();
    // When places were counted, the interpreter still stood near the start of the list.
    let not_found = |before: usize| {
        for (_, name) in missing.iter().filter(|(place, _)| *place == before + 1) {
            logger::print(format_args!("\t{} => not found\n", Lossy(name)));
        }
    };
    let list = &loaded.linker.namespace(loader::object::BASE_NAMESPACE).list;
    for (index, &id) in list.iter().enumerate() {
        not_found(index);
        let object = &loaded.linker.objects[id];
        let (name, start) = (Lossy(object.name.to_bytes()), object.image.range.start.0);
        match (object.kind, object.asked_as()) {
            (Kind::Executable, _) => {}
            (Kind::Library, Some(asked)) if asked != object.name.to_bytes() => {
                logger::print(format_args!("\t{} => {name} ({start:#018x})\n", Lossy(asked)));
            }
            _ => logger::print(format_args!("\t{name} ({start:#018x})\n")),
        }
    }
    not_found(list.len());
    sys::exit(0)
}

fn help() -> ! {
    logger::print(format_args!(
        "Usage: ld-seal.so [OPTION]... PROGRAM [ARGUMENT]...\n\
         Loads PROGRAM and the libraries it needs, seals them in memory, and runs it.\n\n\
         \x20 --list                 list all dependencies and how they are resolved\n\
         \x20 --verify               tell by the exit status whether PROGRAM can be run\n\
         \x20 --inhibit-cache        do not use /etc/ld.so.cache\n\
         \x20 --library-path PATH    use PATH instead of LD_LIBRARY_PATH\n\
         \x20 --glibc-hwcaps-prepend LIST\n\
         \x20                        search glibc-hwcaps subdirectories in LIST first\n\
         \x20 --glibc-hwcaps-mask LIST\n\
         \x20                        search only those built-in subdirectories that LIST has\n\
         \x20 --inhibit-rpath LIST   ignore DT_RPATH and DT_RUNPATH of the objects in LIST\n\
         \x20 --preload LIST         load the objects in LIST first\n\
         \x20 --argv0 STRING         set argv[0] to STRING\n\
         \x20 --seal LEVEL           0: seal nothing, 1: what can be sealed (the default), 2: all or die\n\
         \x20 --execfn FILE          name the process after FILE (goes with --launched)\n\
         \x20 --launched             look like a direct start of PROGRAM (used by ldseal run)\n\
         \x20 --help                 show this help\n\
         \x20 --version              show the version\n\n\
         Children are not sealed unless GLIBC_TUNABLES=glibc.rtld.seal is set and this is their interpreter.\n"
    ));
    sys::exit(0)
}

fn version() -> ! {
    logger::print(format_args!("ld-seal.so {}\n", env!("CARGO_PKG_VERSION")));
    sys::exit(0)
}
