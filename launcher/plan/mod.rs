//! `ldseal plan`: what a start would map and seal, without running anything of the program.
//!
//! The objects are found, mapped into this process and planned by the functions that the interpreter calls ([`loader::program`]); what
//! the interpreter does with them beyond that is not done.
//!
//! * [`machine`] tells what the search for libraries needs to know of the processor.
//! * [`model`] is the plan as data, [`render`] prints it.
#![deny(unsafe_code)]

mod machine;
mod model;
mod render;

use crate::cli::PlanArguments;
use crate::run::{self, Refusal, Start};
use crate::{interpreter, sys};
use loader::addr::VAddr;
use loader::error::{LoadError, Lossy};
use loader::file::{self, Occasion, OpenError, Opened};
use loader::object::{Kind, Object};
use loader::program::{self, Parts, Preloads, Program};
use loader::seal::marks;
use loader::seal::plan::SealPlan;
use loader::seal::tunables::{ImageMemory, SealTunables};
use loader::search::finder::{Finder, SearchOptions};
use loader::search::hwcaps::Hwcaps;
use loader::static_program;
use model::Plan;
use std::env;
use std::ffi::{CStr, CString, OsStr};
use std::fmt;
use std::io::{self, Write};
use std::ops::Range;
use std::os::unix::ffi::{OsStrExt, OsStringExt};

/// Exit status of the interpreter when something can't be loaded.
const NOT_LOADED: u8 = 127;
/// Exit status of the interpreter when a version is missing, as glibc's.
const NO_VERSION: u8 = 1;

/// Why there is no plan.
enum Failure {
    /// The program is refused.
    Refused(Refusal),
    /// An object is missing or broken.
    Load(LoadError),
    /// Versions are missing, which was said.
    Versions,
    /// This command's own trouble.
    Own(String),
}

impl From<LoadError> for Failure {
    fn from(error: LoadError) -> Failure {
        Failure::Load(error)
    }
}

/// Prints the plan of a program; returns the exit status.
pub fn plan(arguments: &PlanArguments) -> u8 {
    let start = match run::resolve(&arguments.program, &[]) {
        Ok(start) => start,
        Err(refusal) => return complain(OsStr::new(""), Failure::Refused(refusal)),
    };
    let plan = match make(arguments, &start) {
        Ok(plan) => plan,
        Err(failure) => return complain(called(&start), failure),
    };
    let text = if arguments.json { render::json(&plan) } else { render::tables(&plan) };
    match io::stdout().write_all(text.as_bytes()) {
        Ok(()) => 0,
        Err(error) => complain(called(&start), Failure::Own(format!("standard output: {error}"))),
    }
}

/// What messages call the program.
fn called(start: &Start) -> &OsStr {
    start.argv.first().map_or(start.program.as_os_str(), |name| name)
}

/// Says why there is no plan, in the interpreter's words where it would have failed; returns the exit status that it would have had.
fn complain(called: &OsStr, failure: Failure) -> u8 {
    let called = Lossy(called.as_bytes());
    match failure {
        Failure::Refused(refusal) => {
            eprintln!("ldseal: {refusal}");
            refusal.status
        }
        Failure::Load(error) => {
            eprintln!("{called}: error while loading shared libraries: {}", error.terse());
            NOT_LOADED
        }
        Failure::Versions => NO_VERSION,
        Failure::Own(text) => {
            eprintln!("ldseal: {text}");
            1
        }
    }
}

/// The last value of a variable, which is the one that the interpreter takes.
fn variable(name: &str) -> Option<Vec<u8>> {
    env::vars_os().filter(|(known, _)| known == name).last().map(|(_, value)| value.into_vec())
}

