//! What can be wrong with a peer's bytes and records, each offence by name.

use alloc::string::String;

use crate::{Opcode, Status};

/// Why a request is refused. It concerns this request only: the ring goes on, and the answer is
/// [`Head::answer`](crate::Head::answer) with [`status`](Self::status).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// No specification has this operation.
    #[error("unknown {0}")]
    UnknownOperation(Opcode),
    /// The backend did not offer this operation on this connection.
    #[error("{0} was not offered")]
    NotOffered(Opcode),
    /// A secure discard where only plain ones were offered. Doing less than was asked for would leave the data readable.
    #[error("secure discard was not offered")]
    SecureNotOffered,
    /// An indirect request for something other than a read or a write.
    #[error("indirect request for {0}")]
    InnerOperation(Opcode),
    /// The disk is read-only and the request would change it.
    #[error("{0} on a read-only disk")]
    ReadOnly(Opcode),
    /// A read or write of nothing.
    #[error("{0} without segments")]
    NoSegments(Opcode),
    /// More segments than the connection allows.
    #[error("{segments} segments, {limit} allowed")]
    TooManySegments {
        /// What the request says.
        segments: u16,
        /// What was negotiated.
        limit: u16,
    },
    /// A segment ends before it begins.
    #[error("segment {index}: first sector {first} after last sector {last}")]
    SegmentReversed {
        /// Which segment, from 0.
        index: u16,
        /// Its `first_sect`.
        first: u8,
        /// Its `last_sect`.
        last: u8,
    },
    /// A segment leaves its page.
    #[error("segment {index}: sector {last} of a page of 8")]
    SegmentBeyondPage {
        /// Which segment, from 0.
        index: u16,
        /// Its `last_sect`.
        last: u8,
    },
    /// A segment's length is no multiple of the disk's sector size.
    #[error("segment {index}: {sectors} x 512 bytes are not whole sectors of the disk")]
    SegmentUnaligned {
        /// Which segment, from 0.
        index: u16,
        /// Its length in 512-byte units.
        sectors: u8,
    },
    /// The request begins inside one of the disk's sectors.
    #[error("sector {sector} (of 512 bytes) is inside a sector of the disk")]
    Unaligned {
        /// The request's first sector, in 512-byte units.
        sector: u64,
    },
    /// More bytes than `max-request-size` allows.
    #[error("{bytes} bytes, {limit} allowed")]
    TooLarge {
        /// All segments together.
        bytes: u32,
        /// What was negotiated.
        limit: u32,
    },
    /// The request leaves the disk, or 64 bits.
    #[error("{sectors} sectors from {sector} leave a disk of {capacity}")]
    OutOfRange {
        /// First sector, in 512-byte units.
        sector: u64,
        /// Number of sectors.
        sectors: u64,
        /// The disk's sectors.
        capacity: u64,
    },
    /// The caller has not given all the entries that [`Head::entries`](crate::Head::entries) asks for. The peer's part in it:
    /// it published a request without all of its segment blocks, which is a violation of the ring.
    #[error("{have} of {need} ring entries")]
    MissingEntries {
        /// Entries given.
        have: u32,
        /// Entries the request occupies.
        need: u32,
    },
    /// The caller has not given all descriptors of an indirect request.
    #[error("{have} of {need} bytes of descriptors")]
    MissingDescriptors {
        /// Bytes given.
        have: u32,
        /// Bytes the request needs.
        need: u32,
    },
}

impl RequestError {
    /// What the peer is told: [`Status::NOT_SUPPORTED`] for what this backend does not do, else [`Status::ERROR`].
    pub const fn status(self) -> Status {
        match self {
            Self::UnknownOperation(_) | Self::NotOffered(_) | Self::SecureNotOffered => Status::NOT_SUPPORTED,
            _ => Status::ERROR,
        }
    }
}

/// Why a request cannot be written into ring entries: the caller's mistake, never the peer's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EmitError {
    /// More segments than this form of request can carry on this ABI.
    #[error("{segments} segments where {limit} fit")]
    TooManySegments {
        /// What the request has.
        segments: usize,
        /// What fits.
        limit: usize,
    },
    /// The caller's buffer has too few entries.
    #[error("{have} ring entries where {need} are needed")]
    TooFewEntries {
        /// Entries given.
        have: usize,
        /// Entries needed.
        need: usize,
    },
    /// Segments on an operation that has none, or an indirect request for something other than a read or a write.
    #[error("{0} cannot carry these segments")]
    NoSuchForm(Opcode),
    /// The descriptor pages named are not as many as the segments need.
    #[error("{have} descriptor pages where {need} are needed")]
    DescriptorPages {
        /// References given.
        have: usize,
        /// References needed.
        need: usize,
    },
}

/// Why a XenStore record is refused. Names the key, relative to the device's directory, and the offending value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// The key is absent or empty and has no default.
    #[error("{key}: missing")]
    Missing {
        /// The key.
        key: String,
    },
    /// The value is no decimal number (no sign, no space, nothing else), or leaves the number's range.
    #[error("{key}: {value:?} is not a decimal number")]
    NotANumber {
        /// The key.
        key: String,
        /// What it holds, shortened.
        value: String,
    },
    /// The value is a number or a word that this key cannot have.
    #[error("{key}: {value:?} is not {expected}")]
    Unexpected {
        /// The key.
        key: String,
        /// What it holds, shortened.
        value: String,
        /// What it may hold.
        expected: &'static str,
    },
    /// The value is a number beyond what was offered.
    #[error("{key}: {value} is not within {min} to {max}")]
    OutOfRange {
        /// The key.
        key: String,
        /// What it holds.
        value: u64,
        /// The least allowed.
        min: u64,
        /// The most allowed.
        max: u64,
    },
}

impl RecordError {
    /// The key at fault.
    pub fn key(&self) -> &str {
        match self {
            Self::Missing { key }
            | Self::NotANumber { key, .. }
            | Self::Unexpected { key, .. }
            | Self::OutOfRange { key, .. } => key,
        }
    }
}
