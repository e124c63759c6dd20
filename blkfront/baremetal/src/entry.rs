//! The way in: what the image tells Xen's domain builder, and the first instructions.
//!
//! Unsafe stands here because this is where a processor with some addresses in its registers becomes a Rust program. What makes
//! it sound is the domain builder's part of the bargain (Xen's public headers `elfnote.h` and `xen.h`): it maps the image as
//! linked, zeroes what is not in the file, fills the hypercall page, and enters with RSI pointing to `start_info`.
#![expect(unsafe_code, reason = "the first instructions; see the module documentation")]

use core::{
    arch::global_asm,
    ptr::{self, NonNull},
    sync::atomic::{AtomicPtr, Ordering},
};

use xen_platform::bare::{self, Start};

// The numbers are those of `elfnote.h`. Addresses of the image are those of the guest's memory: the base is where page 0 is.
global_asm!(
    ".macro xen_note kind",
    ".balign 4",
    ".long 4, 3f - 2f, \\kind",
    ".asciz \"Xen\"",
    "2:",
    ".endm",
    ".macro xen_text kind, text",
    "xen_note \\kind",
    ".asciz \"\\text\"",
    "3:",
    ".endm",
    ".macro xen_address kind, address",
    "xen_note \\kind",
    ".quad \\address",
    "3:",
    ".endm",
    ".pushsection .note.Xen, \"a\", @note",
    "xen_address 1, _start",
    "xen_address 2, hypercall_page",
    "xen_address 3, image_base",
    "xen_address 4, image_base",
    "xen_text 5, \"xen-3.0\"",
    "xen_text 6, \"blkfront\"",
    "xen_text 7, \"0.1\"",
    "xen_text 8, \"generic\"",
    ".balign 4",
    ".popsection",
    ".pushsection .text.hypercall_page, \"ax\", @progbits",
    ".balign 4096",
    ".globl hypercall_page",
    "hypercall_page:",
    ".skip 4096, 0xCC",
    ".popsection",
    ".pushsection .text.start, \"ax\", @progbits",
    ".globl _start",
    "_start:",
    "cld",
    "mov esp, offset stack_top",
    "xor ebp, ebp",
    "mov rdi, rsi",
    "call {begin}",
    "ud2",
    ".popsection",
    begin = sym begin,
);

unsafe extern "C" {
    /// The linker script's.
    static image_base: u8;
    /// Above.
    static hypercall_page: u8;
}

/// Where Xen left `start_info`.
static INFO: AtomicPtr<u8> = AtomicPtr::new(ptr::null_mut());

/// The first function, on a stack of our own.
extern "sysv64" fn begin(info: *mut u8) -> ! {
    INFO.store(info, Ordering::Release);
    // SAFETY: the ELF notes above name the page, which the domain builder has filled.
    unsafe { bare::install(NonNull::from(&hypercall_page)) };
    crate::heap::set_up();
    crate::main()
}

/// What Xen handed over. `None`: it did not.
pub(crate) fn start() -> Option<Start> {
    let info = NonNull::new(INFO.load(Ordering::Acquire))?;
    // SAFETY: the builder left the address in RSI, and the notes name the base.
    unsafe { Start::new(info, ptr::from_ref(&image_base).addr()) }
}
