//! For whoever wants to know what passes a ring: memory that tells of each slot and index as this end reads and writes it.

use alloc::sync::Arc;
use core::fmt::{Debug, Display};
use core::ops::Deref;

use crate::{Field, Index, Layout, RingMem};

/// Is told what one end of a ring does, in order, on the thread that does it.
///
/// Implementer: whatever is done here holds up the ring; a polled index is told of again and again. Caller: tells of bytes that
/// were copied, never of shared ones.
pub trait Tap: Debug + Send + Sync {
    /// A message of the peer was copied out of the slot of `index`: its first bytes, as far as this end wants them.
    fn slot_read(&self, index: Index, bytes: &[u8]);
    /// A message was written into the slot of `index`.
    fn slot_written(&self, index: Index, bytes: &[u8]);
    /// An index has this value in the shared page, believable or not.
    fn index_read(&self, field: Field, value: Index);
    /// An index was written by this end.
    fn index_written(&self, field: Field, value: Index);
    /// Bytes outside of the ring that belong to the request of this id, as this end read or wrote them.
    fn aside(&self, id: u64, bytes: &[u8]);
    /// The request of this id failed at this end, for a reason of this kind.
    fn failed(&self, id: u64, kind: &'static str, reason: &dyn Display);
    /// Work came to a point of its way that does not show in the ring; `id` is this end's own name for it.
    fn came_to(&self, point: &'static str, id: u64);
    /// The peer has signalled.
    fn signalled(&self);
}

/// A ring's memory with a [`Tap`] on it, or without: then an access costs a branch more than it would on `M` alone.
#[derive(Debug)]
pub struct Tapped<M> {
    mem: M,
    tap: Option<Arc<dyn Tap>>,
}

impl<M> Tapped<M> {
    /// `mem`, with what is to be told.
    pub fn new(mem: M, tap: Option<Arc<dyn Tap>>) -> Self {
        Self { mem, tap }
    }

    /// What is told, for what does not lie in the ring.
    #[inline]
    pub fn tap(&self) -> Option<&dyn Tap> {
        self.tap.as_deref()
    }

    /// The memory.
    pub fn into_inner(self) -> M {
        self.mem
    }
}

impl<M> Deref for Tapped<M> {
    type Target = M;

    fn deref(&self) -> &M {
        &self.mem
    }
}

impl<M: RingMem> RingMem for Tapped<M> {
    #[inline]
    fn layout(&self) -> Layout {
        self.mem.layout()
    }

    #[inline]
    fn load(&self, field: Field) -> Index {
        let value = self.mem.load(field);
        if let Some(tap) = &self.tap {
            tap.index_read(field, value);
        }
        value
    }

    #[inline]
    fn store(&self, field: Field, value: Index) {
        // Told first: once the peer sees it, its answer may be told of by another thread.
        if let Some(tap) = &self.tap {
            tap.index_written(field, value);
        }
        self.mem.store(field, value);
    }

    #[inline]
    fn read_slot(&self, index: Index, out: &mut [u8]) {
        self.mem.read_slot(index, out);
        if let Some(tap) = &self.tap
            && !out.is_empty()
        {
            let size = out.len().min(self.layout().entry_size());
            tap.slot_read(index, out.get(..size).unwrap_or_default());
        }
    }

    #[inline]
    fn write_slot(&self, index: Index, bytes: &[u8]) {
        if let Some(tap) = &self.tap {
            tap.slot_written(index, bytes);
        }
        self.mem.write_slot(index, bytes);
    }

    fn clear(&self) {
        self.mem.clear();
    }
}

#[cfg(test)]
mod tests;
