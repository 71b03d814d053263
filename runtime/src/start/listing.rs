//! Answers about a program that is not run: `--verify`, `--list`, and `LD_TRACE_LOADED_OBJECTS` with what ldd(1) asks for besides.

use super::objects::Listed;
use super::request::Request;
use super::Failure;
use crate::initial_stack::InitialStack;
use crate::logger;
use alloc::vec::Vec;
use core::ffi::CStr;
use goblin::elf::sym::STB_GLOBAL;
use goblin::elf64::program_header::PT_INTERP;
use loader::elf::dynamic::DependencyKind;
use loader::elf::header;
use loader::elf::symbols::HashedName;
use loader::error::{Consequence, LoadError, Lossy, Reason};
use loader::lookup::{Class, Query, Scope};
use loader::object::{Kind, Object, ObjectId, BASE_NAMESPACE};
use loader::reloc::{self, Binder, PltMode};
use loader::sys;

/// Answers `--verify` for the program, of which nothing else is loaded: 0 for one that names an interpreter, 2 for another object with a
/// dynamic section, 1 for one without.
pub fn verify(program: &Object) -> ! {
    let status = if program.dynamic.entries.is_empty() {
        1
    } else if header::find(&program.headers, PT_INTERP).is_some() {
        0
    } else {
        2
    };
    sys::exit(status)
}

/// Answers `--list`, for which everything was found: the closure, then where the symbols are that the arguments name. As in glibc, functions
/// are bound at once for `LD_DEBUG=unused` in `LD_TRACE_LOADED_OBJECTS` only.
///
/// # Errors
/// A broken relocation table; the first symbol that nobody defines.
pub fn list(stack: &InitialStack, request: &Request, loaded: Listed<'_>) -> Result<core::convert::Infallible, Failure> {
    show_dependencies(request, loaded, false)?;
    for name in (1..stack.argc()).filter_map(|index| stack.arg(index)) {
        find_symbol(loaded, name)?;
    }
    sys::exit(0)
}

/// Answers `LD_TRACE_LOADED_OBJECTS`.
///
/// # Errors
/// A broken relocation table.
pub fn trace(request: &Request, loaded: Listed<'_>) -> Result<core::convert::Infallible, Failure> {
    let functions = request.binding() != PltMode::Lazy;
    show_dependencies(request, loaded, functions)?;
    if request.environment.warn {
        // In the order of relocation, dependencies first.
        let order = loaded.linker.initialisation_order(loaded.closure, loaded.main);
        for &id in order.iter().rev() {
            if id == loaded.interpreter {
                continue;
            }
            references(loaded, id, functions, &mut |error| {
                error.tell(Consequence::Continued);
                logger::line(format_args!("{}\t({})", error.cause(), Lossy(&error.object)));
            })?;
        }
    }
    if request.environment.verbose {
        show_versions(loaded);
    }
    sys::exit(0)
}

/// Shows the closure, or with `LD_DEBUG=unused` what of it the program does not refer to, which ends the process.
fn show_dependencies(request: &Request, loaded: Listed<'_>, functions: bool) -> Result<(), Failure> {
    if log::log_enabled!(target: "unused", log::Level::Debug) {
        match show_unused(loaded, functions)? {}
    }
    show_closure(loaded, request.environment.trace.is_some_and(|trace| trace.program));
    Ok(())
}

/// The `DT_NEEDED` names of an object.
fn needed_names(object: &Object) -> impl Iterator<Item = &'static [u8]> + '_ {
    let needed = object.dynamic.needed.iter().filter(|dependency| dependency.kind == DependencyKind::Needed);
    needed.filter_map(|dependency| object.symbols.string(dependency.name))
}

/// A row of a listing.
enum Row<'l> {
    Found(ObjectId),
    /// By the name that it was asked for by.
    Missing(&'l [u8]),
}

/// What was loaded and what was not, in the order in which it was asked for.
fn rows<'l>(loaded: Listed<'l>) -> Vec<Row<'l>> {
    let linker = loaded.linker;
    let missing = linker.missing.as_deref().unwrap_or_default();
    let mut rows = Vec::new();
    let mut others = 0;
    let not_found = |before: usize| {
        // When places were counted, the interpreter still stood near the start of the list.
        let here = missing.iter().filter(move |(place, _)| *place == before + 1);
        here.map(|(_, name)| Row::Missing(name))
    };
    for &id in &linker.namespace(BASE_NAMESPACE).list {
        // The interpreter stands directly behind the one that it follows in the global scope.
        if id != loaded.interpreter {
            rows.extend(not_found(others));
            others += 1;
        }
        rows.push(Row::Found(id));
    }
    rows.extend(not_found(others));
    rows
}

fn show_closure(loaded: Listed<'_>, with_program: bool) {
    if needed_names(&loaded.linker.objects[loaded.main]).next().is_none() {
        logger::print(format_args!("\tstatically linked\n"));
        return;
    }
    for row in rows(loaded) {
        let object = match row {
            Row::Found(id) => &loaded.linker.objects[id],
            Row::Missing(name) => {
                logger::print(format_args!("\t{} => not found\n", Lossy(name)));
                continue;
            }
        };
        if object.kind == Kind::Executable && !with_program {
            continue;
        }
        let (name, start) = (object.name.to_bytes(), object.image.range.start.0);
        match object.asked_as().filter(|asked| *asked != name) {
            Some(asked) => logger::print(format_args!("\t{} => {} ({start:#018x})\n", Lossy(asked), Lossy(name))),
            None => logger::print(format_args!("\t{} ({start:#018x})\n", Lossy(name))),
        }
    }
}

