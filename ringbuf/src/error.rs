//! What can go wrong, sorted by who must act: nobody ([`Full`]), the owner of the device ([`Corrupt`]), whoever
//! set the ring up ([`LayoutError`]).

use thiserror::Error;

/// No slot is free: normal back-pressure, invisible to the peer.
///
/// A frontend tries again when responses were consumed. A backend meets it only if it answers more than it consumed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the ring has no free slot")]
pub struct Full;

/// The peer wrote indices that no correct peer can write. The ring stays stopped for the life of the connection.
///
/// All indices are raw, free-running ring indices, as they were when the offence was seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Corrupt {
    /// The producer index ran ahead of what can exist, or backwards.
    ///
    /// The checks `RING_REQUEST_PROD_OVERFLOW` and `RING_RESPONSE_PROD_OVERFLOW` of Xen's `io/ring.h`, tightened to
    /// what the peer can know: a frontend has no more than the free slots, a backend answers only requests in flight.
    #[error(
        "peer's producer index {producer:#010x} is not within {room} entries of consumer index {consumer:#010x}"
    )]
    Jumped {
        /// The producer index that the peer wrote.
        producer: u32,
        /// Our consumer index, private.
        consumer: u32,
        /// How many entries past `consumer` the peer could have produced.
        room: u32,
    },
    /// A message of several entries was published only in part.
    #[error(
        "peer published up to {producer:#010x}, but its message at {consumer:#010x} takes {entries} entries"
    )]
    Torn {
        /// The producer index that the peer wrote.
        producer: u32,
        /// Our consumer index, private: the first entry of the message.
        consumer: u32,
        /// How many entries the message takes.
        entries: u32,
    },
}

/// Sizes that make no ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("{bytes} bytes make no ring of {entry_size}-byte entries")]
pub struct LayoutError {
    /// Bytes that were to hold header and slots.
    pub bytes: usize,
    /// Bytes of one entry.
    pub entry_size: usize,
}
