//! Memory that a peer can see and change at any moment: pointer and length, never a Rust reference.
//!
//! Unsafe stands here because raw memory has to be touched somewhere. The two rules that make it sound: no `&[u8]` or `&mut
//! [u8]` ever points into shared memory, and every access is a relaxed atomic of a machine word (or of a byte at the ragged
//! ends), so that a peer's concurrent write is a race in the protocol but not undefined behaviour in Rust.
#![expect(unsafe_code, reason = "raw shared memory; see the module documentation")]

use alloc::{boxed::Box, sync::Arc};
use core::{
    any::Any,
    fmt,
    marker::PhantomData,
    ptr::NonNull,
    sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering},
};

use blkif_proto::GrantRef;

use crate::Access;

/// Bytes of a page on every Xen ABI that blkif knows, also where the kernel's own pages are larger.
pub const PAGE_SIZE: usize = 4096;

/// A range of shared memory, borrowed from whoever keeps it mapped.
#[derive(Clone, Copy)]
pub struct SharedMem<'a> {
    base: NonNull<u8>,
    len: usize,
    keeper: PhantomData<&'a AtomicU8>,
}

// SAFETY: the range is only ever accessed by atomics, which any thread may do, for as long as `'a` keeps it mapped.
unsafe impl Send for SharedMem<'_> {}
// SAFETY: as above; all accesses through `&self` are atomic.
unsafe impl Sync for SharedMem<'_> {}

impl fmt::Debug for SharedMem<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SharedMem({} bytes)", self.len)
    }
}

impl<'a> SharedMem<'a> {
    /// A range of `len` bytes at `base`.
    ///
    /// # Safety
    /// The range is mapped, 8-byte aligned and at least readable for all of `'a`, and nobody in this process makes a Rust
    /// reference to it other than to atomics.
    pub const unsafe fn new(base: NonNull<u8>, len: usize) -> Self {
        Self { base, len, keeper: PhantomData }
    }

    /// Length in bytes.
    pub const fn len(self) -> usize {
        self.len
    }

    /// True when the range has no bytes.
    pub const fn is_empty(self) -> bool {
        self.len == 0
    }

    /// First byte, for handing the range to the kernel. Using it needs an argument of its own that the range stays mapped.
    pub const fn as_ptr(self) -> *mut u8 {
        self.base.as_ptr()
    }

    /// The part of `len` bytes at `offset`, or `None` when it leaves the range.
    pub fn part(self, offset: usize, len: usize) -> Option<Self> {
        let end = offset.checked_add(len)?;
        if end > self.len {
            return None;
        }
        // SAFETY: offset <= self.len, so the pointer stays within (or one past) the same mapping.
        Some(Self { base: unsafe { self.base.add(offset) }, len, keeper: PhantomData })
    }

    /// The 16-bit word at byte `at`, which both ends of a protocol change as one; `None` when it leaves the range or is not
    /// aligned.
    pub fn word16(self, at: usize) -> Option<&'a AtomicU16> {
        // SAFETY: `aligned` says that the word lies in the range, mapped for `'a`, and is aligned; atomics may refer to it.
        self.aligned(at).map(|word| unsafe { AtomicU16::from_ptr(word) })
    }

    /// The 32-bit word at byte `at`; as [`word16`](Self::word16).
    pub fn word32(self, at: usize) -> Option<&'a AtomicU32> {
        // SAFETY: as in `word16`.
        self.aligned(at).map(|word| unsafe { AtomicU32::from_ptr(word) })
    }

    /// The 64-bit word at byte `at`; as [`word16`](Self::word16).
    pub fn word64(self, at: usize) -> Option<&'a AtomicU64> {
        // SAFETY: as in `word16`.
        self.aligned(at).map(|word| unsafe { AtomicU64::from_ptr(word) })
    }

    fn aligned<T>(self, at: usize) -> Option<*mut T> {
        let word = self.part(at, size_of::<T>())?.as_ptr().cast::<T>();
        word.is_aligned().then_some(word)
    }

    /// Copies the range out; the shorter of both lengths is copied and its number of bytes returned.
    pub fn read(self, out: &mut [u8]) -> usize {
        let n = self.len.min(out.len());
        let (head, words) = self.ragged(n);
        for (i, byte) in out[..head].iter_mut().enumerate() {
            *byte = self.byte(i).load(Ordering::Relaxed);
        }
        let mut at = head;
        for chunk in out[head..head + words * 8].chunks_exact_mut(8) {
            chunk.copy_from_slice(&self.word(at).load(Ordering::Relaxed).to_ne_bytes());
            at += 8;
        }
        for (i, byte) in out[at..n].iter_mut().enumerate() {
            *byte = self.byte(at + i).load(Ordering::Relaxed);
        }
        n
    }

    /// Copies into the range; the shorter of both lengths is copied and its number of bytes returned. The range must have been
    /// lent or mapped writable: writing to a read-only mapping is a fault of the processor, as on Xen.
    pub fn write(self, from: &[u8]) -> usize {
        let n = self.len.min(from.len());
        let (head, words) = self.ragged(n);
        for (i, byte) in from[..head].iter().enumerate() {
            self.byte(i).store(*byte, Ordering::Relaxed);
        }
        let mut at = head;
        for chunk in from[head..head + words * 8].chunks_exact(8) {
            let mut word = [0; 8];
            word.copy_from_slice(chunk);
            self.word(at).store(u64::from_ne_bytes(word), Ordering::Relaxed);
            at += 8;
        }
        for (i, byte) in from[at..n].iter().enumerate() {
            self.byte(at + i).store(*byte, Ordering::Relaxed);
        }
        n
    }

    /// Zeroes the range.
    pub fn zero(self) {
        let (head, words) = self.ragged(self.len);
        let tail = head + words * 8;
        (0..head).chain(tail..self.len).for_each(|i| self.byte(i).store(0, Ordering::Relaxed));
        (0..words).for_each(|i| self.word(head + i * 8).store(0, Ordering::Relaxed));
    }

    /// How `n` bytes divide: bytes before the first aligned word, and whole words after them.
    fn ragged(self, n: usize) -> (usize, usize) {
        let head = self.base.as_ptr().align_offset(8).min(n);
        (head, (n - head) / 8)
    }

    fn byte(&self, at: usize) -> &AtomicU8 {
        debug_assert!(at < self.len);
        // SAFETY: callers keep `at` below `self.len`, so the byte is mapped for `'a`; it is only accessed atomically.
        unsafe { AtomicU8::from_ptr(self.base.as_ptr().add(at)) }
    }

    fn word(&self, at: usize) -> &AtomicU64 {
        debug_assert!(at + 8 <= self.len);
        // SAFETY: callers keep `at + 8` within `self.len` and start at an aligned address (`ragged`), so the word is mapped
        // for `'a` and aligned; it is only accessed atomically.
        unsafe { AtomicU64::from_ptr(self.base.as_ptr().add(at).cast()) }
    }
}

