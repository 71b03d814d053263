//! Namespaces of `dlmopen(3)`: lists of objects that do not see each other's, each with a C library of its own.

use super::error;
use crate::glibc::{debugger, libc};
use crate::process::{self, Process};
use loader::error::LoadError;
use loader::linker::Transaction;
use loader::object::{NamespaceId, ObjectId, BASE_NAMESPACE};
use rustix::io::Errno;

/// How many there can be, the program's included (glibc's `DL_NNS`, the length of `_rtld_global._dl_ns`).
pub const LIMIT: usize = 16;

/// The namespace that a request means.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Target {
    /// That of the object which asks.
    Caller,
    /// A new one.
    New,
    /// The one with this number, if there is such a one.
    Number(i64),
}

impl Target {
    /// The first argument of `dlmopen`.
    pub fn from_argument(id: i64) -> Target {
        match id {
            // LM_ID_NEWLM
            -1 => Target::New,
            // glibc's own number for the namespace of the caller.
            -2 => Target::Caller,
            number => Target::Number(number),
        }
    }
}

/// Finds or makes the namespace that is meant. One that was made must be filled, or forgotten by [`tidy`].
///
/// # Errors
/// There are no more, or nothing is loaded in the one that is meant.
pub fn choose(process: &mut Process, target: Target, asker: ObjectId, name: &[u8]) -> Result<NamespaceId, LoadError> {
    let refuse = |what| LoadError::system(name, what, Errno::INVAL);
    match target {
        Target::Caller => Ok(process.linker.objects[asker].namespace),
        Target::Number(0) => Ok(BASE_NAMESPACE),
        Target::New => {
            process.linker.free_namespace(LIMIT).ok_or_else(|| refuse("no more namespaces available for dlmopen()"))
        }
        Target::Number(number) => u8::try_from(number)
            .ok()
            .map(NamespaceId)
            .filter(|id| process.linker.is_in_use(*id))
            .ok_or_else(|| refuse("invalid target namespace in dlmopen()")),
    }
}

/// Clears up after objects have gone or have not come: namespaces without objects are free again. Those that are named are shown as they
/// are now.
pub fn tidy<'n>(process: &mut Process, touched: impl IntoIterator<Item = &'n NamespaceId>) {
    let changed = process.linker.tidy_namespaces();
    for namespace in changed.into_iter().chain(touched.into_iter().copied()) {
        process.maps.publish_list(process::layout(), &process.linker, namespace);
        if !process.linker.is_in_use(namespace) {
            error::forget_namespace(namespace);
        }
    }
}

/// Lets the C library that a transaction has brought into a namespace initialise itself. The gate must not be held.
pub fn initialise_libc(transaction: &Transaction) {
    let (early_init, register_atfork) = {
        let process = process::enter();
        let has_one = transaction.namespace == BASE_NAMESPACE && process.libc.is_some();
        let is_libc = |id: &&ObjectId| process.linker.objects[**id].answers_to(libc::SONAME);
        let Some(&new) = transaction.added.iter().find(is_libc).filter(|_| !has_one) else {
            return;
        };
        // SAFETY: the transaction is committed: its objects are relocated.
        unsafe { libc::first_functions(&process.linker, new) }
    };
    if let Some(early_init) = early_init {
        // SAFETY: the C library is relocated, and its constructors have not run. It is not the one that the program started with.
        unsafe { early_init(false) };
    }
    if let Some(register_atfork) = register_atfork {
        // SAFETY: the C library is initialised, and the functions need nothing of an object that could be unloaded.
        unsafe { super::fork::register(register_atfork) };
    }
}

/// Announces to debuggers that the lists of namespaces are changing or have changed.
pub fn announce<'n>(namespaces: impl IntoIterator<Item = &'n NamespaceId>, state: debugger::State) {
    for &namespace in namespaces {
        debugger::state(namespace, state);
    }
}

/// The error of `dlmopen` for a combination of arguments that makes no sense.
pub fn refuse(what: &'static str) -> LoadError {
    LoadError { errno: Some(Errno::INVAL), ..error::fault(b"", what) }
}
