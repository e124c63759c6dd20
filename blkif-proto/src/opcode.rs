//! Operations and statuses, open: a value nobody has defined yet is still a value.

use core::fmt;

/// What a request asks for (`BLKIF_OP_*` in Xen's public header `io/blkif.h`). Unknown values survive, because an unknown
/// operation must be answered with the same number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Opcode(pub u8);

impl Opcode {
    /// Disk to guest.
    pub const READ: Opcode = Opcode(0);
    /// Guest to disk.
    pub const WRITE: Opcode = Opcode(1);
    /// Write that no other write may overtake, in either direction. Without segments: a flush.
    pub const WRITE_BARRIER: Opcode = Opcode(2);
    /// Everything answered before is durable when this is; then the data, if there is any, is written.
    pub const FLUSH: Opcode = Opcode(3);
    /// A range's contents are no longer needed. 4 is reserved.
    pub const DISCARD: Opcode = Opcode(5);
    /// A read or write whose segments lie in pages of their own.
    pub const INDIRECT: Opcode = Opcode(6);

    /// True for the operations that carry segments in their entry: read, write, write barrier, flush.
    pub const fn has_segments(self) -> bool {
        self.0 <= Opcode::FLUSH.0
    }
}

impl fmt::Display for Opcode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Opcode::READ => f.pad("read"),
            Opcode::WRITE => f.pad("write"),
            Opcode::WRITE_BARRIER => f.pad("write barrier"),
            Opcode::FLUSH => f.pad("flush"),
            Opcode::DISCARD => f.pad("discard"),
            Opcode::INDIRECT => f.pad("indirect"),
            Opcode(other) => write!(f, "operation {other}"),
        }
    }
}

/// How a request ended (`BLKIF_RSP_*` in Xen's public header `io/blkif.h`). Unknown values survive; a frontend takes them for
/// errors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Status(pub i16);

impl Status {
    /// Done, all of it.
    pub const OKAY: Status = Status(0);
    /// Failed; how far it came is not told.
    pub const ERROR: Status = Status(-1);
    /// This backend does not do that. A frontend stops asking.
    pub const NOT_SUPPORTED: Status = Status(-2);
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Status::OKAY => f.pad("okay"),
            Status::ERROR => f.pad("error"),
            Status::NOT_SUPPORTED => f.pad("not supported"),
            Status(other) => write!(f, "status {other}"),
        }
    }
}
