//! What both ends agreed on for one connection.

use alloc::vec::Vec;
use core::fmt;

use crate::proto::Abi;

/// How requests larger than 11 segments are carried on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SegmentMode {
    /// They are not: 11 segments are the most.
    Direct,
    /// In segment blocks, ring entries after the request's own.
    Blocks,
    /// In descriptor pages of their own (`BLKIF_OP_INDIRECT`).
    Indirect,
}

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

impl fmt::Display for SegmentMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Direct => "direct",
            Self::Blocks => "segment-block",
            Self::Indirect => "indirect",
        })
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
            self.segments,
            self.max_segments,
            self.max_request_bytes / 1024,
            if self.persistent { "persistent" } else { "per-request" },
        )
    }
}
