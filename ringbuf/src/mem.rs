//! The seam between the ring's logic and the memory it lies in.

use crate::{Index, Layout};

/// Memory that holds a ring, shared with a peer who may change any of it at any time.
///
/// Implementations: [`Mapped`](crate::Mapped) (shared pages), [`Heap`](crate::Heap) (tests, loom).
///
/// The implementer must make every access relaxed and atomic by words, so that a peer writing at the same moment causes
/// wrong values at worst; it must accept any index and any length of buffer. It need not order accesses: the ring's
/// logic puts the fences (`sync`). The caller must treat what it reads as the peer's choice.
pub trait RingMem {
    /// Number and size of the slots; never changes.
    fn layout(&self) -> Layout;

    /// Reads one of the four indices.
    fn load(&self, field: Field) -> Index;

    /// Writes one of the four indices.
    fn store(&self, field: Field, value: Index);

    /// Copies the slot that `index` falls in, from its first byte, until `out` or the slot ends. What `out` has beyond
    /// an entry's size stays as it was.
    fn read_slot(&self, index: Index, out: &mut [u8]);

    /// Copies `bytes` into the slot that `index` falls in, from its first byte, until `bytes` or the slot ends. A last
    /// word (4 or 8 bytes) that `bytes` fills in part is completed with zeros; the rest of the slot stays as it was.
    fn write_slot(&self, index: Index, bytes: &[u8]);

    /// Zeroes everything, also what no slot covers: the peer sees all of the pages.
    fn clear(&self);
}

/// One of the four shared indices; the value is its byte offset in the first page (Xen's `io/ring.h`, `struct
/// __name##_sring`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Field {
    /// `req_prod`, written by the frontend: one past the last request published.
    ReqProd = 0,
    /// `req_event`, written by the backend: notify me when `req_prod` reaches this.
    ReqEvent = 4,
    /// `rsp_prod`, written by the backend: one past the last response published.
    RspProd = 8,
    /// `rsp_event`, written by the frontend: notify me when `rsp_prod` reaches this.
    RspEvent = 12,
}

/// A direction of travel: whose producer index, and the event index that its consumer writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lane {
    Requests,
    Responses,
}

impl Lane {
    #[inline]
    pub(crate) const fn producer(self) -> Field {
        match self {
            Self::Requests => Field::ReqProd,
            Self::Responses => Field::RspProd,
        }
    }

    #[inline]
    pub(crate) const fn event(self) -> Field {
        match self {
            Self::Requests => Field::ReqEvent,
            Self::Responses => Field::RspEvent,
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
