//! `ld-seal.so`: the object that the kernel starts in place of glibc's ld.so.
//!
//! Only what must be in the binary is here: the entry point, the allocator and the panic handler. All else is in the library.
#![no_std]
#![no_main]

extern crate alloc;

use core::arch::naked_asm;
use goblin::elf64::program_header::PT_GNU_RELRO;
use runtime::heap::Allocator;

#[global_allocator]
static ALLOCATOR: Allocator = Allocator;

// First byte of the image and the dynamic section; the linker defines them.
extern "C" {
    static __ehdr_start: u8;
    static _DYNAMIC: u8;
}

/// The entry point. Relocates this image, in assembly because until that is done no code may touch the GOT, which compiled Rust does
/// at the linker's whim; then lets [`runtime::start::start`] load the program, and enters it.
///
/// RELRO is to be in anonymous memory. It is moved there before it is relocated, while it is still the page cache's: afterwards the kernel
/// would have copied each page for the relocations and would have to copy it once more. Where that fails, `start` is told.
///
/// All relocations are `R_X86_64_RELATIVE` (the build would fail on others with `-z text` and `--no-undefined`); anything else stops
/// at `ud2`.
///
/// # Safety
/// Called by the kernel only, with the initial stack.
#[unsafe(naked)]
#[no_mangle]
unsafe extern "C" fn _start() -> ! {
    naked_asm!(
        "mov rbx, rsp",
        "lea rbp, [rip + {ehdr}]",
        // PT_GNU_RELRO: e_phoff, e_phnum; p_vaddr, p_memsz. Both ends are rounded down to pages.
        "xor r15d, r15d",
        "mov rax, [rbp + 32]",
        "add rax, rbp",
        "movzx ecx, word ptr [rbp + 56]",
        "10:",
        "sub ecx, 1",
        "jb 12f",
        "cmp dword ptr [rax], {relro}",
        "je 11f",
        "add rax, 56",
        "jmp 10b",
        "11:",
        "mov r13, [rax + 16]",
        "mov r14, [rax + 40]",
        "add r14, r13",
        "and r13, -4096",
        "and r14, -4096",
        "sub r14, r13",
        "jbe 12f",
        "add r13, rbp",
        // mmap(0, r14, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0)
        "mov eax, 9",
        "xor edi, edi",
        "mov rsi, r14",
        "mov edx, 3",
        "mov r10d, 0x8022",
        "mov r8, -1",
        "xor r9d, r9d",
        "syscall",
        "cmp rax, -4096",
        "ja 12f",
        "mov r12, rax",
        "mov rdi, rax",
        "mov rsi, r13",
        "mov rcx, r14",
        "rep movsb",
        // mremap(r12, r14, r14, MREMAP_MAYMOVE | MREMAP_FIXED, r13)
        "mov eax, 25",
        "mov rdi, r12",
        "mov rsi, r14",
        "mov rdx, r14",
        "mov r10d, 3",
        "mov r8, r13",
        "syscall",
        "mov r15d, 1",
        "cmp rax, r13",
        "je 12f",
        // munmap(r12, r14)
        "xor r15d, r15d",
        "mov eax, 11",
        "mov rdi, r12",
        "mov rsi, r14",
        "syscall",
        "12:",
        "mov rdi, rbx",
        "mov rsi, rbp",
        "lea rax, [rip + {dynamic}]",
        "xor ecx, ecx", // DT_RELA
        "xor edx, edx", // DT_RELASZ
        "2:",
        "mov r8, [rax]",
        "test r8, r8",
        "jz 5f",
        "cmp r8, 7",
        "jne 3f",
        "mov rcx, [rax + 8]",
        "3:",
        "cmp r8, 8",
        "jne 4f",
        "mov rdx, [rax + 8]",
        "4:",
        "add rax, 16",
        "jmp 2b",
        "5:",
        "add rcx, rsi",
        "add rdx, rcx",
        "6:",
        "cmp rcx, rdx",
        "jae 7f",
        "cmp dword ptr [rcx + 8], 8",
        "jne 8f",
        "mov rax, [rcx]",
        "mov r8, [rcx + 16]",
        "add r8, rsi",
        "mov [rsi + rax], r8",
        "add rcx, 24",
        "jmp 6b",
        "8:",
        "ud2",
        "7:",
        "lea rdx, [rip + {dynamic}]",
        "mov ecx, r15d",
        "and rsp, -16",
        "xor ebp, ebp",
        "call {start}",
        // rax: where to go. rdx: what the program registers with atexit. The stack pointer is the kernel's.
        "mov rsp, rbx",
        "xor ebp, ebp",
        "xor ebx, ebx",
        "xor r12d, r12d",
        "xor r13d, r13d",
        "xor r14d, r14d",
        "xor r15d, r15d",
        "jmp rax",
        relro = const PT_GNU_RELRO,
        ehdr = sym __ehdr_start,
        dynamic = sym _DYNAMIC,
        start = sym runtime::start::start,
    )
}

#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    runtime::fatal(format_args!("{}", info.message()))
}

/// What an unwinder asks of a frame that has landing pads. Those of the prebuilt `core` and `alloc`, and of code inlined from
/// them, name it; with `panic = "abort"` no panic comes here, but a thread that is cancelled in a callback that the loader has called (of
/// an audit module, say) is unwound through them. They are passed as C frames are: nothing is caught and nothing cleaned up.
#[no_mangle]
extern "C" fn rust_eh_personality() -> u32 {
    /// `_URC_CONTINUE_UNWIND` of the Itanium C++ ABI, "Exception Handling" 1.1.
    const CONTINUE_UNWIND: u32 = 8;
    CONTINUE_UNWIND
}
/// A landing pad ends in a call of it, and none is ever entered.
#[no_mangle]
extern "C" fn _Unwind_Resume() -> ! {
    runtime::fatal(format_args!("inconsistency: unwinding"))
}
