//! Loading the modules: each in a namespace of its own, before anything but the program is there.

use super::{add, report, CANDIDATE, LIMIT};
use crate::glibc::audit::{self as abi, Interface, VersionFunction};
use crate::logger;
use crate::process::{self, Process};
use crate::services::namespace::Target;
use crate::services::open::{self, mode, Request};
use crate::services::symbol::{self, Where};
use crate::services::{close, error, seal};
use alloc::ffi::CString;
use alloc::vec::Vec;
use core::ffi::CStr;
use core::sync::atomic::Ordering;
use loader::addr::Addr;
use loader::error::{LoadError, Lossy};
use loader::object::{NamespaceId, ObjectId};
use loader::sys;

/// Names of 255 bytes and more are ignored (glibc's `SECURE_NAME_LIMIT`).
const LONGEST: usize = 255;

/// The modules that lists separated by colons name, in order. Secure execution takes no name with a slash.
pub fn names<'l>(lists: impl Iterator<Item = &'l [u8]>, secure: bool) -> Vec<CString> {
    let words = lists.flat_map(|list| list.split(|&b| b == b':'));
    let usable = |name: &&[u8]| !name.is_empty() && name.len() < LONGEST && !(secure && name.contains(&b'/'));
    words.filter(usable).filter_map(|name| CString::new(name).ok()).collect()
}

/// Loads the modules. One that can't be loaded, or does not want to be one, is left out.
pub fn load(names: &[CString], secure: bool) {
    for name in names {
        if let Err(error) = load_one(name, secure) {
            logger::line(format_args!(
                "ERROR: ld.so: object '{}' cannot be loaded as audit interface: {}; ignored.",
                Lossy(name.to_bytes()),
                error.cause()
            ));
        }
    }
    abi::publish(
        process::layout(),
        super::interfaces().map(|(_, interface)| interface).collect::<Vec<_>>().into_iter(),
    );
}

fn load_one(name: &CStr, secure: bool) -> Result<(), LoadError> {
    let privileged = if secure { Some(find_privileged(name)?) } else { None };
    let caller = {
        let process = process::enter();
        process.linker.objects[process.interpreter].image.range.start
    };
    CANDIDATE.store(next_namespace(&process::enter()), Ordering::Relaxed);
    let file = privileged.as_deref().unwrap_or(name);
    let request = Request { name: Some(file), mode: mode::LAZY | mode::AUDIT, caller, target: Target::New };
    let opened = open::open(&request);
    CANDIDATE.store(0, Ordering::Relaxed);
    let Some(root) = opened? else {
        return Ok(());
    };
    accept(name, root, caller).inspect_err(|_| reject(root))
}

/// The namespace that a module which is loaded now gets.
fn next_namespace(process: &Process) -> u32 {
    let free = |number: &u32| !process.linker.is_in_use(NamespaceId(*number as u8));
    (1..=LIMIT as u32).find(free).unwrap_or(0)
}

/// The file that secure execution takes for a module: as with preloads the first on the program's search path that has the set-user-ID
/// bit, whatever the cache says.
fn find_privileged(name: &CStr) -> Result<CString, LoadError> {
    let mut gate = process::enter();
    let process = &mut *gate;
    let opened = process.finder.open_privileged(name.to_bytes(), process.main, &process.linker.objects)?;
    Ok(opened.path)
}

/// Asks a module whether it speaks this version of the interface; if so it is one from now on, and stays for ever.
fn accept(name: &CStr, root: ObjectId, caller: Addr) -> Result<(), LoadError> {
    let find = |name: &CStr| symbol::find(Where::Object(root), name.to_bytes(), None, caller).inspect_err(error::tell);
    let version = find(abi::VERSION_FUNCTION)? as usize;
    // SAFETY: an object that defines this function defines it as rtld-audit(7) says.
    let version: VersionFunction = unsafe { core::mem::transmute(version) };
    let offered = abi::version(process::layout().version);
    // SAFETY: as above; the module is initialised.
    let wanted = unsafe { version(offered) };
    if wanted == 0 || wanted > offered {
        if wanted == 0 {
            let process = process::enter();
            let object = &process.linker.objects[root];
            log::debug!(
                target: "files",
                "file={} [{}]; audit interface function la_version returned zero; ignored.",
                Lossy(object.name.to_bytes()),
                object.namespace.0
            );
        } else {
            logger::line(format_args!(
                "{:10}:\tERROR: audit interface '{}' requires version {} (maximum supported version {offered}); ignored.",
                sys::getpid(),
                Lossy(name.to_bytes()),
                wanted as i32
            ));
        }
        reject(root);
        return Ok(());
    }
    // SAFETY: the functions of an audit module are what their names say.
    let interface = unsafe { Interface::find(|name| find(name).unwrap_or(0) as usize) };
    let mut gate = process::enter();
    let process = &mut *gate;
    let namespace = process.linker.objects[root].namespace;
    let kept = close::keep(process, &[root]);
    for &id in &kept {
        process.maps.refresh(process::layout(), &process.linker, id);
    }
    process.maps.mark_auditing(process::layout(), root);
    add(interface, namespace);
    process.finder.watch(report::search);
    process.maps.with_names = true;
    // Now, before the next module or anything of the program runs.
    seal::at_start(process, &kept);
    Ok(())
}

fn reject(root: ObjectId) {
    // It was just opened, so that it can be closed.
    let _ = close::close(root);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_split_at_colons() {
        let lists: [&[u8]; 3] = [b"a:b", b":", b"/c d"];
        let words = |secure| -> Vec<Vec<u8>> {
            names(lists.into_iter(), secure).into_iter().map(CString::into_bytes).collect()
        };
        assert_eq!(words(false), [&b"a"[..], b"b", b"/c d"]);
        assert_eq!(words(true), [&b"a"[..], b"b"]);
        assert!(names([&[b'x'; 255][..]].into_iter(), false).is_empty());
        assert_eq!(names([&[b'x'; 254][..]].into_iter(), false).len(), 1);
    }
}
