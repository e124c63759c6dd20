//! The start of a PVH guest: `hvm_start_info`, and parameters that are asked for. Addresses are the guest's own frames: the
//! image maps all memory below 4 GiB where it is.
//!
//! Unsafe stands here because all of that comes as bare addresses. What makes it sound: who calls [`Start::pvh`] vouches for
//! the first and for the mapping; the others are places that Xen keeps for what they are for, and are looked at through
//! [`SharedMem`] only.
#![expect(unsafe_code, reason = "addresses that Xen hands over; see the module documentation")]

use core::{ptr::NonNull, sync::atomic::Ordering};

use super::{Daemon, PortSource, Start, abi, hypercall, start_info, word};
use crate::{PAGE_SIZE, SharedMem};

/// Bytes up to which the image maps memory.
const MAPPED: u64 = 1 << 32;

impl Start {
    /// Looks at what register EBX pointed to at the entry. `None`: that is no PVH guest's `hvm_start_info`. Needs hypercalls
    /// ([`enable_hypercalls`](crate::bare::enable_hypercalls)).
    ///
    /// # Safety
    /// `info` is that address. All memory of the guest below 4 GiB is mapped where it is, writable, but for what the image
    /// leaves out of it, and nobody makes references to those pages.
    pub unsafe fn pvh(info: NonNull<u8>) -> Option<Self> {
        // SAFETY: the caller's; Xen leaves it where it is.
        let info = unsafe { SharedMem::new(info, abi::hvm_start_info::BYTES) };
        let magic = info.word32(abi::hvm_start_info::MAGIC)?.load(Ordering::Relaxed);
        if magic != abi::hvm_start_info::MAGIC_VALUE {
            return None;
        }
        let line = word(info, abi::hvm_start_info::COMMAND_LINE)?;
        Some(Self {
            memory: super::Memory::Pvh,
            // SAFETY: the caller's; Xen puts the line into the guest's memory. Bytes behind its end may be anybody's.
            line: unsafe { bytes(line, start_info::COMMAND_LINE_BYTES) }?,
            console: daemon(abi::HVM_PARAM_CONSOLE_PFN, abi::HVM_PARAM_CONSOLE_EVTCHN),
            store: daemon(abi::HVM_PARAM_STORE_PFN, abi::HVM_PARAM_STORE_EVTCHN),
        })
    }
}

fn daemon(frame: u32, port: u32) -> Option<Daemon> {
    let frame = hypercall::parameter(frame).ok()?;
    // SAFETY: Xen keeps the page for this; a `Start` is only made where that is mapped.
    let page = unsafe { bytes(frame.checked_mul(PAGE_SIZE as u64)?, PAGE_SIZE) }?;
    Some(Daemon { page, port: PortSource::Parameter(port) })
}

/// `len` bytes of memory at `address`. `None`: there is nothing.
///
/// # Safety
/// What is mapped there is for us to look at.
unsafe fn bytes(address: u64, len: usize) -> Option<SharedMem<'static>> {
    let end = address.checked_add(len as u64)?;
    if cfg!(not(test)) && end > MAPPED {
        return None;
    }
    // From a word's begin on, which every range of shared memory needs.
    let before = usize::try_from(address % 8).ok()?;
    let base = NonNull::new(usize::try_from(address - address % 8).ok()? as *mut u8)?;
    // SAFETY: the caller's.
    unsafe { SharedMem::new(base, before + len) }.part(before, len)
}

#[cfg(test)]
pub(in crate::bare) mod tests;
