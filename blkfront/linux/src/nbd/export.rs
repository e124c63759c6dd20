//! The export: what clients are told about the disk, and which requests it takes.

use blkfront::Capabilities;

use super::wire::{Command, Errno, Request, command_flags, transmission};

/// Most bytes of one read or write that a client may ask for, as the protocol's own default.
pub(super) const LARGEST_BLOCK: u32 = 32 << 20;

/// A disk as NBD clients see it.
#[derive(Clone, Debug)]
pub(super) struct Export {
    name: String,
    bytes: u64,
    block: u32,
    preferred: u32,
    read_only: bool,
    flush: bool,
    trim: bool,
}

/// What a checked request asks of the disk. Ranges are in bytes, aligned to the disk's sectors and inside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Job {
    Read { offset: u64, length: u32 },
    Write { offset: u64, length: u32, durable: bool },
    Zero { offset: u64, length: u32, durable: bool },
    Trim { offset: u64, length: u32, durable: bool },
    Flush,
}

impl Export {
    /// The export `name` of a disk.
    pub(super) fn new(name: &str, disk: &Capabilities) -> Self {
        Self {
            name: name.into(),
            bytes: disk.bytes(),
            block: disk.alignment.max(1),
            preferred: disk.physical_sector_size.clamp(disk.alignment.max(4096), 1 << 20),
            read_only: disk.read_only,
            flush: disk.flush || disk.barrier,
            trim: disk.discard.is_some(),
        }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Size in bytes.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Least, preferred and largest block in bytes.
    pub(super) fn blocks(&self) -> [u32; 3] {
        [self.block, self.preferred, LARGEST_BLOCK]
    }

    /// A client that names no export means the only one there is.
    pub(super) fn is_called(&self, name: &[u8]) -> bool {
        name.is_empty() || name == self.name.as_bytes()
    }

    /// The transmission flags. Several connections are safe: nothing is cached here, and a flush on any queue covers every
    /// write of the disk that has been answered on any other. Without a flush the backend writes through, so that each
    /// answered write is durable already.
    pub(super) fn flags(&self) -> u16 {
        let mut flags = transmission::HAS_FLAGS | transmission::MULTI_CONN;
        if self.flush {
            flags |= transmission::FLUSH | transmission::FUA;
        }
        if self.read_only {
            return flags | transmission::READ_ONLY;
        }
        if self.trim {
            flags |= transmission::TRIM;
        }
        flags | transmission::WRITE_ZEROES
    }

    /// What `request` asks of the disk, or the error that answers it.
    pub(super) fn check(&self, request: &Request) -> Result<Job, Errno> {
        let durable = request.flags & command_flags::FUA != 0;
        let known = match request.command {
            Command::WRITE_ZEROES => command_flags::FUA | command_flags::NO_HOLE,
            _ => command_flags::FUA,
        };
        if request.flags & !known != 0 || (durable && !self.flush) {
            return Err(Errno::INVALID);
        }
        let Request { offset, length, .. } = *request;
        match request.command {
            Command::READ => {
                if length > LARGEST_BLOCK {
                    return Err(Errno::TOO_LONG);
                }
                self.range(request, Errno::INVALID)?;
                Ok(Job::Read { offset, length })
            }
            Command::WRITE => {
                self.changes(request)?;
                if length > LARGEST_BLOCK {
                    return Err(Errno::INVALID);
                }
                Ok(Job::Write { offset, length, durable })
            }
            Command::WRITE_ZEROES => {
                self.changes(request)?;
                Ok(Job::Zero { offset, length, durable })
            }
            Command::TRIM => {
                self.changes(request)?;
                match self.trim {
                    true => Ok(Job::Trim { offset, length, durable }),
                    false => Err(Errno::NOT_SUPPORTED),
                }
            }
            Command::FLUSH => match (self.flush, offset, length) {
                (true, 0, 0) => Ok(Job::Flush),
                (false, ..) => Err(Errno::NOT_SUPPORTED),
                _ => Err(Errno::INVALID),
            },
            _ => Err(Errno::INVALID),
        }
    }

    fn changes(&self, request: &Request) -> Result<(), Errno> {
        if self.read_only {
            return Err(Errno::READ_ONLY);
        }
        self.range(request, Errno::NO_SPACE)
    }

    fn range(&self, request: &Request, past_end: Errno) -> Result<(), Errno> {
        let end = request.offset.checked_add(u64::from(request.length)).ok_or(past_end)?;
        if end > self.bytes {
            return Err(past_end);
        }
        let block = u64::from(self.block);
        match request.length != 0 && request.offset.is_multiple_of(block) && end.is_multiple_of(block) {
            true => Ok(()),
            false => Err(Errno::INVALID),
        }
    }
}

#[cfg(test)]
mod tests;
