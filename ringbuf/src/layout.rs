//! How a ring lies in its pages.

use crate::{Index, LayoutError};

/// Number and size of a ring's slots.
///
/// The slots follow a header of [`Layout::HEADER`] bytes; their number is the largest power of two that fits
/// (Xen's `io/ring.h`, `__RING_SIZE`). Slots may straddle page boundaries, so the pages must be contiguous.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    /// Slots minus one: a mask for indices.
    mask: u32,
    /// Bytes of a slot, a multiple of 4.
    entry_size: u32,
}

impl Layout {
    /// Bytes before the first slot: the four indices, then zeros.
    pub const HEADER: usize = 64;
    /// Bytes of a page: Xen grants 4 KiB pages, whatever the guest's own page size.
    pub const PAGE: usize = 4096;
    /// The largest ring, in pages (FreeBSD's backend; others stop at 16).
    pub const MAX_PAGES: usize = 32;

    /// The ring that `pages` pages hold with entries of `entry_size` bytes.
    ///
    /// # Errors
    /// `pages` is not 1 to [`Layout::MAX_PAGES`], or `entry_size` is not a positive multiple of 4 of which one page
    /// holds one.
    pub const fn new(pages: usize, entry_size: usize) -> Result<Self, LayoutError> {
        let bytes = pages.saturating_mul(Self::PAGE);
        if pages == 0
            || pages > Self::MAX_PAGES
            || entry_size == 0
            || !entry_size.is_multiple_of(4)
            || entry_size > Self::PAGE - Self::HEADER
        {
            return Err(LayoutError { bytes, entry_size });
        }
        let raw = (bytes - Self::HEADER) / entry_size;
        Ok(Self::exact(1 << raw.ilog2(), entry_size))
    }

    /// Number of slots, a power of two.
    #[inline]
    #[must_use]
    pub const fn entries(self) -> u32 {
        self.mask + 1
    }

    /// Bytes of a slot.
    #[inline]
    #[must_use]
    pub const fn entry_size(self) -> usize {
        self.entry_size as usize
    }

    /// The slot that `index` falls in, from 0, always less than [`Layout::entries`].
    #[inline]
    #[must_use]
    pub const fn slot(self, index: Index) -> u32 {
        index.masked(self.mask)
    }

    /// Bytes from the start of the pages to the slot that `index` falls in; the slot lies within the pages for every
    /// index.
    #[inline]
    #[must_use]
    pub const fn offset(self, index: Index) -> usize {
        Self::HEADER + self.slot(index) as usize * self.entry_size()
    }

    /// The ring with exactly these numbers, which the caller has checked.
    #[expect(clippy::cast_possible_truncation, reason = "both are less than 32 pages of 4096 bytes")]
    const fn exact(entries: usize, entry_size: usize) -> Self {
        Self { mask: entries as u32 - 1, entry_size: entry_size as u32 }
    }

    /// A ring of `entries` slots, whatever pages it would take: a model checker needs the tiniest.
    #[cfg(any(test, loom))]
    #[must_use]
    pub const fn tiny(entries: usize, entry_size: usize) -> Self {
        assert!(entries.is_power_of_two() && entries <= 1024, "a small power of two");
        assert!(entry_size.is_multiple_of(4) && 0 < entry_size && entry_size <= 4032, "whole words");
        Self::exact(entries, entry_size)
    }
}

#[cfg(test)]
mod tests;
