//! Segments, and all arithmetic between sectors, bytes and page frames.
//!
//! Units (Xen public header `io/blkif.h` since 2024): every sector number and count in the protocol is in units of 512 bytes,
//! whatever the disk's `sector-size` says; a page is always 4096 bytes, also on ARM guests with larger pages.

use core::{fmt, slice};

use zerocopy::transmute_ref;

use crate::{
    GrantRef, RequestError,
    segment_block::BLOCK_SEGMENTS,
    wire::{BlockEntry, Entry, SegmentBody, WireSegment},
};

/// Bytes of the protocol's sector.
pub const SECTOR_SIZE: usize = 512;

/// Bytes of a granted page, on every ABI.
pub const PAGE_SIZE: usize = 4096;

/// Sectors of a granted page.
pub const PAGE_SECTORS: u32 = 8;

/// The sector after `sectors` sectors from `sector`, `None` when that leaves 64 bits.
pub const fn span_end(sector: u64, sectors: u64) -> Option<u64> {
    sector.checked_add(sectors)
}

/// True when all of `sectors` sectors from `sector` lie on a disk of `capacity` sectors; an empty span may begin at its end.
pub const fn span_fits(sector: u64, sectors: u64, capacity: u64) -> bool {
    match span_end(sector, sectors) {
        Some(end) => end <= capacity,
        None => false,
    }
}

/// Bytes of `sectors` sectors, or the byte offset of that sector; `None` when that leaves 64 bits.
pub const fn sector_bytes(sectors: u64) -> Option<u64> {
    sectors.checked_mul(SECTOR_SIZE as u64)
}

/// A run of sectors within one granted page.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Segment {
    /// The page.
    pub gref: GrantRef,
    /// First sector of the page that belongs to the run, 0 to 7.
    pub first_sect: u8,
    /// Last sector that belongs to the run, `first_sect` to 7.
    pub last_sect: u8,
}

impl Segment {
    /// The largest sector number within a page.
    pub const LAST_SECT: u8 = 7;

    /// All of a page.
    pub const fn page(gref: GrantRef) -> Segment {
        Segment { gref, first_sect: 0, last_sect: Self::LAST_SECT }
    }

    /// `sectors` sectors of a page from its sector `first`; `None` when they are none or leave the page.
    pub const fn part(gref: GrantRef, first: u8, sectors: u8) -> Option<Segment> {
        if sectors == 0 || first > Self::LAST_SECT || sectors > Self::LAST_SECT + 1 - first {
            return None;
        }
        Some(Segment { gref, first_sect: first, last_sect: first + sectors - 1 })
    }

    /// True when the run is not empty and stays in its page.
    pub const fn is_valid(self) -> bool {
        self.first_sect <= self.last_sect && self.last_sect <= Self::LAST_SECT
    }

    /// Names what is wrong with segment number `index`. `within` has the bits that a number of sectors must not have, for
    /// whole sectors of the disk: its sector size in 512-byte units, less one.
    #[inline]
    pub(crate) fn check(self, index: u16, within: u64) -> Result<(), RequestError> {
        let Segment { first_sect: first, last_sect: last, .. } = self;
        if first > last {
            return Err(RequestError::SegmentReversed { index, first, last });
        }
        if last > Self::LAST_SECT {
            return Err(RequestError::SegmentBeyondPage { index, last });
        }
        let sectors = last - first + 1;
        if u64::from(sectors) & within != 0 {
            return Err(RequestError::SegmentUnaligned { index, sectors });
        }
        Ok(())
    }

    /// Number of sectors, 1 to 8 when valid; 0 when the run ends before it begins.
    pub const fn sectors(self) -> u32 {
        (self.last_sect as u32 + 1).saturating_sub(self.first_sect as u32)
    }

    /// Length in bytes, 512 to 4096 when valid.
    pub const fn bytes(self) -> usize {
        self.sectors() as usize * SECTOR_SIZE
    }

    /// Where the run begins, in bytes from the start of its page.
    pub const fn offset(self) -> usize {
        self.first_sect as usize * SECTOR_SIZE
    }
}

