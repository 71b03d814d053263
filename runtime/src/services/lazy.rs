//! Lazy binding: the first call through a PLT slot comes here (psABI, "Procedure Linkage Table").

use super::link::LinkServices;
use crate::process;
use core::arch::naked_asm;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use loader::addr::Addr;
use loader::error::{LoadError, Lossy};
use loader::object::ObjectId;
use loader::reloc::{self, Binder};

/// The state components that a call may use: SSE, AVX, bounds, opmask and the rest of AVX-512. As in glibc, x87 is left out: a call finds
/// the x87 stack empty anyway.
pub(super) const STATE_MASK: u32 = 0b1110_1110;

/// Bytes that the trampoline needs to save the vector registers, a multiple of 64.
pub(super) static SAVE_AREA: AtomicU64 = AtomicU64::new(576);
/// 0: fxsave, 1: xsave, 2: xsavec.
pub(super) static SAVE_WITH: AtomicU32 = AtomicU32::new(0);

/// How vector registers are saved.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SaveWith {
    /// The CPU has no XSAVE.
    Fxsave,
    /// XSAVE.
    Xsave,
    /// XSAVEC.
    Xsavec,
}

/// Says how vector registers are saved, and how many bytes that takes.
pub fn set_save_area(with: SaveWith, size: u64) {
    SAVE_WITH.store(with as u32, Ordering::Relaxed);
    SAVE_AREA.store((size.max(512) + 64 + 63) & !63, Ordering::Relaxed);
}

/// The address that PLT headers jump to.
pub fn trampoline() -> Addr {
    Addr(trampoline_code as *const () as usize)
}

/// Saves the vector registers at `rsp` after making room; uses rax, rdx. `rbx` must hold the old stack pointer.
macro_rules! save_vectors {
    () => {
        "sub rsp, [rip + {area}]
         and rsp, -64
         mov edx, [rip + {with}]
         test edx, edx
         jz 20f
         xor eax, eax
         mov [rsp + 512], rax
         mov [rsp + 520], rax
         mov [rsp + 528], rax
         mov [rsp + 536], rax
         mov [rsp + 544], rax
         mov [rsp + 552], rax
         mov [rsp + 560], rax
         mov [rsp + 568], rax
         mov eax, {mask}
         cmp edx, 2
         mov edx, 0
         je 21f
         xsave [rsp]
         jmp 22f
         21: xsavec [rsp]
         jmp 22f
         20: fxsave [rsp]
         22:"
    };
}
pub(super) use save_vectors;

/// Restores what [`save_vectors`] saved; uses rax, rdx.
macro_rules! restore_vectors {
    () => {
        "mov edx, [rip + {with}]
         test edx, edx
         jz 23f
         mov eax, {mask}
         xor edx, edx
         xrstor [rsp]
         jmp 24f
         23: fxrstor [rsp]
         24:
         mov rsp, rbx"
    };
}
pub(super) use restore_vectors;

/// Entered by the PLT header with the object's cookie and the index of the relocation on the stack, above them the return address of the
/// call. Every register that can carry an argument is kept, the vector registers in full width.
#[unsafe(naked)]
unsafe extern "C" fn trampoline_code() {
    naked_asm!(
        "push rax",
        "push rcx",
        "push rdx",
        "push rsi",
        "push rdi",
        "push r8",
        "push r9",
        "push r10",
        "push r11",
        "push rbx",
        "mov rbx, rsp",
        "mov rdi, [rsp + 80]",
        "mov rsi, [rsp + 88]",
        save_vectors!(),
        "call {bind}",
        "mov r11, rax",
        restore_vectors!(),
        "pop rbx",
        "add rsp, 8",
        "pop r10",
        "pop r9",
        "pop r8",
        "pop rdi",
        "pop rsi",
        "pop rdx",
        "pop rcx",
        "pop rax",
        "add rsp, 16",
        "jmp r11",
        area = sym SAVE_AREA,
        with = sym SAVE_WITH,
        mask = const STATE_MASK,
        bind = sym bind,
    )
}

/// Binds a slot; ends the program if there is no definition.
extern "C" fn bind(cookie: u64, index: u64) -> u64 {
    match try_bind(ObjectId(cookie as u32), index) {
        Ok(address) => address,
        Err(error) => report(&error),
    }
}

fn try_bind(id: ObjectId, index: u64) -> Result<u64, LoadError> {
    let process = process::enter();
    let linker = &process.linker;
    let namespace = linker.namespace(linker.objects[id].namespace);
    let binder = Binder::new(&linker.objects, namespace.global_scope.iter().copied(), &namespace.unique);
    let services = LinkServices::new(process.static_tls, None);
    let binding = binder.object(id);
    // SAFETY: the object is relocated, or its code would not be calling; so is what it depends on.
    let address = unsafe { reloc::bind_slot(&binding, index, &services, true)? };
    drop(binding);
    let dependencies = binder.dependencies.into_inner();
    drop(process);
    if !dependencies.is_empty() {
        super::close::add_dependencies(dependencies);
    }
    Ok(address)
}

/// Says what is missing, as glibc does, and ends the program.
pub fn report(error: &LoadError) -> ! {
    let program = {
        let process = process::enter();
        process.linker.objects[process.main].display_name().to_vec()
    };
    crate::logger::line(format_args!("{}: symbol lookup error: {error}", Lossy(&program)));
    loader::sys::exit(127)
}
