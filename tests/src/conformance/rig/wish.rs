//! How the scripted frontend connects.

use blkif_proto::{keys::RingDialect, xenbus::State};

/// What the scripted frontend publishes. The default is the original protocol: one queue, one page, 11 segments.
#[derive(Clone, Debug)]
pub struct Wish {
    /// Queues.
    pub queues: u32,
    /// Pages of each ring.
    pub ring_pages: u32,
    /// How the number of pages is told.
    pub dialect: RingDialect,
    /// Whether to promise persistent grants.
    pub persistent: bool,
    /// Whether to claim as much of the segment-block extension as is offered and fits the ABI.
    pub blocks: bool,
    /// Where the ring's indices start.
    pub start: u32,
    /// The state to announce with the keys.
    pub state: State,
    /// Keys to write differently (`Some`) or not at all (`None`), relative to the frontend's directory.
    pub edits: Vec<(String, Option<String>)>,
}

impl Default for Wish {
    fn default() -> Self {
        Self {
            queues: 1,
            ring_pages: 1,
            dialect: RingDialect::Order,
            persistent: false,
            blocks: false,
            start: 0,
            state: State::Initialised,
            edits: Vec::new(),
        }
    }
}

impl Wish {
    /// Segment blocks.
    pub fn blocks() -> Self {
        Self { blocks: true, ..Self::default() }
    }

    /// Persistent grants.
    pub fn persistent() -> Self {
        Self { persistent: true, ..Self::default() }
    }

    /// Several queues.
    pub fn queues(queues: u32) -> Self {
        Self { queues, ..Self::default() }
    }

    /// Rings of several pages.
    #[must_use]
    pub fn pages(self, ring_pages: u32, dialect: RingDialect) -> Self {
        Self { ring_pages, dialect, ..self }
    }

    /// Announced with this state.
    #[must_use]
    pub fn state(self, state: State) -> Self {
        Self { state, ..self }
    }

    /// Writes `key` as `value`.
    #[must_use]
    pub fn with(mut self, key: &str, value: &str) -> Self {
        self.edits.push((key.to_owned(), Some(value.to_owned())));
        self
    }

    /// Leaves `key` out.
    #[must_use]
    pub fn without(mut self, key: &str) -> Self {
        self.edits.push((key.to_owned(), None));
        self
    }
}
