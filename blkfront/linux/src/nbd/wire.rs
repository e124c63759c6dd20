//! The bytes of the NBD protocol: its numbers, and requests and replies to and from bytes.
//!
//! From the protocol's public description (`doc/proto.md` of the NetworkBlockDevice project); all integers are big endian.

/// `NBDMAGIC`, the first eight bytes a server says.
pub(super) const GREETING: u64 = 0x4e42_444d_4147_4943;
/// `IHAVEOPT`, before every option and after the greeting.
pub(super) const OPTION_MAGIC: u64 = 0x4948_4156_454f_5054;
/// Before every reply to an option.
pub(super) const OPTION_REPLY_MAGIC: u64 = 0x0003_e889_0455_65a9;
const REQUEST_MAGIC: u32 = 0x2560_9513;
const REPLY_MAGIC: u32 = 0x6744_6698;

/// Both handshake flags, of server and client: fixed newstyle, and no 124 zeroes after `EXPORT_NAME`.
pub(super) mod handshake_flags {
    pub(in super::super) const FIXED_NEWSTYLE: u16 = 1;
    pub(in super::super) const NO_ZEROES: u16 = 2;
}

/// Options of the handshake.
pub(super) mod option {
    pub(in super::super) const EXPORT_NAME: u32 = 1;
    pub(in super::super) const ABORT: u32 = 2;
    pub(in super::super) const LIST: u32 = 3;
    pub(in super::super) const INFO: u32 = 6;
    pub(in super::super) const GO: u32 = 7;
}

/// Types of replies to options.
pub(super) mod option_reply {
    pub(in super::super) const ACK: u32 = 1;
    pub(in super::super) const SERVER: u32 = 2;
    pub(in super::super) const INFO: u32 = 3;
    const ERROR: u32 = 1 << 31;
    pub(in super::super) const UNSUPPORTED: u32 = ERROR + 1;
    pub(in super::super) const INVALID: u32 = ERROR + 3;
    pub(in super::super) const UNKNOWN_EXPORT: u32 = ERROR + 6;
}

/// Kinds of information about an export.
pub(super) mod info {
    pub(in super::super) const EXPORT: u16 = 0;
    pub(in super::super) const NAME: u16 = 1;
    pub(in super::super) const BLOCK_SIZE: u16 = 3;
}

/// Transmission flags: what an export can do.
pub(super) mod transmission {
    pub(in super::super) const HAS_FLAGS: u16 = 1 << 0;
    pub(in super::super) const READ_ONLY: u16 = 1 << 1;
    pub(in super::super) const FLUSH: u16 = 1 << 2;
    pub(in super::super) const FUA: u16 = 1 << 3;
    pub(in super::super) const TRIM: u16 = 1 << 5;
    pub(in super::super) const WRITE_ZEROES: u16 = 1 << 6;
    pub(in super::super) const MULTI_CONN: u16 = 1 << 8;
}

/// Commands of the transmission phase. Unknown ones are values too: they get an error for an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Command(pub(super) u16);

impl Command {
    pub(super) const READ: Self = Self(0);
    pub(super) const WRITE: Self = Self(1);
    pub(super) const DISCONNECT: Self = Self(2);
    pub(super) const FLUSH: Self = Self(3);
    pub(super) const TRIM: Self = Self(4);
    pub(super) const WRITE_ZEROES: Self = Self(6);
}

/// Command flags.
pub(super) mod command_flags {
    pub(in super::super) const FUA: u16 = 1 << 0;
    pub(in super::super) const NO_HOLE: u16 = 1 << 1;
}

/// Errors in replies; the numbers are Linux's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Errno(u32);

impl Errno {
    pub(super) const OK: Self = Self(0);
    /// `EPERM`: a write to a read-only export.
    pub(super) const READ_ONLY: Self = Self(1);
    /// `EIO`.
    pub(super) const IO: Self = Self(5);
    /// `ENOMEM`.
    pub(super) const NO_MEMORY: Self = Self(12);
    /// `EINVAL`.
    pub(super) const INVALID: Self = Self(22);
    /// `ENOSPC`: a write past the end.
    pub(super) const NO_SPACE: Self = Self(28);
    /// `EOVERFLOW`: a read longer than the largest block.
    pub(super) const TOO_LONG: Self = Self(75);
    /// `ENOTSUP`.
    pub(super) const NOT_SUPPORTED: Self = Self(95);
    /// `ESHUTDOWN`: the server is about to stop.
    pub(super) const SHUTDOWN: Self = Self(108);
}

/// A request's header, as the client sent it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Request {
    pub(super) flags: u16,
    pub(super) command: Command,
    /// The client's own mark, echoed in the reply.
    pub(super) cookie: u64,
    /// Bytes from the start of the export.
    pub(super) offset: u64,
    /// Bytes.
    pub(super) length: u32,
}

/// What stands where a request should be is none: the stream is out of step, and nothing can be trusted after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a request starts with {0:#010x}, which is not NBD's magic number")]
pub(super) struct BadMagic(u32);

impl Request {
    /// Bytes of a request's header.
    pub(super) const BYTES: usize = 28;

    /// The request in `bytes`.
    pub(super) fn parse(bytes: &[u8; Self::BYTES]) -> Result<Self, BadMagic> {
        let mut fields = Fields(bytes);
        match fields.u32() {
            Some(REQUEST_MAGIC) => {}
            other => return Err(BadMagic(other.unwrap_or_default())),
        }
        Ok(Self {
            flags: fields.u16().unwrap_or_default(),
            command: Command(fields.u16().unwrap_or_default()),
            cookie: fields.u64().unwrap_or_default(),
            offset: fields.u64().unwrap_or_default(),
            length: fields.u32().unwrap_or_default(),
        })
    }
}

/// Bytes of a simple reply's header.
pub(super) const REPLY_BYTES: usize = 16;

/// The header of a simple reply.
pub(super) fn reply(error: Errno, cookie: u64) -> [u8; REPLY_BYTES] {
    let mut bytes = [0; REPLY_BYTES];
    bytes[..4].copy_from_slice(&REPLY_MAGIC.to_be_bytes());
    bytes[4..8].copy_from_slice(&error.0.to_be_bytes());
    bytes[8..].copy_from_slice(&cookie.to_be_bytes());
    bytes
}

/// Takes big-endian fields off the front of bytes; `None` when they run out.
pub(super) struct Fields<'a>(pub(super) &'a [u8]);

impl<'a> Fields<'a> {
    pub(super) fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_be_bytes)
    }

    pub(super) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    pub(super) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_be_bytes)
    }

    pub(super) fn bytes(&mut self, count: u32) -> Option<&'a [u8]> {
        let (front, rest) = self.0.split_at_checked(usize::try_from(count).ok()?)?;
        self.0 = rest;
        Some(front)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (front, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*front)
    }
}

#[cfg(test)]
mod tests;