impl From<&WireSegment> for Segment {
    #[inline]
    fn from(wire: &WireSegment) -> Self {
        Self { gref: GrantRef(wire.gref.get()), first_sect: wire.first_sect, last_sect: wire.last_sect }
    }
}

impl From<Segment> for WireSegment {
    #[inline]
    fn from(segment: Segment) -> Self {
        Self {
            gref: segment.gref.0.into(),
            first_sect: segment.first_sect,
            last_sect: segment.last_sect,
            pad: 0.into(),
        }
    }
}

/// The segments of one request, in order, where they are: a caller's list, or private copies of ring entries or descriptor
/// pages. Nothing is copied until it is looked at; those of a parsed request have been checked.
#[derive(Clone, Copy)]
pub struct Segments<'a> {
    source: Source<'a>,
    len: usize,
}

#[derive(Clone, Copy)]
enum Source<'a> {
    Listed(&'a [Segment]),
    Wire { head: &'a [WireSegment], blocks: &'a [Entry] },
}

impl<'a> Segments<'a> {
    /// No segments.
    pub const NONE: Segments<'static> = Segments { source: Source::Listed(&[]), len: 0 };

    /// Number of segments.
    pub const fn len(&self) -> usize {
        self.len
    }

    /// True when there are none.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The segments in order.
    #[inline]
    pub fn iter(&self) -> SegmentIter<'a> {
        match self.source {
            Source::Listed(list) => SegmentIter { left: self.len, cursor: Cursor::Listed(list.iter()) },
            Source::Wire { head, blocks } => SegmentIter {
                left: self.len,
                cursor: Cursor::Wire { run: head.iter(), blocks: blocks.iter() },
            },
        }
    }

    /// Sum of all segments' sectors.
    pub fn sectors(&self) -> u64 {
        self.iter().map(|segment| u64::from(segment.sectors())).sum()
    }

    /// The first `len` segments of a request's body and the blocks after it; fewer when the entries hold fewer.
    #[inline]
    pub(crate) fn in_entries(body: &'a SegmentBody, blocks: &'a [Entry], len: usize) -> Self {
        let head = body.get(..len).unwrap_or(body);
        Self {
            source: Source::Wire { head, blocks },
            len: len.min(head.len() + blocks.len() * BLOCK_SEGMENTS),
        }
    }

    /// Segments from copied descriptor pages.
    #[inline]
    pub(crate) fn in_pages(descriptors: &'a [WireSegment]) -> Self {
        Self { source: Source::Wire { head: descriptors, blocks: &[] }, len: descriptors.len() }
    }
}

impl<'a> From<&'a [Segment]> for Segments<'a> {
    fn from(list: &'a [Segment]) -> Self {
        Self { source: Source::Listed(list), len: list.len() }
    }
}

impl<'a> IntoIterator for Segments<'a> {
    type Item = Segment;
    type IntoIter = SegmentIter<'a>;

    #[inline]
    fn into_iter(self) -> SegmentIter<'a> {
        self.iter()
    }
}

impl PartialEq for Segments<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for Segments<'_> {}

impl fmt::Debug for Segments<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

/// Iterator over [`Segments`].
#[derive(Clone, Debug)]
pub struct SegmentIter<'a> {
    left: usize,
    cursor: Cursor<'a>,
}

#[derive(Clone, Debug)]
enum Cursor<'a> {
    Listed(slice::Iter<'a, Segment>),
    Wire { run: slice::Iter<'a, WireSegment>, blocks: slice::Iter<'a, Entry> },
}

impl Iterator for SegmentIter<'_> {
    type Item = Segment;

    #[inline]
    fn next(&mut self) -> Option<Segment> {
        self.left = self.left.checked_sub(1)?;
        match &mut self.cursor {
            Cursor::Listed(list) => list.next().copied(),
            Cursor::Wire { run, blocks } => {
                if let Some(wire) = run.next() {
                    return Some(wire.into());
                }
                let block: &BlockEntry = transmute_ref!(blocks.next()?);
                *run = block.iter();
                run.next().map(Segment::from)
            }
        }
    }

    #[inline]
    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl ExactSizeIterator for SegmentIter<'_> {}

#[cfg(test)]
mod tests;
