//! What a backend can do, and what an application asks for meanwhile, as a fuzzer chooses it.

use arbitrary::Arbitrary;

/// How the frontend is configured, and what the toolstack says.
#[derive(Debug, Arbitrary)]
pub(crate) struct Wishes {
    pub(crate) queues: u8,
    pub(crate) ring_pages: u8,
    pub(crate) persistent: bool,
    pub(crate) segments: u8,
    pub(crate) abi: u8,
    pub(crate) trusted: bool,
    /// The backend begins as it pleases, and not with a handshake.
    pub(crate) raw: bool,
    pub(crate) features: u8,
    pub(crate) sectors: u16,
}

impl Wishes {
    /// What an honest backend would do first.
    pub(crate) fn handshake(&self) -> Vec<Act> {
        let (features, sectors) = (self.features, self.sectors);
        let offer =
            Act::Offer { features, ring_pages: self.ring_pages, queues: self.queues.max(1), segments: 64 };
        let connect = Act::Connect { sectors, sector_shift: 0, info: 0 };
        if self.raw { Vec::new() } else { vec![offer, connect] }
    }
}

/// A XenStore value.
#[derive(Debug, Arbitrary)]
pub(crate) enum Value {
    Small(u8),
    Number(u64),
    Bytes([u8; 6]),
    Empty,
    Gone,
}

/// An answer's name.
#[derive(Clone, Copy, Debug, Arbitrary)]
pub(crate) enum Name {
    /// Of a request that it has taken.
    Taken(u8),
    /// Of one that was answered already.
    Answered(u8),
    Raw(u64),
}

/// One act of the backend.
#[derive(Debug, Arbitrary)]
pub(crate) enum Act {
    /// Offers something sensible and waits: state 2.
    Offer {
        features: u8,
        ring_pages: u8,
        queues: u8,
        segments: u8,
    },
    /// Maps what the frontend offers, and connects: state 4.
    Connect {
        sectors: u16,
        sector_shift: u8,
        info: u8,
    },
    /// Lets go of everything.
    Disconnect,
    State(u8),
    /// Writes or removes a key of its own.
    Key {
        key: u8,
        value: Value,
    },
    /// Its directory, or the frontend's, is deleted.
    Delete {
        frontend: bool,
    },
    /// Takes requests out of a ring.
    Take(u8),
    /// Takes and answers them all as a good backend does.
    Serve(u8),
    Answer {
        queue: u8,
        name: Name,
        op: Option<u8>,
        status: i8,
        entries: u8,
        publish: bool,
    },
    Index {
        queue: u8,
        field: u8,
        to: i8,
        far: bool,
    },
    Scribble {
        queue: u8,
        at: u16,
        bytes: u64,
    },
    /// Maps a page of a request and keeps it.
    Cling {
        request: u8,
        segment: u8,
    },
    /// Writes to a page that it maps.
    Poke {
        page: u8,
        at: u16,
        bytes: u64,
    },
    LetGo,
    Bell {
        queue: u8,
        times: u8,
    },
    /// Nothing, for a while.
    Pause(u16),
}

impl Act {
    /// True for what leaves states and mappings as an honest backend would.
    pub(crate) fn keeps_to_the_ring(&self) -> bool {
        !matches!(
            self,
            Self::Offer { .. }
                | Self::Connect { .. }
                | Self::Disconnect
                | Self::State(_)
                | Self::Key { .. }
                | Self::Delete { .. }
                | Self::Cling { .. }
        )
    }
}

/// One act of the application.
#[derive(Debug, Arbitrary)]
pub(crate) enum Work {
    Submit {
        queue: u8,
        op: u8,
        sector: u16,
        bytes: u16,
        more: bool,
    },
    Publish(u8),
    Finish(u8),
    Wait {
        queue: u8,
        ms: u8,
    },
    Execute {
        queue: u8,
        sector: u16,
    },
    Poll,
    WaitControl(u8),
    Free,
    /// Looks as its kernel would when an event comes.
    Dispatch(u8),
}
