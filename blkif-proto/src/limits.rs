//! What two ends have agreed on: negotiation, and the limits a request is checked against.

use crate::{
    Abi, PAGE_SIZE, indirect,
    keys::{self, BackendDisk},
    segment_block,
};

/// How requests of more than 11 segments travel on a connection. Never two ways on one connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SegmentMode {
    /// Not at all: the original protocol.
    Direct,
    /// In further ring entries, see [`segment_block`].
    Blocks,
    /// In descriptor pages, see [`indirect`].
    Indirect,
}

impl SegmentMode {
    /// A word for logs and settings: `direct`, `blocks`, `indirect`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Blocks => "blocks",
            Self::Indirect => "indirect",
        }
    }
}

impl core::str::FromStr for SegmentMode {
    type Err = UnknownMode;

    fn from_str(word: &str) -> Result<Self, UnknownMode> {
        [Self::Direct, Self::Blocks, Self::Indirect]
            .into_iter()
            .find(|mode| mode.as_str() == word)
            .ok_or(UnknownMode)
    }
}

/// A word that names no [`SegmentMode`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not one of direct, blocks, indirect")]
pub struct UnknownMode;

/// The operations beyond read and write that a backend offers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Operations {
    /// `feature-flush-cache`.
    pub flush: bool,
    /// `feature-barrier`.
    pub barrier: bool,
    /// `feature-discard`, and how.
    pub discard: Option<Discard>,
}

/// How a backend discards.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Discard {
    /// `discard-granularity` in bytes; 0 when not told, which means the disk's sector size.
    pub granularity: u32,
    /// `discard-alignment`: offset of the first granule, in bytes.
    pub alignment: u32,
    /// `discard-secure`: the old contents become unreadable.
    pub secure: bool,
}

/// What a connection allows a request to be; both ends check against it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Layout of the ring entries.
    pub abi: Abi,
    /// How large requests travel.
    pub mode: SegmentMode,
    /// Segments of the largest request: at least 11, at most 255 in [`SegmentMode::Blocks`] (24 on `x86_32-abi`) or 4096 in
    /// [`SegmentMode::Indirect`]. In the latter a request that is not indirect still has at most 11.
    pub max_segments: u16,
    /// Segments of an indirect request; 0 where none is offered. Whatever the mode: a driver that knows nothing of segment
    /// blocks may find the keys of an earlier one in its directory, and be taken to use them.
    pub max_indirect: u16,
    /// Bytes of the largest request.
    pub max_request_bytes: u32,
    /// Requests that may be under way at once; never more than the ring holds.
    pub max_requests: u32,
    /// The disk's capacity in 512-byte units.
    pub sectors: u64,
    /// The disk's logical sector in bytes, a power of two of at least 512: requests begin and end on its multiples.
    pub sector_size: u32,
    /// Nothing that changes the disk is allowed.
    pub read_only: bool,
    /// What the backend offers beyond read and write.
    pub operations: Operations,
}

impl Limits {
    /// Segments that fit into a request's own entry, or with its blocks: the bound for requests that are not indirect.
    #[inline]
    pub const fn max_in_ring(&self) -> u16 {
        match self.mode {
            SegmentMode::Blocks => self.max_segments,
            SegmentMode::Direct | SegmentMode::Indirect => keys::ORIGINAL_SEGMENTS,
        }
    }

    /// Ring entries of the largest request.
    pub const fn max_entries(&self) -> u32 {
        segment_block::entries_for(self.max_in_ring() as usize)
    }
}

/// What one end is able to do, before it knows the other. Both ends' records turn into this.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity {
    /// Pages of each ring, a power of two in all dialects but that of 2010.
    pub ring_pages: u32,
    /// Rings.
    pub queues: u32,
    /// Grants may stay mapped.
    pub persistent: bool,
    /// Segments of a request with segment blocks (`max-request-segments`); 11 where the extension is not offered.
    pub block_segments: u16,
    /// Bytes of a request with segment blocks (`max-request-size`).
    pub request_bytes: u32,
    /// Requests under way where segment blocks are used (`max-requests`).
    pub requests: u32,
    /// Segments of an indirect request; 0 where there are none. A frontend does not announce it and counts as able to do
    /// [`indirect::MAX_SEGMENTS`].
    pub indirect_segments: u16,
}

impl Capacity {
    /// The protocol without any extension: one ring of one page, 32 requests of 11 segments.
    pub const ORIGINAL: Capacity = Capacity {
        ring_pages: 1,
        queues: 1,
        persistent: false,
        block_segments: keys::ORIGINAL_SEGMENTS,
        request_bytes: keys::ORIGINAL_REQUEST_BYTES,
        requests: keys::ORIGINAL_REQUESTS,
        indirect_segments: 0,
    };

    /// This end with these maxima of the segment-block extension, if there are any.
    pub(crate) fn with_maxima(mut self, maxima: Option<keys::RequestMaxima>) -> Capacity {
        if let Some(maxima) = maxima {
            self.block_segments = maxima.segments;
            self.request_bytes = maxima.bytes;
            self.requests = maxima.requests;
        }
        self
    }

