//! The memory under both simulated worlds: memfds and the views that processes map of them.
//!
//! Unsafe stands here because mapping memory is unsafe, and because a descriptor that came in a message is a bare number.
//! What makes it sound: a [`View`] owns its mapping from `mmap` to `munmap`; a memfd is sealed at its size, so no access
//! inside a view can miss the file; and views are only ever looked at through [`SharedMem`] or through slices of atomics.
#![expect(unsafe_code, reason = "memory mapped from memfds; see the module documentation")]

use core::{
    num::NonZeroUsize,
    ptr::NonNull,
    sync::atomic::{AtomicU32, AtomicU64},
};
use std::{
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::Arc,
};

use blkif_proto::GrantRef;
use nix::{
    errno::Errno,
    fcntl::{FallocateFlags, FcntlArg, SealFlag, fallocate, fcntl},
    libc,
    sys::{
        memfd::{MFdFlags, memfd_create},
        mman::{MapFlags, ProtFlags, mmap, mmap_anonymous, munmap},
    },
    unistd::ftruncate,
};

use super::Mapping;
use crate::{PAGE_SIZE, Pages, SharedMem};

/// The next larger size of pages that processors know, in bytes.
const SUPERPAGE: usize = 2 << 20;

/// A new file of `bytes` zeroes that lives in memory, takes no memory until touched, and never changes its size.
pub(crate) fn memfd(name: &str, bytes: u64) -> Result<OwnedFd, Errno> {
    let fd = memfd_create(name, MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING)?;
    ftruncate(&fd, i64::try_from(bytes).map_err(|_| Errno::EFBIG)?)?;
    let seals = SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SEAL;
    fcntl(&fd, FcntlArg::F_ADD_SEALS(seals))?;
    Ok(fd)
}

/// Zeroes a range of whole pages of a memfd and gives its memory back to the system.
pub(crate) fn discard(fd: BorrowedFd<'_>, offset: u64, bytes: u64) -> Result<(), Errno> {
    let range = |n: u64| i64::try_from(n).map_err(|_| Errno::EFBIG);
    let flags = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
    fallocate(fd, flags, range(offset)?, range(bytes)?)
}

/// Descriptors that came beside a message become ours.
#[cfg(feature = "sim")]
pub(crate) fn adopt(message: nix::sys::socket::ControlMessageOwned) -> Vec<OwnedFd> {
    let nix::sys::socket::ControlMessageOwned::ScmRights(fds) = message else { return Vec::new() };
    // SAFETY: the kernel has just made these descriptors for this message, which we consume: nobody else knows them.
    fds.into_iter().map(|fd| unsafe { std::os::fd::FromRawFd::from_raw_fd(fd) }).collect()
}

/// What a view may be used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protection {
    Read,
    ReadWrite,
}

/// A range of addresses that nothing else in the process uses; unmapped on drop, with whatever was put into it.
#[derive(Debug)]
struct Room {
    start: NonNull<u8>,
    bytes: usize,
}

impl Room {
    fn new(bytes: usize) -> Result<Self, Errno> {
        let length = NonZeroUsize::new(bytes).ok_or(Errno::EINVAL)?;
        // SAFETY: no address is asked for, so the kernel picks a range that nothing in this process uses.
        let start = unsafe { mmap_anonymous(None, length, ProtFlags::PROT_NONE, MapFlags::MAP_PRIVATE)? };
        Ok(Self { start: start.cast(), bytes })
    }

    /// Maps `bytes` bytes of a memfd from byte `from` on (both multiples of the page size) at byte `at` of the room.
    fn put(
        &self,
        at: usize,
        bytes: usize,
        protection: Protection,
        fd: BorrowedFd<'_>,
        from: u64,
    ) -> Result<(), Errno> {
        let inside = at.checked_add(bytes).is_some_and(|end| end <= self.bytes);
        let length = NonZeroUsize::new(bytes).filter(|_| inside).ok_or(Errno::EINVAL)?;
        let address = self.start.addr().checked_add(at);
        let prot = match protection {
            Protection::Read => ProtFlags::PROT_READ,
            Protection::ReadWrite => ProtFlags::PROT_READ | ProtFlags::PROT_WRITE,
        };
        let from = i64::try_from(from).map_err(|_| Errno::EFBIG)?;
        // SAFETY: the range lies inside the room, so only our own placeholder is replaced.
        unsafe { mmap(address, length, prot, MapFlags::MAP_SHARED | MapFlags::MAP_FIXED, fd, from)? };
        Ok(())
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        // SAFETY: the range is ours since `new`, and every borrow of what is mapped there has ended. An error would mean that
        // it was not mapped; nothing could be done about it.
        let _ = unsafe { munmap(self.start.cast(), self.bytes) };
    }
}

/// A mapping of a memfd; unmapped on drop.
#[derive(Debug)]
pub(crate) struct View {
    base: NonNull<u8>,
    bytes: usize,
    protection: Protection,
    _room: Room,
}

// SAFETY: the mapping belongs to the process, not to a thread, and is accessed by atomics only.
unsafe impl Send for View {}
// SAFETY: as above.
unsafe impl Sync for View {}

