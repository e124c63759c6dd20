//! The four functions that compiled code takes for granted, which elsewhere a C library has, and two symbols that are named by
//! the compiled parts of `core` and `alloc` and never reached, since nothing unwinds.
//!
//! Unsafe stands here because they are functions over bare memory, and assembly so that the compiler does not make them of
//! themselves.
#![expect(unsafe_code, reason = "functions over bare memory; see the module documentation")]

use core::arch::{asm, naked_asm};

/// Copies `count` bytes between places that do not overlap.
///
/// # Safety
/// As in C.
#[unsafe(no_mangle)]
#[unsafe(naked)]
unsafe extern "sysv64" fn memcpy(to: *mut u8, from: *const u8, count: usize) -> *mut u8 {
    naked_asm!(
        "mov rax, rdi",
        "mov rcx, rdx",
        "shr rcx, 3",
        "rep movsq",
        "mov ecx, edx",
        "and ecx, 7",
        "rep movsb",
        "ret"
    )
}

/// Copies `count` bytes between places that may overlap.
///
/// # Safety
/// As in C.
#[unsafe(no_mangle)]
#[unsafe(naked)]
unsafe extern "sysv64" fn memmove(to: *mut u8, from: *const u8, count: usize) -> *mut u8 {
    naked_asm!(
        "mov rax, rdi",
        "sub rax, rsi",
        // Upwards, unless the destination begins inside the source.
        "cmp rax, rdx",
        "jae {memcpy}",
        "mov rax, rdi",
        "lea rdi, [rdi + rdx - 1]",
        "lea rsi, [rsi + rdx - 1]",
        "mov rcx, rdx",
        "std",
        "rep movsb",
        "cld",
        "ret",
        memcpy = sym memcpy,
    )
}

/// Sets `count` bytes to the low byte of `value`.
///
/// # Safety
/// As in C.
#[unsafe(no_mangle)]
#[unsafe(naked)]
unsafe extern "sysv64" fn memset(to: *mut u8, value: i32, count: usize) -> *mut u8 {
    naked_asm!("mov r8, rdi", "mov eax, esi", "mov rcx, rdx", "rep stosb", "mov rax, r8", "ret")
}

/// Compares `count` bytes: negative, zero or positive.
///
/// # Safety
/// As in C.
#[unsafe(no_mangle)]
#[unsafe(naked)]
unsafe extern "sysv64" fn memcmp(left: *const u8, right: *const u8, count: usize) -> i32 {
    naked_asm!(
        "xor eax, eax",
        "mov rcx, rdx",
        // Sets the flag for equality, which nothing does where there is nothing to compare.
        "cmp rcx, rcx",
        "repe cmpsb",
        "je 2f",
        "movzx eax, byte ptr [rdi - 1]",
        "movzx ecx, byte ptr [rsi - 1]",
        "sub eax, ecx",
        "2:",
        "ret"
    )
}

/// [`memcmp`], where only equality counts.
///
/// # Safety
/// As in C.
#[unsafe(no_mangle)]
#[unsafe(naked)]
unsafe extern "sysv64" fn bcmp(left: *const u8, right: *const u8, count: usize) -> i32 {
    naked_asm!("jmp {memcmp}", memcmp = sym memcmp)
}

#[unsafe(no_mangle)]
extern "C" fn rust_eh_personality() -> ! {
    unreached()
}

#[unsafe(no_mangle)]
extern "C" fn _Unwind_Resume() -> ! {
    unreached()
}

fn unreached() -> ! {
    // SAFETY: the instruction faults, upon which Xen ends the guest.
    unsafe { asm!("ud2", options(noreturn)) }
}
