//! TLS descriptors (`-mtls-dialect=gnu2`): functions that are called with the descriptor's address in rax, answer the distance of a variable
//! from the thread pointer in rax, and keep every other register.

use super::lazy::{restore_vectors, save_vectors, SAVE_AREA, SAVE_WITH, STATE_MASK};
use crate::glibc::tls;
use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use core::arch::naked_asm;
use core::cell::UnsafeCell;
use loader::addr::Addr;

/// What a dynamic descriptor points to.
#[repr(C)]
struct Argument {
    module: u64,
    offset: u64,
}

/// For variables in static TLS: the answer is in the descriptor.
pub fn static_entry() -> Addr {
    Addr(static_code as *const () as usize)
}

/// For undefined weak variables: the answer is such that the variable's address is the addend.
pub fn undefined_entry() -> Addr {
    Addr(undefined_code as *const () as usize)
}

struct Arguments(UnsafeCell<BTreeMap<(u64, u64), Box<Argument>>>);
// SAFETY: touched while objects are relocated only, under the loader's lock or at start-up.
unsafe impl Sync for Arguments {}

/// The arguments of all dynamic descriptors. They live on when their module is closed: a library that is opened again has the same ones.
static ARGUMENTS: Arguments = Arguments(UnsafeCell::new(BTreeMap::new()));

/// For all others: entry and argument of a descriptor.
pub fn dynamic(module: usize, offset: u64) -> (Addr, u64) {
    // SAFETY: see `Arguments`.
    let arguments = unsafe { &mut *ARGUMENTS.0.get() };
    let key = (module as u64, offset);
    let argument = arguments.entry(key).or_insert_with(|| Box::new(Argument { module: key.0, offset }));
    (Addr(dynamic_code as *const () as usize), core::ptr::from_ref::<Argument>(argument) as u64)
}

/// Drops the arguments for a module that was never in use, and moves the others' table out of the memory that a transaction which failed has
/// taken.
pub fn renew(is_used: impl Fn(usize) -> bool) {
    // SAFETY: see `Arguments`.
    let arguments = unsafe { &mut *ARGUMENTS.0.get() };
    let old = core::mem::take(arguments);
    *arguments = old.into_iter().filter(|((module, _), _)| is_used(*module as usize)).collect();
}

#[unsafe(naked)]
unsafe extern "C" fn static_code() {
    naked_asm!("mov rax, [rax + 8]", "ret")
}

#[unsafe(naked)]
unsafe extern "C" fn undefined_code() {
    naked_asm!("mov rax, [rax + 8]", "sub rax, fs:[0]", "ret")
}

#[unsafe(naked)]
unsafe extern "C" fn dynamic_code() {
    naked_asm!(
        "push rbx",
        "push rcx",
        "push rdx",
        "push rsi",
        "push rdi",
        "push r8",
        "push r9",
        "push r10",
        "push r11",
        "mov rdi, [rax + 8]",
        "mov rbx, rsp",
        save_vectors!(),
        "call {address}",
        "mov rcx, rax",
        restore_vectors!(),
        "mov rax, rcx",
        "sub rax, fs:[0]",
        "pop r11",
        "pop r10",
        "pop r9",
        "pop r8",
        "pop rdi",
        "pop rsi",
        "pop rdx",
        "pop rcx",
        "pop rbx",
        "ret",
        area = sym SAVE_AREA,
        with = sym SAVE_WITH,
        mask = const STATE_MASK,
        address = sym address,
    )
}

extern "C" fn address(argument: &Argument) -> u64 {
    (tls::current_block(argument.module as usize) as u64).wrapping_add(argument.offset)
}
