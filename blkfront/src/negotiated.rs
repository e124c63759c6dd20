//! What both ends agreed on for one connection.

use alloc::vec::Vec;
use core::fmt;

use blkif_proto::{Abi, Agreement, Capacity, SegmentMode, keys};

/// The parameters of a connection. Its `Display` is one line for a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Negotiated {
    /// Layout of the ring entries.
    pub abi: Abi,
    /// Number of queues.
    pub queues: u32,
    /// Pages of each queue's ring.
    pub ring_pages: u32,
    /// Entries of each queue's ring.
    pub ring_entries: u32,
    /// How large requests are carried.
    pub segments: SegmentMode,
    /// Most segments of one request.
    pub max_segments: u32,
    /// Most bytes of one request.
    pub max_request_bytes: u32,
    /// Most requests in flight on one queue.
    pub max_requests: u32,
    /// Pages stay lent between requests.
    pub persistent: bool,
    /// Every wish that the other side's offer cut down.
    pub reductions: Vec<Reduction>,
}

/// One wish that was cut down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reduction {
    /// The XenStore key that sets the limit.
    pub key: &'static str,
    /// What the configuration asked for.
    pub wanted: u32,
    /// What the backend offers.
    pub offered: u32,
    /// What is used: the lesser, as far as the protocol can express it.
    pub used: u32,
}

impl fmt::Display for Reduction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: wanted {}, offered {}, using {}", self.key, self.wanted, self.offered, self.used)
    }
}

impl fmt::Display for Negotiated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}, {} queue(s) of {} ring page(s) ({} entries), {} requests of up to {} segments ({} KiB), {} grants",
            self.abi.as_protocol(),
            self.queues,
            self.ring_pages,
            self.ring_entries,
            self.segments.as_str(),
            self.max_segments,
            self.max_request_bytes / 1024,
            if self.persistent { "persistent" } else { "per-request" },
        )
    }
}

impl Negotiated {
    /// An agreement that `own` came to with `peer`, told to people.
    pub(crate) fn new(agreement: &Agreement, own: &Capacity, peer: &Capacity) -> Self {
        let offered = |key| match key {
            keys::MAX_RING_PAGES => peer.ring_pages,
            keys::MULTI_QUEUE_MAX_QUEUES => peer.queues,
            keys::FEATURE_PERSISTENT => peer.persistent.into(),
            keys::MAX_REQUEST_SEGMENTS => peer.block_segments.into(),
            keys::MAX_REQUEST_SIZE => peer.request_bytes,
            keys::MAX_REQUESTS => peer.requests,
            _ => peer.indirect_segments.into(),
        };
        let told = |cut: blkif_proto::Reduction| Reduction {
            key: cut.key,
            wanted: cut.offered,
            offered: offered(cut.key),
            used: cut.used,
        };
        let unused = |key: &str| match agreement.mode {
            // The other way of large requests is no loss.
            SegmentMode::Blocks => key == keys::FEATURE_MAX_INDIRECT_SEGMENTS,
            SegmentMode::Indirect => key == keys::MAX_REQUEST_SEGMENTS,
            SegmentMode::Direct => {
                own.block_segments <= keys::ORIGINAL_SEGMENTS && key == keys::MAX_REQUEST_SEGMENTS
            }
        };
        Self {
            abi: agreement.abi,
            queues: agreement.queues,
            ring_pages: agreement.ring_pages,
            ring_entries: agreement.abi.ring_entries(agreement.ring_pages),
            segments: agreement.mode,
            max_segments: agreement.max_segments.into(),
            max_request_bytes: agreement.max_request_bytes,
            max_requests: agreement.max_requests,
            persistent: agreement.persistent,
            reductions: agreement.reductions().filter(|cut| !unused(cut.key)).map(told).collect(),
        }
    }
}
