//! Memory for what is allocated: a fixed part of the image. More is never had, and who wants more ends the guest.
//!
//! Unsafe stands here because an allocator is given bare memory.
#![expect(unsafe_code, reason = "the allocator's memory; see the module documentation")]

use core::cell::UnsafeCell;

use linked_list_allocator::LockedHeap;

/// The budget, in bytes: the rings' tables, one buffer list for each queue, XenStore's messages. What is lent is not in it.
const BYTES: usize = 1 << 20;

#[global_allocator]
static HEAP: LockedHeap = LockedHeap::empty();

#[repr(C, align(4096))]
struct Memory(UnsafeCell<[u8; BYTES]>);

// SAFETY: nobody but the allocator has access to it.
unsafe impl Sync for Memory {}

static MEMORY: Memory = Memory(UnsafeCell::new([0; BYTES]));

/// Gives the allocator its memory. Once, before anything is allocated.
pub(crate) fn set_up() {
    let mut heap = HEAP.lock();
    if heap.size() == 0 {
        // SAFETY: these bytes are there for ever and have no other user.
        unsafe { heap.init(MEMORY.0.get().cast(), BYTES) };
    }
}
