//! What an application hands to a queue and gets back: [`Io`], its [`Buffer`], and the [`Completion`].

use core::fmt;

use xen_platform::{PAGE_SIZE, Pages, SharedMem};

use crate::IoError;

/// Bytes of the unit in which sectors are counted everywhere in this crate, whatever the disk's own sector size is (public
/// header `blkif.h`).
pub const SECTOR_SIZE: u32 = 512;

/// What to do with a range of the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operation {
    /// Disk to buffer.
    Read,
    /// Buffer to disk. Durable only after a later [`Flush`](Self::Flush) has completed.
    Write,
    /// Buffer to disk, after every earlier and before every later write of the same queue (`BLKIF_OP_WRITE_BARRIER`). Without
    /// data it only orders. What is submitted behind it waits in the queue until it is answered.
    WriteBarrier,
    /// Makes every write that has completed durable (`BLKIF_OP_FLUSH_DISKCACHE` without data).
    Flush,
    /// Tells the disk that a range holds nothing of value (`BLKIF_OP_DISCARD`).
    Discard {
        /// Length in 512-byte sectors.
        sectors: u64,
        /// The old content must become unrecoverable.
        secure: bool,
    },
}

/// Memory for data, in whole pages that can be lent to the backend. Made by [`Queue::alloc_buffer`](crate::Queue::alloc_buffer).
///
/// The bytes are shared with an untrusted peer while an [`Io`] is in flight, and with persistent grants always; hence no
/// slices, only copies in and out.
#[derive(Debug)]
pub struct Buffer {
    pub(crate) pages: Pages,
    /// How many of the pages it is about; the others are there because the backend keeps all of them mapped.
    pub(crate) used: usize,
    /// Which of the queue's connections the pages were taken from.
    pub(crate) home: u32,
}

impl Buffer {
    /// Length in bytes, a multiple of 4096.
    pub fn len(&self) -> usize {
        self.used * PAGE_SIZE
    }

    /// Never true: a buffer has at least one page.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All bytes.
    pub fn mem(&self) -> SharedMem<'_> {
        let all = self.pages.mem();
        all.part(0, self.len()).unwrap_or(all)
    }

    /// Copies `from` in at `offset` bytes; what does not fit is left out. Returns the number of bytes copied.
    pub fn write(&self, offset: usize, from: &[u8]) -> usize {
        self.tail(offset).map_or(0, |mem| mem.write(from))
    }

    /// Copies bytes from `offset` on out; returns how many.
    pub fn read(&self, offset: usize, into: &mut [u8]) -> usize {
        self.tail(offset).map_or(0, |mem| mem.read(into))
    }

    fn tail(&self, offset: usize) -> Option<SharedMem<'_>> {
        let mem = self.mem();
        mem.part(offset, mem.len().checked_sub(offset)?)
    }
}

/// One piece of work for a [`Queue`](crate::Queue). It may be larger than the largest ring request: it is cut as needed and completes
/// once.
#[derive(Debug)]
pub struct Io {
    /// What to do.
    pub op: Operation,
    /// Where on the disk, in 512-byte sectors.
    pub sector: u64,
    /// The memory; `None` for operations without data.
    pub buffer: Option<Buffer>,
    /// First byte of the data in the buffer; a multiple of the [alignment](crate::Capabilities::alignment).
    pub offset: u32,
    /// Length of the data in bytes; a multiple of the [alignment](crate::Capabilities::alignment).
    pub len: u32,
    /// The application's own mark; comes back untouched.
    pub cookie: u64,
}

impl Io {
    /// Reads from `sector` on into the whole buffer.
    pub fn read(sector: u64, buffer: Buffer) -> Self {
        Self::with_data(Operation::Read, sector, buffer)
    }

    /// Writes the whole buffer from `sector` on.
    pub fn write(sector: u64, buffer: Buffer) -> Self {
        Self::with_data(Operation::Write, sector, buffer)
    }

    /// Writes the whole buffer from `sector` on, ordered against all other writes of the queue.
    pub fn write_barrier(sector: u64, buffer: Buffer) -> Self {
        Self::with_data(Operation::WriteBarrier, sector, buffer)
    }

    /// Makes completed writes durable.
    pub fn flush() -> Self {
        Self::without_data(Operation::Flush, 0)
    }

    /// Discards `sectors` sectors of 512 bytes from `sector` on.
    pub fn discard(sector: u64, sectors: u64) -> Self {
        Self::without_data(Operation::Discard { sectors, secure: false }, sector)
    }

    /// Like [`discard`](Self::discard), and the old content must become unrecoverable.
    pub fn discard_securely(sector: u64, sectors: u64) -> Self {
        Self::without_data(Operation::Discard { sectors, secure: true }, sector)
    }

    /// Uses only `len` bytes of the buffer from `offset` on.
    #[must_use]
    pub fn part(self, offset: u32, len: u32) -> Self {
        Self { offset, len, ..self }
    }

    /// Sets the application's own mark.
    #[must_use]
    pub fn cookie(self, cookie: u64) -> Self {
        Self { cookie, ..self }
    }

    fn with_data(op: Operation, sector: u64, buffer: Buffer) -> Self {
        let len = u32::try_from(buffer.len()).unwrap_or(u32::MAX);
        Self { op, sector, buffer: Some(buffer), offset: 0, len, cookie: 0 }
    }

    fn without_data(op: Operation, sector: u64) -> Self {
        Self { op, sector, buffer: None, offset: 0, len: 0, cookie: 0 }
    }
}

/// Names one accepted [`Io`] of a queue; grows with every submission.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ticket(pub(crate) u64);

impl fmt::Display for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{}", self.0)
    }
}

/// An [`Io`] that has ended.
#[derive(Debug)]
pub struct Completion {
    /// What [`Queue::submit`](crate::Queue::submit) answered.
    pub ticket: Ticket,
    /// The work, with its buffer. The buffer is missing only if the backend still maps it
    /// ([`DeviceError::StillMapped`](crate::DeviceError::StillMapped)): such memory is not safe to use again.
    pub io: Io,
    /// How it ended. On an error any part of the range may have been transferred.
    pub result: Result<(), IoError>,
}
