//! What the application asks for; the backend may offer less.

use core::time::Duration;

use blkif_proto::{Abi, Capacity, SegmentMode, indirect, keys::RingDialect, segment_block};

/// How requests larger than 11 segments (44 KiB) are to be carried.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SegmentChoice {
    /// Segment blocks where both ends offer them, else indirect descriptors, else neither.
    #[default]
    Auto,
    /// Never more than 11 segments.
    Direct,
    /// Segment blocks (the FreeBSD extension) or nothing.
    Blocks,
    /// Indirect descriptors or nothing.
    Indirect,
}

/// Wishes for a connection. Each is an upper limit; [`Negotiated`](crate::Negotiated) tells what became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Number of queues, at least 1.
    pub queues: u32,
    /// Ring pages of each queue; rounded down to a power of two, 1 to 32.
    pub ring_pages: u32,
    /// In which words several ring pages are announced; `None`: in the backend's own.
    pub dialect: Option<RingDialect>,
    /// Keep pages lent between requests when the backend offers it. Never done for a backend the toolstack does not trust
    /// (`trusted` = 0).
    pub persistent: bool,
    /// How large requests are carried.
    pub segments: SegmentChoice,
    /// Most 4096-byte segments of one ring request.
    pub max_segments: u32,
    /// Layout of the ring entries; anything but the native one is for tests.
    pub abi: Abi,
    /// How long each step of connecting or closing may take before it fails, and how long a backend may leave
    /// [`Queue::execute`](crate::Queue::execute) without any answer.
    pub timeout: Duration,
}

impl Default for Config {
    /// One queue, one page of ring, persistent grants, large requests of up to 256 segments (1 MiB), 30 seconds.
    fn default() -> Self {
        Self {
            queues: 1,
            ring_pages: 1,
            dialect: None,
            persistent: true,
            segments: SegmentChoice::Auto,
            max_segments: 256,
            abi: Abi::NATIVE,
            timeout: Duration::from_secs(30),
        }
    }
}

impl Config {
    /// These wishes as one side of a negotiation.
    pub(crate) fn capacity(&self, trusted: bool) -> Capacity {
        let ring_pages = 1 << self.ring_pages.clamp(1, 32).ilog2();
        let within = |limit: usize| {
            let segments = usize::try_from(self.max_segments).unwrap_or(usize::MAX);
            u16::try_from(segments.min(limit)).unwrap_or(u16::MAX)
        };
        let block_segments = within(segment_block::max_segments(self.abi));
        let all = Capacity {
            ring_pages,
            queues: self.queues.max(1),
            // A backend that is not trusted gets each page for as long as it needs it.
            persistent: self.persistent && trusted,
            block_segments,
            request_bytes: u32::from(block_segments) * crate::split::PAGE,
            requests: self.abi.ring_entries(ring_pages),
            indirect_segments: within(indirect::MAX_SEGMENTS),
        };
        match self.segments {
            SegmentChoice::Auto => all,
            SegmentChoice::Direct => all.only(SegmentMode::Direct),
            SegmentChoice::Blocks => all.only(SegmentMode::Blocks),
            SegmentChoice::Indirect => all.only(SegmentMode::Indirect),
        }
    }
}