/// Pages of this guest, owned by whoever holds this value, contiguous in its virtual memory, possibly lent to a peer.
///
/// Made by [`Lender::alloc`](crate::Lender::alloc) and given back by [`Lender::release`](crate::Lender::release); a value that
/// is dropped instead leaks its pages until the world ends, which is safe and never happens in the drivers.
pub struct Pages {
    base: NonNull<u8>,
    count: usize,
    grants: Box<[GrantRef]>,
    lent: Option<Access>,
    token: u64,
    _keeper: Option<Arc<dyn Any + Send + Sync>>,
}

// SAFETY: owned pages, accessed through `SharedMem`'s atomics only.
unsafe impl Send for Pages {}
// SAFETY: as above.
unsafe impl Sync for Pages {}

impl fmt::Debug for Pages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pages({} pages, lent {:?})", self.count, self.lent)
    }
}

impl Pages {
    /// For worlds: wraps `grants.len()` contiguous pages at `base`. `token` is the world's own name for them; `keeper` is
    /// dropped with the value.
    ///
    /// # Safety
    /// The pages are mapped readable and writable, page aligned, and stay so for as long as `keeper` lives (`None`: for ever);
    /// nobody else in this process uses them until the value comes back to the world that made it.
    pub unsafe fn from_raw(
        base: NonNull<u8>,
        grants: Box<[GrantRef]>,
        token: u64,
        keeper: Option<Arc<dyn Any + Send + Sync>>,
    ) -> Self {
        Self { base, count: grants.len(), grants, lent: None, token, _keeper: keeper }
    }

    /// The world's own name for these pages.
    pub fn token(&self) -> u64 {
        self.token
    }

    /// Number of pages.
    pub fn count(&self) -> usize {
        self.count
    }

    /// All bytes of the pages.
    pub fn mem(&self) -> SharedMem<'_> {
        // SAFETY: `from_raw`'s contract: `count` pages are mapped at `base` while this value lives.
        unsafe { SharedMem::new(self.base, self.count * PAGE_SIZE) }
    }

    /// How the pages are lent, if they are.
    pub fn lent(&self) -> Option<Access> {
        self.lent
    }

    /// The grant reference of each page, in order; empty when nothing is lent.
    pub fn grants(&self) -> &[GrantRef] {
        if self.lent.is_some() { &self.grants } else { &[] }
    }

    /// For worlds: the room for the references, to be filled before [`set_lent`](Self::set_lent).
    pub fn grants_mut(&mut self) -> &mut [GrantRef] {
        &mut self.grants
    }

    /// For worlds: records how the pages are lent now.
    pub fn set_lent(&mut self, lent: Option<Access>) {
        self.lent = lent;
    }
}

// SAFETY: `from_raw`'s contract keeps the pages mapped and writable at a fixed address while the value lives, also when it
// is moved.
unsafe impl ringbuf::RingPages for Pages {
    fn base(&self) -> NonNull<u8> {
        self.base
    }

    fn bytes(&self) -> usize {
        self.count * PAGE_SIZE
    }
}

#[cfg(test)]
pub(crate) mod tests;
