//! The segment-block extension: a request that goes on in the ring entries after its own.
//!
//! ```text
//! entry i      | header | segments 0..10        |   an ordinary request whose nr_segments may be up to 255
//! entry i + 1  | segments 11..24                |   14 segments and nothing else
//! entry i + 2  | segments 25..38                |
//! ```
//!
//! Entries are masked one by one, so a request may wrap around the ring's end. One response, in the first of as many entries,
//! answers the whole. Introduced by FreeBSD in 2010, and in Xen's `io/blkif.h` for five days in 2012 (interface version
//! 0x00040201); both ends use it only when both have written more than 11 in `max-request-segments`.

use crate::Abi;

/// Segments that fit into a request's own entry (`BLKIF_MAX_SEGMENTS_PER_HEADER_BLOCK`).
pub const HEADER_SEGMENTS: usize = 11;

/// Segments that fit into each further entry (`BLKIF_MAX_SEGMENTS_PER_SEGMENT_BLOCK`).
pub const BLOCK_SEGMENTS: usize = 14;

/// The most segments a request can have: its `nr_segments` has eight bits (`BLKIF_MAX_SEGMENTS_PER_REQUEST`).
pub const MAX_SEGMENTS: usize = 255;

/// The most entries a request can occupy.
pub const MAX_ENTRIES: usize = entries_for(MAX_SEGMENTS) as usize;

/// Ring entries that a request of `segments` segments occupies (`BLKIF_SEGS_TO_BLOCKS`): 1 up to 11 segments, also for none.
pub const fn entries_for(segments: usize) -> u32 {
    let blocks = segments.saturating_sub(HEADER_SEGMENTS).div_ceil(BLOCK_SEGMENTS);
    if blocks >= u32::MAX as usize {
        return u32::MAX;
    }
    #[expect(clippy::cast_possible_truncation, reason = "compared with u32::MAX above")]
    let blocks = blocks as u32;
    blocks + 1
}

/// The most segments a request may have on `abi`. On `x86_32-abi` a block is four bytes longer than the entry it lies in, so
/// the sectors of its 14th segment would be overwritten by the next entry: 24 keeps that segment out of use.
pub const fn max_segments(abi: Abi) -> usize {
    match abi {
        Abi::X86_32 => HEADER_SEGMENTS + BLOCK_SEGMENTS - 1,
        Abi::X86_64 | Abi::Arm => MAX_SEGMENTS,
    }
}

/// Pages of the smallest ring, a power of two, that holds `requests` requests of `segments` segments each; `None` when no
/// ring of at most 2^31 entries does.
pub const fn ring_pages_for(requests: u32, segments: usize, abi: Abi) -> Option<u32> {
    let Some(entries) = requests.checked_mul(entries_for(segments)) else { return None };
    let mut pages = 1;
    while abi.ring_entries(pages) < entries {
        if pages >= 1 << 26 {
            return None;
        }
        pages *= 2;
    }
    Some(pages)
}

#[cfg(test)]
mod tests;
