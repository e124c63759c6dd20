//! What the configuration says of a disk.

use std::time::Duration;

use blkif_proto::SegmentMode;
use serde::Deserialize;

use super::Strategy;
use crate::{limit::Rates, storage::nbd::Patience};

/// How an image is opened. Absent: as the toolstack says, or the default.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct DiskConfig {
    /// What to serve instead of what `params` names: a path, or `null:SIZE`.
    pub image: Option<String>,
    /// Refuse writes whatever the toolstack's mode says.
    pub read_only: Option<bool>,
    /// Bypass the page cache.
    pub direct_io: Option<bool>,
    /// Logical sector size in bytes, a power of two from 512 to 4096.
    pub sector_size: Option<u32>,
    /// Several guests may write to the image at a time: for file systems made for that.
    pub shared: Option<bool>,
    /// Seconds that an NBD server may take to answer a request, at least 1; then the connection is given up. Absent: 30.
    pub timeout_s: Option<u64>,
    /// Seconds that requests wait for an NBD server that is away; then they fail, and all others until it is back. Absent: 60.
    pub reconnect_s: Option<u64>,
    /// Milliseconds that an NBD server has to finish what it got over a connection that was lost, before it gets it again. Absent: 1000.
    pub settle_ms: Option<u64>,
    /// How data moves.
    pub strategy: Option<Strategy>,
    /// Ways of large requests to offer, if not both: for comparisons.
    pub segments: Option<Segments>,
    /// What it may do in a second.
    pub limit: Option<Rates>,
    /// The group with which it shares limits.
    pub group: Option<String>,
}

/// A way of large requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Segments {
    /// None: 11 segments.
    Direct,
    /// In ring entries.
    Blocks,
    /// In descriptor pages.
    Indirect,
}

impl From<Segments> for SegmentMode {
    fn from(segments: Segments) -> Self {
        match segments {
            Segments::Direct => SegmentMode::Direct,
            Segments::Blocks => SegmentMode::Blocks,
            Segments::Indirect => SegmentMode::Indirect,
        }
    }
}

impl DiskConfig {
    /// How long an NBD server is waited for.
    pub fn patience(&self) -> Patience {
        let usual = Patience::default();
        Patience {
            timeout: self.timeout_s.map_or(usual.timeout, Duration::from_secs),
            reconnect: self.reconnect_s.map_or(usual.reconnect, Duration::from_secs),
            settle: self.settle_ms.map_or(usual.settle, Duration::from_millis),
        }
    }

    /// What this says, or else what the other does.
    pub(super) fn or(&self, other: &DiskConfig) -> DiskConfig {
        DiskConfig {
            image: self.image.clone().or_else(|| other.image.clone()),
            read_only: self.read_only.or(other.read_only),
            direct_io: self.direct_io.or(other.direct_io),
            sector_size: self.sector_size.or(other.sector_size),
            shared: self.shared.or(other.shared),
            timeout_s: self.timeout_s.or(other.timeout_s),
            reconnect_s: self.reconnect_s.or(other.reconnect_s),
            settle_ms: self.settle_ms.or(other.settle_ms),
            strategy: self.strategy.or(other.strategy),
            segments: self.segments.or(other.segments),
            limit: self.limit.or(other.limit),
            group: self.group.clone().or_else(|| other.group.clone()),
        }
    }
}
