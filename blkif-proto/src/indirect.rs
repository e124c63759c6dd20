//! Descriptor pages: segments of a large request in pages of their own, which the request names by grant reference.
//!
//! A descriptor page is an array of 512 segments, the same on every ABI. Copied one after the other, the pages of a request
//! are one array, which is how the functions here take them.

use zerocopy::{FromBytes, IntoBytes};

use crate::{
    PAGE_SIZE, Segments,
    wire::{IndirectBody, WireSegment},
};

/// Segments of one descriptor page.
pub const PER_PAGE: usize = PAGE_SIZE / size_of::<WireSegment>();

/// Descriptor pages that one request can name (`BLKIF_MAX_INDIRECT_PAGES_PER_REQUEST`).
pub const MAX_PAGES: usize = 8;

/// The most segments an indirect request can have: 16 MiB of data.
pub const MAX_SEGMENTS: usize = PER_PAGE * MAX_PAGES;

const _: () = assert!(size_of::<IndirectBody>() == 88 && MAX_SEGMENTS == 4096);

/// Descriptor pages for `segments` segments.
pub const fn pages_for(segments: usize) -> usize {
    segments.div_ceil(PER_PAGE)
}

/// Bytes of the descriptors of `segments` segments.
pub const fn bytes_for(segments: usize) -> usize {
    segments * size_of::<WireSegment>()
}

/// Writes the descriptors of `segments` to the beginning of `pages`, private bytes to be copied to the pages one after the
/// other, and returns how many bytes it wrote; `None`, and nothing written, when `pages` is too short.
pub fn encode(segments: Segments<'_>, pages: &mut [u8]) -> Option<usize> {
    let bytes = bytes_for(segments.len());
    let descriptors = <[WireSegment]>::mut_from_bytes(pages.get_mut(..bytes)?).ok()?;
    for (descriptor, segment) in descriptors.iter_mut().zip(segments) {
        *descriptor = segment.into();
    }
    Some(descriptors.as_bytes().len())
}

/// The first `segments` descriptors of copied pages, unchecked; `None` when `pages` is too short.
/// [`Indirect::with_descriptors`](crate::Indirect::with_descriptors) is the gate that checks them.
pub fn decode(pages: &[u8], segments: usize) -> Option<Segments<'_>> {
    let descriptors = <[WireSegment]>::ref_from_bytes(pages.get(..bytes_for(segments))?).ok()?;
    Some(Segments::in_pages(descriptors))
}

#[cfg(test)]
mod tests;
