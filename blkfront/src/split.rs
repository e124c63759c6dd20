//! Cuts the data of one I/O into ring requests. Pure arithmetic on byte offsets within a buffer.
//!
//! A request carries whole or partial pages of 4096 bytes, one segment each, and only the first and the last may be partial.
//! So cuts lie on page boundaries of the buffer, and the pieces are balanced: 12 pages with at most 11 a request go as 6 + 6,
//! not as 11 + 1.

#[expect(clippy::cast_possible_truncation, reason = "4096")]
/// Bytes of a page, in the units of this crate's offsets.
pub(crate) const PAGE: u32 = xen_platform::PAGE_SIZE as u32;

/// How the data of one I/O is cut. Made once per I/O; the pieces then follow from the cursor alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Split {
    /// One past the last byte of the data.
    end: u32,
    /// Pages that a piece touches, at least 1.
    pages: u32,
}

impl Split {
    /// The cuts of `len` bytes at `offset`, with at most `max_pages` (at least 1) pages a piece.
    #[inline]
    pub(crate) fn new(offset: u32, len: u32, max_pages: u32) -> Self {
        let total = pages_of(offset, len);
        let pages = if total <= max_pages {
            total.max(1)
        } else {
            let pieces = total.div_ceil(max_pages.max(1));
            total.div_ceil(pieces)
        };
        Self { end: offset.saturating_add(len), pages }
    }

    /// Length in bytes of the piece that begins at `cursor`; 0 at the end.
    #[inline]
    pub(crate) fn piece(self, cursor: u32) -> u32 {
        let page = u64::from(cursor / PAGE);
        let cut = (page + u64::from(self.pages)) * u64::from(PAGE);
        let stop = u64::from(self.end).min(cut);
        #[expect(clippy::cast_possible_truncation, reason = "at most `end`, which is a u32")]
        let stop = stop as u32;
        stop.saturating_sub(cursor)
    }

    /// One past the last byte of the data.
    #[inline]
    pub(crate) fn end(self) -> u32 {
        self.end
    }
}

/// Pages that `len` bytes at `offset` touch.
#[inline]
pub(crate) fn pages_of(offset: u32, len: u32) -> u32 {
    if len == 0 {
        return 0;
    }
    let last = u64::from(offset) + u64::from(len) - 1;
    #[expect(clippy::cast_possible_truncation, reason = "2^33 / 4096 fits")]
    let last = (last / u64::from(PAGE)) as u32;
    last - offset / PAGE + 1
}

#[cfg(test)]
mod tests;
