//! What the connected disk can do.

use blkif_proto::{
    Discard, Limits,
    keys::{BackendDisk, DiskInfo},
};

/// The disk as an application sees it. [`sectors`](Self::sectors) may change while connected
/// ([`DeviceEvent::Resized`](crate::DeviceEvent::Resized)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// Size in 512-byte sectors.
    pub sectors: u64,
    /// Unit of addressing in bytes; a power of two, 512 to 4096.
    pub sector_size: u32,
    /// Unit that the medium writes best, in bytes; a multiple of `sector_size`.
    pub physical_sector_size: u32,
    /// Only reads are accepted.
    pub read_only: bool,
    /// The medium can be taken out.
    pub removable: bool,
    /// A CD-ROM.
    pub cdrom: bool,
    /// Bytes that one ring request can carry. A larger [`Io`](crate::Io) works too and is cut into several.
    pub largest_request: u32,
    /// Offsets and lengths of data must be multiples of this many bytes.
    pub alignment: u32,
    /// [`Operation::Flush`](crate::Operation::Flush) is offered. Where neither this nor `barrier` is, the backend writes through.
    pub flush: bool,
    /// [`Operation::WriteBarrier`](crate::Operation::WriteBarrier) is offered.
    pub barrier: bool,
    /// [`Operation::Discard`](crate::Operation::Discard) is offered, and how. The granularity is never 0.
    pub discard: Option<Discard>,
}

impl Capabilities {
    /// Size in bytes.
    pub fn bytes(&self) -> u64 {
        self.sectors.saturating_mul(u64::from(crate::SECTOR_SIZE))
    }

    /// The disk behind a connection.
    pub(crate) fn new(disk: &BackendDisk, limits: &Limits) -> Self {
        let granularity = |discard: Discard| match discard.granularity {
            0 => disk.sector_size,
            told => told,
        };
        Self {
            sectors: disk.sectors,
            sector_size: disk.sector_size,
            physical_sector_size: disk.physical_sector_size,
            read_only: limits.read_only,
            removable: disk.info.contains(DiskInfo::REMOVABLE),
            cdrom: disk.info.contains(DiskInfo::CDROM),
            largest_request: limits.max_request_bytes,
            alignment: disk.sector_size,
            flush: limits.operations.flush,
            barrier: limits.operations.barrier,
            discard: limits
                .operations
                .discard
                .map(|discard| Discard { granularity: granularity(discard), ..discard }),
        }
    }
}