fn make(arguments: &PlanArguments, start: &Start) -> Result<Plan, Failure> {
    let secure = sys::is_secure();
    let tunables = variable("GLIBC_TUNABLES").unwrap_or_default();
    let mut tunables = SealTunables::parse(&tunables, secure);
    tunables.level = arguments.level.unwrap_or(tunables.level);
    let (interpreter, tables) = own_interpreter()?;
    let machine = machine::machine();
    let options = SearchOptions {
        library_path: variable("LD_LIBRARY_PATH").filter(|_| !secure),
        inhibit_cache: false,
        library_path_from: "LD_LIBRARY_PATH",
        inhibit_rpath: None,
        secure,
        hwcaps: Hwcaps::new(machine, None, None),
        platform: machine.platform,
    };
    let name = CString::new(interpreter::program_name(start).into_os_string().into_vec())
        .map_err(|_| LoadError::fault(b"", "cannot open shared object file"))?;
    let opened = program::open(&name, options.clone())?;
    if static_program::is_static(&opened) {
        let plan = plan_static(&name, opened, &interpreter, &mut tunables)?;
        return Ok(Plan::new(start.program.to_string_lossy().into_owned(), &tunables, &plan));
    }
    let loaded = load(start, &name, opened, options, interpreter, secure)?;
    let Program { linker, main, interpreter, vdso, closure, .. } = loaded;
    if !program::has_all_versions(&linker, &closure, main, &mut warn)? {
        return Err(Failure::Versions);
    }
    program::check_objects(&linker, &closure, machine.isa_1)?;
    tunables.judge_program(|| marks::asks_for_seal(&linker.objects[main].headers, &linker.objects[main].image));
    program::check_sealable(&linker, &closure, &tunables)?;
    let base = linker.objects[interpreter].image.bias;
    let tables = base.run_time(tables.start)..base.run_time(tables.end);
    let mut plan = program::seal_plan(&linker, interpreter, tables, &tunables, true);
    program::add_kernel_data(&mut plan, vdso.map(|id| &linker.objects[id]), &tunables);
    Ok(Plan::new(start.program.to_string_lossy().into_owned(), &tunables, &plan))
}

/// The plan of a static program.
fn plan_static(
    name: &CStr,
    opened: Opened,
    interpreter: &Object,
    tunables: &mut SealTunables<'_>,
) -> Result<SealPlan, LoadError> {
    let loaded = static_program::load(opened, name.to_bytes(), ImageMemory::File)?;
    tunables.judge_program(|| marks::asks_for_seal(&loaded.headers, &loaded.image));
    let vdso = sys::vdso()?;
    let mut plan = program::seal_plan_of_static(name.to_bytes(), &loaded, interpreter, vdso.as_deref(), tunables);
    program::add_kernel_data(&mut plan, vdso.as_deref(), tunables);
    Ok(plan)
}

/// Maps the program and all that it needs.
fn load(
    start: &Start,
    name: &CStr,
    opened: Opened,
    options: SearchOptions,
    interpreter: Box<Object>,
    secure: bool,
) -> Result<Program, LoadError> {
    let origin = program::origin_of_file(&opened);
    let program = program::executable(opened, name, origin, ImageMemory::File)?;
    let called = called(start).as_bytes().to_vec();
    let parts = Parts { program, called, vdso: sys::vdso()?, interpreter, memory: ImageMemory::File };
    let environment = variable("LD_PRELOAD").unwrap_or_default();
    let preloads = Preloads { environment: &environment, option: b"", secure };
    Program::load(parts, Finder::new(options), preloads, false, &mut warn)
}

/// The line of a warning, which the interpreter writes to standard error too.
fn warn(line: fmt::Arguments<'_>) {
    eprintln!("{line}");
}

/// Maps the interpreter of this very build, under the name by which it would be executed. With it where its tables lie.
fn own_interpreter() -> Result<(Box<Object>, Range<VAddr>), Failure> {
    let own = |text: String| Failure::Own(format!("{}: {text}", interpreter::NAME));
    let (file, name) = interpreter::open().map_err(own)?;
    let opened = file::check(name.clone(), file).map_err(OpenError::into_error)?;
    let mut object = file::load(opened, Kind::Interpreter, name.as_bytes(), ImageMemory::File, Occasion::Start)?;
    let tables = interpreter::tables().ok_or_else(|| own("its tables have no symbol".into()))?;
    object.file = None;
    Ok((program::as_interpreter(object), tables))
}
