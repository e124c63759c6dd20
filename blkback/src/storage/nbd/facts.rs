//! What a server says of an export, and what it makes of a disk.

use crate::storage::{DiscardLimits, Geometry, ImageOptions};

/// The most bytes that a command moves where the server has not said (the protocol's advice), and wherever it would have more.
const PAYLOAD_MAX: u64 = 32 << 20;
/// The largest sector that a guest can be told of, in bytes.
const SECTOR_MAX: u64 = 4096;

/// What a server says of an export when a client connects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Facts {
    /// Size in bytes.
    pub(super) bytes: u64,
    /// Bytes of the smallest block that can be read or written; 0: it has not said.
    pub(super) least: u64,
    /// Bytes of a block that suits it; 0: it has not said.
    pub(super) best: u64,
    /// Bytes that a command may move; 0: it has not said.
    pub(super) most: u64,
    /// Writes are refused.
    pub(super) read_only: bool,
    /// It can make what was written durable.
    pub(super) flush: bool,
    /// It can be told what is not needed any more.
    pub(super) trim: bool,
}

impl Facts {
    /// The disk that it makes. Errors, for people: it makes none.
    pub(super) fn geometry(&self, options: &ImageOptions) -> Result<Geometry, String> {
        if self.least > SECTOR_MAX {
            return Err(format!(
                "the server reads and writes blocks of {} bytes only; {SECTOR_MAX} is the most",
                self.least
            ));
        }
        let sector_size =
            u32::try_from(self.least.next_power_of_two()).unwrap_or(512).max(options.sector_size);
        if self.most != 0 && self.most < u64::from(sector_size) {
            return Err(format!("the server moves {} bytes at a time, less than a sector", self.most));
        }
        let best = u32::try_from(self.best.min(SECTOR_MAX)).unwrap_or(0).next_power_of_two().max(sector_size);
        let read_only = options.read_only || self.read_only;
        let discard = (options.discard && !read_only && self.trim).then(|| DiscardLimits {
            granularity: u32::try_from(self.best)
                .unwrap_or(0)
                .checked_next_power_of_two()
                .unwrap_or(0)
                .max(sector_size),
            alignment: 0,
            secure: false,
        });
        Ok(Geometry {
            sector_size,
            physical_sector_size: best,
            read_only,
            discard,
            direct_io: false,
            flush: self.flush,
        })
    }

    /// Bytes that a command moves at most, in whole sectors.
    pub(super) fn payload(&self, geometry: &Geometry) -> usize {
        let sector = u64::from(geometry.sector_size);
        let most = if self.most == 0 { PAYLOAD_MAX } else { self.most.min(PAYLOAD_MAX) };
        usize::try_from((most - most % sector).max(sector)).unwrap_or(usize::MAX)
    }

    /// Why what a server says when it is connected to again does not go with what the guest was told of the disk, and with the size `bytes`
    /// that it has had: it serves something else, or would lose data. A disk that has grown is all right.
    pub(super) fn betrays(&self, geometry: &Geometry, bytes: u64) -> Option<String> {
        let sector = u64::from(geometry.sector_size);
        let missing = |what: &str| Some(format!("the export cannot be {what} any more"));
        match self {
            Self { bytes: now, .. } if *now < bytes => {
                Some(format!("the export has shrunk from {bytes} to {now} bytes"))
            }
            Self { read_only: true, .. } if !geometry.read_only => missing("written to"),
            Self { flush: false, .. } if geometry.flush && !geometry.read_only => missing("flushed"),
            Self { trim: false, .. } if geometry.discard.is_some() => missing("trimmed"),
            Self { least, .. } if *least > sector => missing(&format!("used by sectors of {sector} bytes")),
            Self { most, .. } if *most != 0 && *most < sector => {
                missing(&format!("used by sectors of {sector} bytes"))
            }
            _ => None,
        }
    }
}
