//! The memory functions that compiled code calls by name. In a program they come from libc; here there is none, and the compiler's
//! own library leaves them out for this target. In assembly, as a loop in Rust would be recognised and turned into a call of itself.

#[cfg(not(test))]
mod functions {
    use core::arch::naked_asm;

    /// `memcpy(3)`
    ///
    /// # Safety
    /// As for the C function.
    #[unsafe(naked)]
    #[no_mangle]
    unsafe extern "C" fn memcpy(to: *mut u8, from: *const u8, len: usize) -> *mut u8 {
        naked_asm!(
            "mov rax, rdi",
            "cmp rdx, 16",
            "jb 3f",
            "cmp rdx, 256",
            "jae 2f",
            "movdqu xmm0, [rsi + rdx - 16]",
            "lea r8, [rdi + rdx - 16]",
            "4:",
            "movdqu xmm1, [rsi]",
            "movdqu [rdi], xmm1",
            "add rsi, 16",
            "add rdi, 16",
            "sub rdx, 16",
            "cmp rdx, 16",
            "ja 4b",
            "movdqu [r8], xmm0",
            "ret",
            "2:",
            "mov rcx, rdx",
            "rep movsb",
            "ret",
            "3:",
            "test rdx, rdx",
            "jz 5f",
            "6:",
            "mov cl, [rsi]",
            "mov [rdi], cl",
            "inc rsi",
            "inc rdi",
            "dec rdx",
            "jnz 6b",
            "5:",
            "ret",
        )
    }

    /// `memmove(3)`
    ///
    /// # Safety
    /// As for the C function.
    #[unsafe(naked)]
    #[no_mangle]
    unsafe extern "C" fn memmove(to: *mut u8, from: *const u8, len: usize) -> *mut u8 {
        naked_asm!(
            "mov rax, rdi",
            "mov rcx, rdi",
            "sub rcx, rsi",
            "cmp rcx, rdx",
            "jb 2f",
            "mov rcx, rdx",
            "rep movsb",
            "ret",
            "2:",
            "mov rcx, rdx",
            "lea rsi, [rsi + rdx - 1]",
            "lea rdi, [rdi + rdx - 1]",
            "std",
            "rep movsb",
            "cld",
            "ret",
        )
    }

    /// `memset(3)`
    ///
    /// # Safety
    /// As for the C function.
    #[unsafe(naked)]
    #[no_mangle]
    unsafe extern "C" fn memset(to: *mut u8, byte: i32, len: usize) -> *mut u8 {
        naked_asm!("mov r8, rdi", "mov eax, esi", "mov rcx, rdx", "rep stosb", "mov rax, r8", "ret")
    }

    /// `memcmp(3)`
    ///
    /// # Safety
    /// As for the C function.
    #[unsafe(naked)]
    #[no_mangle]
    unsafe extern "C" fn memcmp(a: *const u8, b: *const u8, len: usize) -> i32 {
        naked_asm!(
            "cmp rdx, 8",
            "jb 3f",
            "2:",
            "mov rax, [rdi]",
            "cmp rax, [rsi]",
            "jne 3f",
            "add rdi, 8",
            "add rsi, 8",
            "sub rdx, 8",
            "cmp rdx, 8",
            "jae 2b",
            "3:",
            "test rdx, rdx",
            "jz 4f",
            "5:",
            "movzx eax, byte ptr [rdi]",
            "movzx ecx, byte ptr [rsi]",
            "sub eax, ecx",
            "jnz 6f",
            "inc rdi",
            "inc rsi",
            "dec rdx",
            "jnz 5b",
            "4:",
            "xor eax, eax",
            "6:",
            "ret",
        )
    }

    /// `bcmp(3)`
    ///
    /// # Safety
    /// As for the C function.
    #[unsafe(naked)]
    #[no_mangle]
    unsafe extern "C" fn bcmp(a: *const u8, b: *const u8, len: usize) -> i32 {
        naked_asm!("jmp {memcmp}", memcmp = sym memcmp)
    }

    /// `strlen(3)`
    ///
    /// # Safety
    /// As for the C function.
    #[unsafe(naked)]
    #[no_mangle]
    unsafe extern "C" fn strlen(string: *const u8) -> usize {
        naked_asm!(
            "mov rax, rdi",
            "2:",
            "cmp byte ptr [rax], 0",
            "je 3f",
            "inc rax",
            "jmp 2b",
            "3:",
            "sub rax, rdi",
            "ret",
        )
    }

    /// `index(3)`, which nothing here calls: valgrind's tools look for it in the loader beside `strlen`, to put their own in its place.
    ///
    /// # Safety
    /// As for the C function.
    #[unsafe(naked)]
    #[no_mangle]
    unsafe extern "C" fn index(string: *const u8, wanted: i32) -> *const u8 {
        naked_asm!(
            "mov rax, rdi",
            "2:",
            "cmp byte ptr [rax], sil",
            "je 3f",
            "cmp byte ptr [rax], 0",
            "je 4f",
            "inc rax",
            "jmp 2b",
            "4:",
            "xor eax, eax",
            "3:",
            "ret",
        )
    }
}