/// Says where a symbol is. The numbers are decimal, whatever stands before them: that is glibc's format.
fn find_symbol(loaded: Listed<'_>, name: &'static CStr) -> Result<(), Failure> {
    let linker = loaded.linker;
    let namespace = linker.namespace(BASE_NAMESPACE);
    let query = Query { name: HashedName::new(name.to_bytes()), version: None, class: Class::Plt, newest: false };
    let scope = Scope::new(&linker.objects, namespace.global_scope.iter().copied());
    let found = scope.find(&query, &namespace.unique);
    let shown = |id: ObjectId| (linker.objects[id].display_name(), BASE_NAMESPACE);
    if log::log_enabled!(target: "symbols", log::Level::Trace) {
        reloc::log_search(scope.ids().map(|id| (id, shown(id).0)), query.name, found, BASE_NAMESPACE);
    }
    if let Some(found) = found.filter(|_| log::log_enabled!(target: "bindings", log::Level::Trace)) {
        reloc::log_binding(shown(loaded.main), shown(found.object), name.to_bytes(), None);
    }
    let Some(found) = found else {
        let reason = Reason::UndefinedSymbol { symbol: name.to_bytes().to_vec(), version: None };
        return Err(LoadError::new(linker.objects[loaded.main].display_name(), reason).into());
    };
    debug_assert!(found.symbol.st_info >> 4 >= STB_GLOBAL);
    logger::print(format_args!(
        "{} found at 0x{:016} in object at 0x{:016}\n",
        Lossy(name.to_bytes()),
        found.symbol.st_value,
        linker.objects[found.object].image.bias.0
    ));
    Ok(())
}

/// Looks up what an object refers to; functions too if it wants them to be bound at once. Who defines it; `undefined` gets what nobody does.
fn references(
    loaded: Listed<'_>,
    id: ObjectId,
    functions: bool,
    undefined: &mut dyn FnMut(LoadError),
) -> Result<Vec<ObjectId>, Failure> {
    let linker = loaded.linker;
    let namespace = linker.namespace(BASE_NAMESPACE);
    let binder = Binder::new(&linker.objects, namespace.global_scope.iter().copied(), &namespace.unique);
    let functions = functions || linker.objects[id].dynamic.binds_now();
    Ok(reloc::references(&binder.object(id), functions, undefined)?)
}

/// Names the direct dependencies in which the program refers to nothing; the exit status says whether there is one.
///
/// As in glibc, the direct dependencies are taken to be as many objects behind the program as it has `DT_NEEDED` entries, so that preloads
/// are counted among them.
fn show_unused(loaded: Listed<'_>, functions: bool) -> Result<core::convert::Infallible, Failure> {
    let linker = loaded.linker;
    let used = references(loaded, loaded.main, functions, &mut |_| ())?;
    let is_direct = |row: &Row<'_>| !matches!(row, Row::Found(id) if matches!(linker.objects[*id].kind, Kind::Executable | Kind::Vdso));
    let direct = rows(loaded).into_iter().filter(is_direct).take(needed_names(&linker.objects[loaded.main]).count());
    let unused: Vec<&[u8]> = direct
        .filter_map(|row| match row {
            Row::Found(id) if used.contains(&id) => None,
            Row::Found(id) => Some(linker.objects[id].name.to_bytes()),
            Row::Missing(name) => Some(name),
        })
        .collect();
    if !unused.is_empty() {
        logger::print(format_args!("Unused direct dependencies:\n"));
    }
    for name in &unused {
        logger::print(format_args!("\t{}\n", Lossy(name)));
    }
    sys::exit(i32::from(!unused.is_empty()))
}

/// Tells which versions every object needs, of which file, and where they are.
fn show_versions(loaded: Listed<'_>) {
    let linker = loaded.linker;
    let rows = rows(loaded);
    // As in glibc, what comes last is what counts. It goes by its DT_SONAME where somebody who asks for that gets it.
    let is_known_as = |id: ObjectId, file: &[u8]| {
        let object = &linker.objects[id];
        let named = object.name.to_bytes() == file || object.asked_as() == Some(file) || object.soname() != Some(file);
        object.answers_to(file) && (named || linker.find_by_name(BASE_NAMESPACE, file) == Some(id))
    };
    let provider = |file: &[u8]| {
        let answers = |row: &&Row<'_>| match row {
            Row::Found(id) => is_known_as(*id, file),
            Row::Missing(name) => *name == file,
        };
        match rows.iter().rev().find(answers) {
            Some(Row::Found(id)) => Some(&linker.objects[*id]),
            _ => None,
        }
    };
    let mut first = true;
    for &id in &linker.namespace(BASE_NAMESPACE).list {
        let object = &linker.objects[id];
        if object.versions.needs.is_empty() {
            continue;
        }
        if core::mem::take(&mut first) {
            logger::print(format_args!("\n\tVersion information:\n"));
        }
        logger::print(format_args!("\t{}:\n", Lossy(object.display_name())));
        for need in &object.versions.needs {
            let definer = provider(need.file);
            for wanted in &need.versions {
                let defines = |o: &&Object| o.versions.definitions.iter().any(|v| v.name == wanted.version.name);
                logger::print(format_args!(
                    "\t\t{} ({}) {}=> {}\n",
                    Lossy(need.file),
                    Lossy(wanted.version.name),
                    if wanted.weak { "[WEAK] " } else { "" },
                    Lossy(definer.filter(defines).map_or(b"not found", |o| o.name.to_bytes())),
                ));
            }
        }
    }
}
