//! What both ends agreed on, for reports.

use alloc::{string::String, vec::Vec};

use blkfront::Negotiated;
use blkif_proto::SegmentMode;
use serde::Serialize;

/// The parameters of a connection, with the units their names tell.
#[derive(Clone, Debug, Serialize)]
#[expect(missing_docs, reason = "those of `Negotiated`")]
pub struct Connection {
    pub abi: String,
    pub queues: u32,
    pub ring_pages: u32,
    pub ring_entries: u32,
    pub segments: String,
    pub max_segments: u32,
    pub max_request_bytes: u32,
    pub max_requests: u32,
    pub persistent: bool,
    pub reductions: Vec<Reduction>,
}

/// A wish that was cut down.
#[derive(Clone, Debug, Serialize)]
#[expect(missing_docs, reason = "those of `blkfront::Reduction`")]
pub struct Reduction {
    pub key: String,
    pub wanted: u32,
    pub offered: u32,
    pub used: u32,
}

impl From<&Negotiated> for Connection {
    fn from(negotiated: &Negotiated) -> Self {
        Self {
            abi: negotiated.abi.as_protocol().into(),
            queues: negotiated.queues,
            ring_pages: negotiated.ring_pages,
            ring_entries: negotiated.ring_entries,
            segments: match negotiated.segments {
                SegmentMode::Direct => "direct".into(),
                SegmentMode::Blocks => "segment blocks".into(),
                SegmentMode::Indirect => "indirect".into(),
            },
            max_segments: negotiated.max_segments,
            max_request_bytes: negotiated.max_request_bytes,
            max_requests: negotiated.max_requests,
            persistent: negotiated.persistent,
            reductions: negotiated
                .reductions
                .iter()
                .map(|r| Reduction { key: r.key.into(), wanted: r.wanted, offered: r.offered, used: r.used })
                .collect(),
        }
    }
}
