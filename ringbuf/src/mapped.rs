//! A ring in shared pages: the only file of this crate with unsafe code.
//!
//! The peer may write any byte at any time, so no plain access ever touches the pages: every read and write is a
//! relaxed atomic access to a whole word. Racing with them is defined and gives, at worst, words the peer chose. (Order
//! is the ring's business: `sync`.)
//!
//! Slots are copied by machine words where the entry size is a multiple of one (112 bytes on 64-bit machines), else by
//! 4-byte words (108); one ring never mixes the two.
#![expect(unsafe_code, reason = "shared pages are raw memory; everything above is safe")]

use crate::{Field, Index, Layout, LayoutError, RingMem};
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU32, AtomicUsize, Ordering::Relaxed};

/// Contiguous shared pages that hold a ring, and whatever keeps them mapped.
///
/// # Safety
/// For the life of the value, also when it is moved, `base()` and `bytes()` stay the same, `bytes()` bytes at `base()`
/// are mapped readable and writable, page aligned, and no Rust reference other than to atomics points into them.
pub unsafe trait RingPages {
    /// First byte, page aligned.
    fn base(&self) -> NonNull<u8>;
    /// Length in bytes, a multiple of 4096.
    fn bytes(&self) -> usize;
}

/// A ring over shared pages, which it owns and so keeps mapped.
#[derive(Debug)]
pub struct Mapped<G> {
    pages: G,
    layout: Layout,
}

impl<G: RingPages> Mapped<G> {
    /// The ring of `entry_size`-byte entries that fills `pages`.
    ///
    /// # Errors
    /// As [`Layout::new`]. The pages are dropped.
    pub fn new(pages: G, entry_size: usize) -> Result<Self, LayoutError> {
        let layout = Layout::new(pages.bytes() / Layout::PAGE, entry_size)?;
        Ok(Self { pages, layout })
    }

    /// The pages.
    pub fn pages(&self) -> &G {
        &self.pages
    }

    /// Ends the mapping's use as a ring and gives the pages back.
    pub fn into_pages(self) -> G {
        self.pages
    }

    #[inline]
    fn index(&self, field: Field) -> &AtomicU32 {
        // SAFETY: A field's offset is 0, 4, 8 or 12, so its four bytes lie in the first page and are aligned.
        // `RingPages` keeps that page mapped as long as `self.pages` lives, hence longer than the borrow of `self`, and
        // lets nothing but atomics refer to it.
        unsafe { AtomicU32::from_ptr(self.pages.base().as_ptr().add(field as usize).cast()) }
    }

    /// The first `bytes` bytes of the slot that `index` falls in, rounded up to words `W` of `N` bytes. Empty if slots
    /// are not made of whole such words.
    #[inline]
    fn words<const N: usize, W: Word<N>>(&self, index: Index, bytes: usize) -> &[W] {
        const { assert!(size_of::<W>() == N && align_of::<W>() == N && Layout::HEADER.is_multiple_of(N)) }
        let entry_size = self.layout.entry_size();
        if !entry_size.is_multiple_of(N) {
            return &[];
        }
        let words = bytes.min(entry_size).div_ceil(N);
        // SAFETY: `Layout::offset` puts a slot of `entry_size` bytes inside the pages for every index. `N` divides
        // `entry_size`, so `words` words lie inside the slot, and it divides the offset (header + slot * `entry_size`),
        // so they are aligned. `RingPages` keeps the pages mapped as long as `self.pages` lives, hence longer than the
        // borrow of `self`, and lets nothing but atomics refer to them, which every `Word` is.
        unsafe {
            let slot = self.pages.base().as_ptr().add(self.layout.offset(index));
            core::slice::from_raw_parts(slot.cast(), words)
        }
    }

    /// Whether slots are copied by machine words.
    #[inline]
    fn wide(&self) -> bool {
        self.layout.entry_size().is_multiple_of(size_of::<usize>())
    }
}

impl<G: RingPages> RingMem for Mapped<G> {
    #[inline]
    fn layout(&self) -> Layout {
        self.layout
    }

    #[inline]
    fn load(&self, field: Field) -> Index {
        Index::new(self.index(field).load(Relaxed))
    }

    #[inline]
    fn store(&self, field: Field, value: Index) {
        self.index(field).store(value.get(), Relaxed);
    }

    #[inline]
    fn read_slot(&self, index: Index, out: &mut [u8]) {
        if self.wide() {
            copy_out(self.words::<_, AtomicUsize>(index, out.len()), out);
        } else {
            copy_out(self.words::<_, AtomicU32>(index, out.len()), out);
        }
    }

    #[inline]
    fn write_slot(&self, index: Index, bytes: &[u8]) {
        if self.wide() {
            copy_in(self.words::<_, AtomicUsize>(index, bytes.len()), bytes);
        } else {
            copy_in(self.words::<_, AtomicU32>(index, bytes.len()), bytes);
        }
    }

    fn clear(&self) {
        // SAFETY: `RingPages` keeps `bytes()` bytes, a multiple of 4096, mapped at `base()`, page aligned, as long as
        // `self.pages` lives, hence longer than the borrow of `self`, and lets nothing but atomics refer to them.
        let words: &[AtomicUsize] = unsafe {
            let words = self.pages.bytes() / size_of::<usize>();
            core::slice::from_raw_parts(self.pages.base().as_ptr().cast(), words)
        };
        for word in words {
            word.store(0, Relaxed);
        }
    }
}

/// An atomic of `N` bytes by which slots are copied.
trait Word<const N: usize> {
    fn load(&self) -> [u8; N];
    fn store(&self, bytes: [u8; N]);
}

impl Word<4> for AtomicU32 {
    #[inline]
    fn load(&self) -> [u8; 4] {
        self.load(Relaxed).to_ne_bytes()
    }

    #[inline]
    fn store(&self, bytes: [u8; 4]) {
        self.store(u32::from_ne_bytes(bytes), Relaxed);
    }
}

impl Word<{ size_of::<usize>() }> for AtomicUsize {
    #[inline]
    fn load(&self) -> [u8; size_of::<usize>()] {
        self.load(Relaxed).to_ne_bytes()
    }

    #[inline]
    fn store(&self, bytes: [u8; size_of::<usize>()]) {
        self.store(usize::from_ne_bytes(bytes), Relaxed);
    }
}

#[inline]
fn copy_out<const N: usize, W: Word<N>>(words: &[W], out: &mut [u8]) {
    let (whole, rest) = out.as_chunks_mut::<N>();
    if let Some(word) = words.get(whole.len()) {
        rest.copy_from_slice(&word.load()[..rest.len()]);
    }
    for (bytes, word) in whole.iter_mut().zip(words) {
        *bytes = word.load();
    }
}

#[inline]
fn copy_in<const N: usize, W: Word<N>>(words: &[W], bytes: &[u8]) {
    let (whole, rest) = bytes.as_chunks::<N>();
    if let Some(word) = words.get(whole.len()) {
        let mut last = [0; N];
        last[..rest.len()].copy_from_slice(rest);
        word.store(last);
    }
    for (bytes, word) in whole.iter().zip(words) {
        word.store(*bytes);
    }
}

#[cfg(test)]
mod tests;