    /// This end with one way of large requests only, for a setting that forces it: the others count as not offered.
    pub const fn only(mut self, mode: SegmentMode) -> Capacity {
        if !matches!(mode, SegmentMode::Blocks) {
            self.block_segments = keys::ORIGINAL_SEGMENTS;
        }
        if !matches!(mode, SegmentMode::Indirect) {
            self.indirect_segments = 0;
        }
        self
    }
}

/// The lesser of two ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Agreement {
    /// Layout of the ring entries.
    pub abi: Abi,
    /// Pages of each ring.
    pub ring_pages: u32,
    /// Rings.
    pub queues: u32,
    /// Grants stay mapped.
    pub persistent: bool,
    /// How large requests travel: blocks where both ends offer more than 11 segments, else indirect, else direct.
    pub mode: SegmentMode,
    /// Segments of the largest request.
    pub max_segments: u16,
    /// Bytes of the largest request.
    pub max_request_bytes: u32,
    /// Requests under way at once, per ring.
    pub max_requests: u32,
    /// Segments of an indirect request, whatever the mode.
    max_indirect: u16,
    reductions: [Option<Reduction>; REDUCIBLE],
}

const REDUCIBLE: usize = 7;

/// Something that one end could have done and the other cannot: for the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reduction {
    /// The backend's key for it.
    pub key: &'static str,
    /// What this end is able to do.
    pub offered: u32,
    /// What it makes do with.
    pub used: u32,
}

impl Agreement {
    /// What `own` must do without because of `peer`. The same function serves both ends.
    pub fn between(own: &Capacity, peer: &Capacity, abi: Abi) -> Agreement {
        let ring_pages = own.ring_pages.min(peer.ring_pages);
        let queues = own.queues.min(peer.queues);
        let persistent = own.persistent && peer.persistent;
        let entries = abi.ring_entries(ring_pages);

        let original = keys::ORIGINAL_SEGMENTS;
        let block_segments = own.block_segments.min(peer.block_segments).min(block_limit(abi)).max(original);
        let indirect_segments = own.indirect_segments.min(peer.indirect_segments).min(INDIRECT_LIMIT);
        let (mode, max_segments) = if block_segments > original {
            (SegmentMode::Blocks, block_segments)
        } else if indirect_segments > original {
            (SegmentMode::Indirect, indirect_segments)
        } else {
            (SegmentMode::Direct, original)
        };
        let all_pages = u32::from(max_segments) * PAGE_BYTES;
        let (max_request_bytes, max_requests) = match mode {
            SegmentMode::Blocks => (
                own.request_bytes.min(peer.request_bytes).min(all_pages),
                own.requests.min(peer.requests).min(entries),
            ),
            SegmentMode::Direct | SegmentMode::Indirect => (all_pages, entries),
        };

        let indirect_used = if mode == SegmentMode::Indirect { indirect_segments } else { 0 };
        let blocks = mode == SegmentMode::Blocks;
        let reduced = |matters: bool, key, offered: u32, used: u32| {
            (matters && used < offered).then_some(Reduction { key, offered, used })
        };
        let reductions = [
            reduced(true, keys::MAX_RING_PAGES, own.ring_pages, ring_pages),
            reduced(true, keys::MULTI_QUEUE_MAX_QUEUES, own.queues, queues),
            reduced(true, keys::FEATURE_PERSISTENT, own.persistent.into(), persistent.into()),
            reduced(true, keys::MAX_REQUEST_SEGMENTS, own.block_segments.into(), block_segments.into()),
            reduced(blocks, keys::MAX_REQUEST_SIZE, own.request_bytes, max_request_bytes),
            reduced(blocks, keys::MAX_REQUESTS, own.requests, max_requests),
            reduced(
                !blocks,
                keys::FEATURE_MAX_INDIRECT_SEGMENTS,
                own.indirect_segments.into(),
                indirect_used.into(),
            ),
        ];
        Agreement {
            abi,
            ring_pages,
            queues,
            persistent,
            mode,
            max_segments,
            max_request_bytes,
            max_requests,
            max_indirect: indirect_segments,
            reductions,
        }
    }

    /// Everything this end could have done and the other cannot, to be logged with both values.
    pub fn reductions(&self) -> impl Iterator<Item = Reduction> + '_ {
        self.reductions.iter().flatten().copied()
    }

    /// The limits of requests to `disk`.
    pub fn limits(&self, disk: &BackendDisk, operations: Operations) -> Limits {
        Limits {
            abi: self.abi,
            mode: self.mode,
            max_segments: self.max_segments,
            max_indirect: self.max_indirect,
            max_request_bytes: self.max_request_bytes,
            max_requests: self.max_requests,
            sectors: disk.sectors,
            sector_size: disk.sector_size,
            read_only: disk.info.contains(keys::DiskInfo::READ_ONLY),
            operations,
        }
    }
}

#[expect(clippy::cast_possible_truncation, reason = "4096")]
const PAGE_BYTES: u32 = PAGE_SIZE as u32;

#[expect(clippy::cast_possible_truncation, reason = "4096")]
const INDIRECT_LIMIT: u16 = indirect::MAX_SEGMENTS as u16;

const fn block_limit(abi: Abi) -> u16 {
    #[expect(clippy::cast_possible_truncation, reason = "at most 255")]
    let limit = segment_block::max_segments(abi) as u16;
    limit
}

#[cfg(test)]
mod tests;
