//! The shared ring of Xen's split drivers.
#![cfg_attr(not(test), no_std)]

use core::ptr::NonNull;

/// Contiguous shared pages that hold a ring, and whatever keeps them mapped.
///
/// # Safety
/// For the life of the value, also when it is moved, `bytes()` bytes at `base()` are mapped readable and writable, page aligned, and
/// no Rust reference other than to atomics points into them.
#[expect(unsafe_code, reason = "the contract that `mapped` rests on")]
pub unsafe trait RingPages {
    /// First byte, page aligned.
    fn base(&self) -> NonNull<u8>;
    /// Length in bytes, a multiple of 4096.
    fn bytes(&self) -> usize;
}
