//! Pages that a device node gave out, mapped one after the other.
//!
//! Unsafe stands here because mapping memory is unsafe. What makes it sound: a [`Span`] owns its mapping from `mmap` to
//! `munmap`, keeps the node open meanwhile, and lets its memory be seen through [`SharedMem`] only.
#![expect(unsafe_code, reason = "memory mapped from device nodes; see the module documentation")]

use core::{num::NonZeroUsize, ptr::NonNull};
use std::{
    any::Any,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    sync::Arc,
};

use blkif_proto::GrantRef;
use nix::{
    errno::Errno,
    libc,
    sys::mman::{MapFlags, ProtFlags, mmap, munmap},
};

use super::uapi::{self, OnUnmap};
use crate::{Access, PAGE_SIZE, Pages, SharedMem};

/// How a node takes pages back.
pub(super) type Release = fn(BorrowedFd<'_>, u64, u32) -> Result<(), Errno>;

/// A mapping of pages of a node. On drop it is unmapped, and the node told.
#[derive(Debug)]
pub(super) struct Span {
    node: Arc<OwnedFd>,
    base: NonNull<u8>,
    count: u32,
    index: u64,
    release: Release,
}

// SAFETY: the mapping belongs to the process, not to a thread, and is accessed by atomics only.
unsafe impl Send for Span {}
// SAFETY: as above.
unsafe impl Sync for Span {}

impl Span {
    /// Maps the `count` pages that the node calls `index`; on an error they are given back.
    pub(super) fn map(
        node: &Arc<OwnedFd>,
        index: u64,
        count: usize,
        access: Access,
        release: Release,
    ) -> Result<Self, Errno> {
        let prot = match access {
            Access::Read => ProtFlags::PROT_READ,
            Access::ReadWrite => ProtFlags::PROT_READ | ProtFlags::PROT_WRITE,
        };
        let pages = u32::try_from(count).map_err(|_| Errno::E2BIG)?;
        let mapped = bytes(count).zip(libc::off_t::try_from(index).ok()).ok_or(Errno::EINVAL).and_then(
            // SAFETY: no address is asked for, so the kernel picks a range that nothing in this process uses.
            |(length, offset)| unsafe { mmap(None, length, prot, MapFlags::MAP_SHARED, &**node, offset) },
        );
        match mapped {
            Ok(base) => Ok(Self { node: Arc::clone(node), base: base.cast(), count: pages, index, release }),
            Err(errno) => {
                // There is no more to be done about pages that cannot be given back either.
                let _ = release(node.as_fd(), index, pages);
                Err(errno)
            }
        }
    }

    /// Number of pages.
    pub(super) fn count(&self) -> usize {
        self.count as usize
    }

    /// All bytes.
    pub(super) fn mem(&self) -> SharedMem<'_> {
        // SAFETY: `count` pages are mapped at `base`, page aligned, until `self` is dropped.
        unsafe { SharedMem::new(self.base, self.count() * PAGE_SIZE) }
    }

    /// Sets what happens when page `page` is unmapped, by us or by our end.
    pub(super) fn on_unmap(&self, page: u32, what: OnUnmap) -> Result<(), Errno> {
        let offset = u64::from(page.min(self.count.saturating_sub(1))) * PAGE_SIZE as u64;
        uapi::set_unmap_notify(self.node.as_fd(), self.index + offset, what)
    }

    /// First byte, for who keeps the span.
    pub(super) fn base(&self) -> NonNull<u8> {
        self.base
    }
}

impl Drop for Span {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours since `map`, and every borrow of it has ended. An error would mean that it was not mapped.
        let _ = unsafe { munmap(self.base.cast(), self.count() * PAGE_SIZE) };
        // Closing the node would do the same.
        let _ = (self.release)(self.node.as_fd(), self.index, self.count);
    }
}

/// The pages of a writable span as pages to own; the span lives as long as they do.
pub(super) fn into_pages(span: Span, grants: Box<[GrantRef]>) -> Option<Pages> {
    if grants.len() != span.count() {
        return None;
    }
    let (base, token) = (span.base, span.index);
    let keeper: Arc<dyn Any + Send + Sync> = Arc::new(span);
    // SAFETY: the span maps that many pages, page aligned, readable and writable (gntalloc's are made so), until the keeper is
    // dropped; nobody else has it.
    Some(unsafe { Pages::from_raw(base, grants, token, Some(keeper)) })
}

/// Pages mapped for a ring. Made by [`Mapper::map_ring`](crate::Mapper::map_ring).
#[derive(Debug)]
pub struct RingPages(pub(super) Span);

// SAFETY: the span is page aligned, mapped readable and writable at a fixed address until it is dropped, also when the value
// moves, and only seen through atomics.
unsafe impl ringbuf::RingPages for RingPages {
    fn base(&self) -> NonNull<u8> {
        self.0.base()
    }

    fn bytes(&self) -> usize {
        self.0.count() * PAGE_SIZE
    }
}

fn bytes(pages: usize) -> Option<NonZeroUsize> {
    NonZeroUsize::new(pages.checked_mul(PAGE_SIZE)?)
}