impl View {
    /// Maps the first `bytes` bytes of a memfd, at an address that suits superpages.
    pub(crate) fn new(fd: impl AsFd, bytes: usize, protection: Protection) -> Result<Self, Errno> {
        let room = Room::new(bytes.checked_add(SUPERPAGE).ok_or(Errno::EINVAL)?)?;
        let before = room.start.align_offset(SUPERPAGE);
        room.put(before, bytes, protection, fd.as_fd(), 0)?;
        let base = NonNull::new(room.start.as_ptr().wrapping_add(before)).ok_or(Errno::EINVAL)?;
        Ok(Self { base, bytes, protection, _room: room })
    }

    /// Maps pages of a memfd (`frames`, each below the file's size in pages) one after the other, writable.
    pub(crate) fn gather(fd: impl AsFd, frames: &[u32]) -> Result<Self, Errno> {
        let bytes = frames.len().checked_mul(PAGE_SIZE).ok_or(Errno::EINVAL)?;
        let room = Room::new(bytes)?;
        for (index, frame) in frames.iter().enumerate() {
            let from = u64::from(*frame) * PAGE_SIZE as u64;
            room.put(index * PAGE_SIZE, PAGE_SIZE, Protection::ReadWrite, fd.as_fd(), from)?;
        }
        Ok(Self { base: room.start, bytes, protection: Protection::ReadWrite, _room: room })
    }

    /// Backs the superpages that hold `bytes` bytes from byte `offset` on by superpages, as Xen does a guest's memory: where the
    /// kernel has none to give (or is older than Linux 6.1), everything stays as it is, only slower.
    pub(crate) fn back_by_superpages(&self, offset: usize, bytes: usize) {
        let first = offset - offset % SUPERPAGE;
        let Some(end) = offset.checked_add(bytes).map(|end| end.next_multiple_of(SUPERPAGE)) else { return };
        let Some(range) = self.mem().part(first, end - first) else { return };
        // SAFETY: the range lies inside the mapping, and the advice changes neither contents nor addresses.
        let _ = unsafe { libc::madvise(range.as_ptr().cast(), range.len(), libc::MADV_COLLAPSE) };
    }

    /// All of it.
    pub(crate) fn mem(&self) -> SharedMem<'_> {
        // SAFETY: `bytes` bytes are mapped at `base`, page aligned, until `self` is dropped; the module makes references to
        // atomics only.
        unsafe { SharedMem::new(self.base, self.bytes) }
    }

    /// The page `index`, or `None` past the end.
    pub(crate) fn page(&self, index: u32) -> Option<SharedMem<'_>> {
        self.mem().part((index as usize).checked_mul(PAGE_SIZE)?, PAGE_SIZE)
    }

    /// `count` words at byte `offset` (a multiple of 4); empty where that leaves the view or the view is read-only.
    pub(crate) fn words32(&self, offset: usize, count: usize) -> &[AtomicU32] {
        if !self.holds(offset, count, size_of::<AtomicU32>()) {
            return &[];
        }
        // SAFETY: `holds` checked that the words are aligned and inside this writable mapping, which lives as long as the
        // borrow of `self`; all zero bytes are valid atomics.
        unsafe { core::slice::from_raw_parts(self.base.as_ptr().add(offset).cast(), count) }
    }

    /// `count` words at byte `offset` (a multiple of 8); empty where that leaves the view or the view is read-only.
    pub(crate) fn words64(&self, offset: usize, count: usize) -> &[AtomicU64] {
        if !self.holds(offset, count, size_of::<AtomicU64>()) {
            return &[];
        }
        // SAFETY: as in `words32`.
        unsafe { core::slice::from_raw_parts(self.base.as_ptr().add(offset).cast(), count) }
    }

    fn holds(&self, offset: usize, count: usize, size: usize) -> bool {
        let end = count.checked_mul(size).and_then(|bytes| bytes.checked_add(offset));
        self.protection == Protection::ReadWrite
            && offset.is_multiple_of(size)
            && end.is_some_and(|end| end <= self.bytes)
    }
}

/// `count` pages of `memory` (a writable view) from page `first` on, as pages to own; `None` where they leave the view. The
/// caller, who allocates the pages, hands out none of them twice.
pub(crate) fn pages(memory: Arc<View>, first: u32, count: usize) -> Option<Pages> {
    let mem = memory.mem().part(first as usize * PAGE_SIZE, count.checked_mul(PAGE_SIZE)?)?;
    let base = NonNull::new(mem.as_ptr()).filter(|_| memory.protection == Protection::ReadWrite)?;
    let grants = vec![GrantRef(0); count].into_boxed_slice();
    // SAFETY: `part` checked that the pages lie inside the view, which is writable, and which the value keeps alive.
    Some(unsafe { Pages::from_raw(base, grants, u64::from(first), Some(memory)) })
}

/// Granted pages mapped one after the other. Made by [`Mapper::map_ring`](crate::Mapper::map_ring).
#[derive(Debug)]
pub struct RingPages {
    // Dropped in this order: the memory is unmapped before the counts say so.
    view: View,
    _held: Mapping,
}

impl RingPages {
    /// `view` shows the pages that `held` holds.
    pub(crate) fn new(view: View, held: Mapping) -> Self {
        Self { view, _held: held }
    }
}

// SAFETY: the view, which comes from `View::gather`, is page aligned, mapped readable and writable at a fixed address until it
// is dropped, and only seen through atomics.
unsafe impl ringbuf::RingPages for RingPages {
    fn base(&self) -> NonNull<u8> {
        self.view.base
    }

    fn bytes(&self) -> usize {
        self.view.bytes
    }
}

#[cfg(test)]
mod tests;
