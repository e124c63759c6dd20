//! What a guest can do, as a fuzzer chooses it.

use arbitrary::Arbitrary;

/// What is agreed before it begins.
#[derive(Debug, Arbitrary)]
pub(crate) struct Shape {
    pub(crate) abi: u8,
    pub(crate) mode: u8,
    pub(crate) strategy: u8,
    pub(crate) persistent: bool,
    pub(crate) two_pages: bool,
    pub(crate) start: u32,
    pub(crate) cache: u8,
    pub(crate) read_only: bool,
    pub(crate) direct_io: bool,
    pub(crate) log: bool,
    pub(crate) few_requests: bool,
}

/// A grant reference.
#[derive(Clone, Copy, Debug, Arbitrary)]
pub(crate) enum Ref {
    /// Of one of its pages.
    Own(u8),
    /// Of its ring.
    Ring,
    /// A number of the other guest's.
    Foreign,
    /// Any number.
    Raw(u32),
}

/// A segment.
#[derive(Clone, Copy, Debug, Arbitrary)]
pub(crate) struct Seg {
    pub(crate) gref: Ref,
    pub(crate) first: u8,
    pub(crate) last: u8,
    /// First and last are not brought into order.
    pub(crate) wild: bool,
}

/// A sector, or a number of them.
#[derive(Clone, Copy, Debug, Arbitrary)]
pub(crate) enum Place {
    Within(u16),
    /// So far from the end of the disk.
    End(i8),
    Raw(u64),
}

/// One act.
#[derive(Debug, Arbitrary)]
pub(crate) enum Act {
    /// A read, write, barrier or flush, or what has another number.
    Data {
        op: u8,
        sector: Place,
        segments: Vec<Seg>,
        repeat: u8,
        count: Option<u8>,
    },
    Indirect {
        op: u8,
        sector: Place,
        segments: u16,
        pages: [Ref; 2],
    },
    /// Writes descriptors into one of its pages.
    Describe {
        page: u8,
        segments: Vec<Seg>,
    },
    Discard {
        flag: u8,
        sector: Place,
        sectors: Place,
    },
    /// An entry of these bytes.
    Entry([u8; 32]),
    Publish,
    Notify(u8),
    /// The worker has its turns.
    Turn(u8),
    /// The disk ends an operation.
    Disk {
        choice: u8,
        fails: bool,
    },
    /// Takes answers.
    Take,
    /// Writes one of the ring's four indices.
    Index {
        field: u8,
        to: i8,
        far: bool,
    },
    /// Writes somewhere in the ring.
    Scribble {
        at: u16,
        bytes: u64,
    },
    /// Writes somewhere in one of its pages.
    Poke {
        page: u8,
        at: u16,
        bytes: u64,
    },
    Revoke(u8),
    Lend {
        page: u8,
        writable: bool,
    },
    /// The daemon is killed, and another follows.
    Kill,
    /// Closes, and connects again.
    Reconnect,
    ClosePort,
}
