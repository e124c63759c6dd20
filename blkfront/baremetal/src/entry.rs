//! The ways in: what the image tells Xen's domain builder, and the first instructions as a PV and as a PVH guest.
//!
//! Unsafe stands here because this is where a processor with some addresses in its registers becomes a Rust program. What makes
//! it sound is Xen's part of the bargain (public headers `elfnote.h`, `xen.h` and `arch-x86/hvm/start_info.h`): it loads the
//! image as linked and zeroes what is not in the file. To a PV guest it also gives page tables and a filled hypercall page, and
//! enters with RSI pointing to `start_info`; a PVH guest it enters without paging, in 32-bit mode with flat segments, with EBX
//! pointing to `hvm_start_info`.
#![expect(unsafe_code, reason = "the first instructions; see the module documentation")]

use core::{
    arch::global_asm,
    ptr::{self, NonNull},
    sync::atomic::{AtomicBool, AtomicPtr, Ordering},
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
    "xen_address 18, _start_pvh",
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
    begin = sym begin_pv,
);

// PVH: all memory below 4 GiB where it is, in pages of 2 MiB, but for the first 4 MiB, where the null pointer is and the stack
// must not grow; then the vector registers that compiled code uses, and 64-bit mode.
global_asm!(
    ".pushsection .bss.page_tables, \"aw\", @nobits",
    ".balign 4096",
    "page_map_level_4: .skip 4096",
    "page_directory_pointers: .skip 4096",
    "page_directories: .skip 4 * 4096",
    ".popsection",
    ".pushsection .rodata.segments, \"a\", @progbits",
    ".balign 8",
    "segments: .quad 0, 0x00AF9A000000FFFF, 0x00CF92000000FFFF",
    "segments_pointer: .word 23",
    ".long segments",
    ".popsection",
    ".pushsection .text.start, \"ax\", @progbits",
    ".code32",
    ".globl _start_pvh",
    "_start_pvh:",
    "cld",
    "mov esp, offset stack_top",
    "mov eax, offset page_directory_pointers + 3",
    "mov dword ptr [page_map_level_4], eax",
    "mov eax, offset page_directories + 3",
    "mov edi, offset page_directory_pointers",
    "mov ecx, 4",
    "2:",
    "mov dword ptr [edi], eax",
    "add eax, 4096",
    "add edi, 8",
    "dec ecx",
    "jnz 2b",
    "mov eax, 0x400083",
    "mov edi, offset page_directories + 16",
    "mov ecx, 2046",
    "3:",
    "mov dword ptr [edi], eax",
    "add eax, 0x200000",
    "add edi, 8",
    "dec ecx",
    "jnz 3b",
    // Physical address extension, and that the vector registers are known of.
    "mov eax, cr4",
    "or eax, 0x620",
    "mov cr4, eax",
    "mov eax, offset page_map_level_4",
    "mov cr3, eax",
    // Long mode, as soon as there is paging.
    "mov ecx, 0xC0000080",
    "rdmsr",
    "or eax, 0x100",
    "wrmsr",
    "mov eax, cr0",
    "and eax, 0xFFFFFFFB",
    "or eax, 0x80000002",
    "mov cr0, eax",
    "lgdt [segments_pointer]",
    "push 8",
    "mov eax, offset long_mode",
    "push eax",
    "retf",
    ".code64",
    "long_mode:",
    "mov eax, 16",
    "mov ds, eax",
    "mov es, eax",
    "mov ss, eax",
    "mov esp, offset stack_top",
    "xor ebp, ebp",
    "mov edi, ebx",
    "call {begin}",
    "ud2",
    ".popsection",
    begin = sym begin_pvh,
);

unsafe extern "C" {
    /// The linker script's.
    static image_base: u8;
    /// Above.
    static hypercall_page: u8;
}

/// Where Xen left `start_info`, or `hvm_start_info`.
static INFO: AtomicPtr<u8> = AtomicPtr::new(ptr::null_mut());
/// Which of them.
static PVH: AtomicBool = AtomicBool::new(false);

/// The first function of a PV guest, on a stack of our own.
extern "sysv64" fn begin_pv(info: *mut u8) -> ! {
    INFO.store(info, Ordering::Release);
    // SAFETY: the ELF notes above name the page, which the domain builder has filled.
    unsafe { bare::install(NonNull::from(&hypercall_page)) };
    crate::heap::set_up();
    crate::main()
}

/// The first function of a PVH guest, on a stack of our own.
extern "sysv64" fn begin_pvh(info: *mut u8) -> ! {
    INFO.store(info, Ordering::Release);
    PVH.store(true, Ordering::Release);
    // SAFETY: a page of its own, mapped where it is, that nobody has called into yet.
    unsafe { bare::enable_hypercalls(NonNull::from(&hypercall_page)) };
    bare::crash_on_triple_fault();
    crate::heap::set_up();
    crate::main()
}

/// What Xen handed over. `None`: it did not.
pub(crate) fn start() -> Option<Start> {
    let info = NonNull::new(INFO.load(Ordering::Acquire))?;
    if PVH.load(Ordering::Acquire) {
        // SAFETY: Xen left the address in EBX, and the page tables above map memory as they should.
        return unsafe { Start::pvh(info) };
    }
    // SAFETY: the builder left the address in RSI, and the notes name the base.
    unsafe { Start::pv(info, ptr::from_ref(&image_base).addr()) }
}
