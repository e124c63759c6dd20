//! Answers.

use zerocopy::{transmute, transmute_ref};

use crate::{
    Opcode, Status,
    wire::{Entry, WireResponse},
};

/// The answer to one request, the same bytes on every ABI.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Response {
    /// The request's `id`, all 64 bits as they came.
    pub id: u64,
    /// The request's operation; for an indirect request the operation inside (0 or 1, never 6: Linux guests since 2021 give
    /// up a disk that answers 6).
    pub op: Opcode,
    /// How it ended.
    pub status: Status,
}

impl Response {
    /// Bytes of a ring slot with this response and zeroes in all that remains, so that nothing of the backend's memory
    /// reaches the guest (XSA-216).
    #[inline]
    pub fn emit(&self) -> Entry {
        transmute!(WireResponse {
            id: self.id.into(),
            operation: self.op.0,
            pad: 0,
            status: self.status.0.into(),
            rest: [0; 100],
        })
    }

    /// Reads a response out of a private copy of a slot. Any bytes are some response: whether its id and operation are those
    /// of a request under way, the frontend must find out from its own table.
    #[inline]
    pub fn parse(entry: &Entry) -> Response {
        let wire: &WireResponse = transmute_ref!(entry);
        Response { id: wire.id.get(), op: Opcode(wire.operation), status: Status(wire.status.get()) }
    }
}

#[cfg(test)]
mod tests;
