//! The sending half of an end: a private cursor, and what the peer may see of it.

use crate::mem::Lane;
use crate::sync::{Fence, fence};
use crate::{Index, Notify, RingMem};

/// A cursor for one direction. Our own producer index is never read back from the shared page.
#[derive(Debug)]
pub(crate) struct Producer {
    /// Where the next message goes.
    next: Index,
    /// The producer index as the peer knows it.
    published: Index,
}

impl Producer {
    pub(crate) const fn new(start: Index) -> Self {
        Self { next: start, published: start }
    }

    /// Writes a message that takes `entries` slots into the first of them. The caller has checked that they are free.
    #[inline]
    pub(crate) fn write<M: RingMem>(&mut self, mem: &M, bytes: &[u8], entries: u32) {
        mem.write_slot(self.next, bytes);
        self.next = self.next.plus(entries);
    }

    /// Shows the peer everything written so far.
    #[inline]
    pub(crate) fn publish<M: RingMem>(&mut self, mem: &M, lane: Lane) -> Notify {
        let old = self.published;
        if self.next == old {
            return Notify::NO;
        }
        // Pairs with the consumer's Observe: who sees the index sees the slots.
        fence(Fence::Publish);
        mem.store(lane.producer(), self.next);
        self.published = self.next;
        // Pairs with the consumer's ArmThenLook: either we see its event index or it sees our producer index.
        fence(Fence::PublishThenLook);
        Notify::when(self.next.passed(mem.load(lane.event()), old))
    }

    /// Forgets what was written since the last publish.
    pub(crate) const fn abort(&mut self) {
        self.next = self.published;
    }

    /// Where the next message goes.
    #[inline]
    pub(crate) const fn next(&self) -> Index {
        self.next
    }

    /// The producer index as the peer knows it.
    #[inline]
    pub(crate) const fn published(&self) -> Index {
        self.published
    }
}
