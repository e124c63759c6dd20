//! The lines of a recording.

use serde::{Deserialize, Serialize};

/// An end of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum End {
    /// The guest's.
    Frontend,
    /// The one with the disk.
    Backend,
}

impl End {
    /// The opposite end.
    #[must_use]
    pub fn peer(self) -> Self {
        match self {
            End::Frontend => End::Backend,
            End::Backend => End::Frontend,
        }
    }
}

/// The first line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// [`FORMAT`](super::FORMAT).
    pub format: String,
    /// [`VERSION`](super::VERSION).
    pub version: u32,
    /// Which end has recorded what it saw and did.
    pub end: End,
    /// The program of that end, for people.
    pub program: String,
}

/// Any other line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Nanoseconds since the recording began.
    pub at: u64,
    /// The guest's number, a slash, and the device's: `1/51712`.
    pub device: String,
    /// What happened.
    #[serde(flatten)]
    pub event: Event,
}

/// What one end sees of the other, or does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Event {
    /// A node of XenStore was found to have this value, or was written; only what is new is told.
    Node {
        /// In whose directory.
        of: End,
        /// The path below that directory; empty for the directory itself.
        key: String,
        /// None: there is no such node, or it was removed.
        value: Option<String>,
    },
    /// An entry of a request was copied out of its slot, or written there.
    Request {
        /// From 0.
        queue: u32,
        /// The ring's free-running index.
        index: u32,
        /// The entry without the zeroes at its end.
        #[serde(with = "const_hex")]
        bytes: Vec<u8>,
    },
    /// The descriptor pages of an indirect request, as far as it has descriptors: after its entry where they were fetched, before it
    /// where they were written.
    Descriptors {
        /// From 0.
        queue: u32,
        /// The request's.
        id: u64,
        /// Eight for each segment.
        #[serde(with = "const_hex")]
        bytes: Vec<u8>,
    },
    /// An answer was written into its slot, or copied out of it.
    Answer {
        /// From 0.
        queue: u32,
        /// The ring's free-running index.
        index: u32,
        /// The answer without the zeroes at its end.
        #[serde(with = "const_hex")]
        bytes: Vec<u8>,
    },
    /// A request failed at the end that records, after its answer.
    Failed {
        /// From 0.
        queue: u32,
        /// The request's.
        id: u64,
        /// `refused`: what it asks for. `grant`, `memory`, `storage`: what was in the way, and cannot be seen in it.
        cause: String,
        /// For people.
        text: String,
    },
    /// An end's producer index was seen, believable or not, or written; only what is new is told.
    Published {
        /// Whose index.
        by: End,
        /// From 0.
        queue: u32,
        /// One past the last message that is published.
        index: u32,
    },
    /// The peer's signal came.
    Signalled {
        /// From 0.
        queue: u32,
    },
    /// The file is full: nothing more was recorded.
    Full {},
}

impl Event {
    /// The queue it belongs to; none for XenStore's.
    pub fn queue(&self) -> Option<u32> {
        match *self {
            Event::Request { queue, .. }
            | Event::Descriptors { queue, .. }
            | Event::Answer { queue, .. }
            | Event::Failed { queue, .. }
            | Event::Published { queue, .. }
            | Event::Signalled { queue } => Some(queue),
            Event::Node { .. } | Event::Full {} => None,
        }
    }
}
