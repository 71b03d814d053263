//! What programs ask of a loader while they run.

pub mod address;
pub mod close;
pub mod debug;
pub mod error;
pub mod fork;
pub mod init;
pub mod lazy;
pub mod link;
pub mod mseal;
pub mod namespace;
pub mod open;
pub mod rollback;
pub mod scopes;
pub mod seal;
pub mod symbol;
pub mod tlsdesc;

use loader::addr::Addr;

/// Calls an IFUNC resolver.
///
/// # Safety
/// `resolver` must be the address of one, its object relocated, and the thread pointer set up.
pub unsafe fn call_resolver(resolver: Addr) -> u64 {
    // SAFETY: the caller's contract; resolvers take no arguments on x86-64 (glibc passes none) and return an address.
    let resolver: unsafe extern "C" fn() -> u64 = unsafe { core::mem::transmute(resolver.0) };
    // SAFETY: as above.
    unsafe { resolver() }
}
