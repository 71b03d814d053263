//! Relocation: from the records of an object to stores into its image.
//!
//! psABI x86-64, "Relocation Types", and "ELF Handling For Thread-Local Storage". Relocating goes in two passes. The first
//! applies everything that needs no foreign code; what must call an IFUNC resolver, and copies of data that may hold the result of one,
//! is put off to the second, which runs when every object of the transaction has been through the first. A resolver may therefore
//! use relocated data of its own and of any other object.

mod binder;
mod check;
pub mod lazy;
pub mod protected;
pub mod slots;
mod x86_64;

pub use binder::{is_ifunc, log_binding, log_search, value_of, Binder, Binding, Dependency, Resolved};
pub use check::references;
pub use x86_64::{relocate, run_deferred, Deferred, PltMode, WARNS_OF_SMALLER};

use crate::addr::Addr;
use crate::error::LoadError;
use crate::object::{Object, ObjectId};

/// What relocation needs of whoever owns the threads and the code of the process.
pub trait Services {
    /// The distance below the thread pointer of an object's static TLS block, making it static if that is still possible.
    fn static_tls_offset(&self, id: ObjectId, object: &Object) -> Result<u64, LoadError>;
    /// The entry point and argument of a TLS descriptor for `offset` in an object's TLS.
    fn tls_descriptor(&self, id: ObjectId, object: &Object, offset: u64) -> Result<(Addr, u64), LoadError>;
    /// The entry point of TLS descriptors of undefined weak symbols; the argument is the addend.
    fn tls_descriptor_undefined(&self) -> Addr;
    /// Where the PLT header of lazily bound objects jumps.
    fn lazy_trampoline(&self) -> Addr;
    /// The word that the PLT header of an object passes to the trampoline.
    fn lazy_cookie(&self, id: ObjectId) -> u64;
    /// Calls an IFUNC resolver.
    ///
    /// # Safety
    /// `resolver` must be the address of one, and its object relocated.
    unsafe fn call_resolver(&self, resolver: Addr) -> u64;
}
