//! A place of the disk, and where in a buffer its data lie.

use blkfront::{Buffer, Io, Operation};

use crate::pattern::SECTOR;

/// Some sectors of the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Extent {
    pub(crate) sector: u64,
    pub(crate) sectors: usize,
    /// Where in a buffer, in bytes.
    pub(crate) offset: usize,
}

impl Extent {
    /// Bytes of a buffer that it takes.
    pub(crate) fn end(&self) -> usize {
        self.offset + self.sectors * SECTOR
    }

    /// The sector behind it.
    pub(crate) fn next_sector(&self) -> u64 {
        self.sector + self.sectors as u64
    }

    pub(crate) fn overlaps(&self, other: &Self) -> bool {
        self.sector < other.next_sector() && other.sector < self.next_sector()
    }

    /// An operation with data.
    pub(crate) fn io(&self, op: Operation, buffer: Buffer) -> Io {
        let bytes = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let whole = Io { op, ..Io::read(self.sector, buffer) };
        whole.part(bytes(self.offset), bytes(self.sectors * SECTOR))
    }
}
