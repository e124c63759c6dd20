//! What the application asks for; the backend may offer less.

use core::time::Duration;

use crate::proto::Abi;

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

/// In which words several ring pages are announced; they differ between the makers of backends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RingKeys {
    /// `ring-page-order` where the backend offers an order, else `num-ring-pages`; `ring-pages` for backends of 2010.
    #[default]
    Auto,
    /// `ring-page-order` and `ring-ref0` onwards (Citrix; Linux, QEMU, Windows).
    Order,
    /// `num-ring-pages` and `ring-ref0` onwards (Red Hat, Amazon).
    Number,
    /// `ring-pages`, `ring-ref` and `ring-ref1` onwards (FreeBSD 2010).
    Pages2010,
}

/// Wishes for a connection. Each is an upper limit; [`Negotiated`](crate::Negotiated) tells what became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Number of queues, at least 1.
    pub queues: u32,
    /// Ring pages of each queue; rounded down to a power of two, 1 to 32.
    pub ring_pages: u32,
    /// How ring pages are announced.
    pub ring_keys: RingKeys,
    /// Keep pages lent between requests when the backend offers it. Never done for a backend the toolstack does not trust
    /// (`trusted` = 0).
    pub persistent: bool,
    /// How large requests are carried.
    pub segments: SegmentChoice,
    /// Most 4096-byte segments of one ring request.
    pub max_segments: u32,
    /// Layout of the ring entries; anything but the native one is for tests.
    pub abi: Abi,
    /// How long each step of connecting or closing may take before it fails.
    pub timeout: Duration,
}

impl Default for Config {
    /// One queue, one page of ring, persistent grants, large requests of up to 256 segments (1 MiB), 30 seconds.
    fn default() -> Self {
        Self {
            queues: 1,
            ring_pages: 1,
            ring_keys: RingKeys::Auto,
            persistent: true,
            segments: SegmentChoice::Auto,
            max_segments: 256,
            abi: Abi::NATIVE,
            timeout: Duration::from_secs(30),
        }
    }
}
