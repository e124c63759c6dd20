//! The receiving half of an end: what the peer published, checked, and how far we got.

use crate::mem::Lane;
use crate::sync::{Fence, fence};
use crate::{Corrupt, Index, RingMem};

/// A cursor for one direction, with a private copy of the peer's producer index that is renewed only when used up.
///
/// `room` in the methods: how many entries past the cursor a correct peer can have published.
#[derive(Debug)]
pub(crate) struct Consumer {
    /// The next message to read.
    next: Index,
    /// The peer's producer index when last looked at: checked, and never behind `next`.
    seen: Index,
    /// Set once, for good; `seen` then equals `next`, so that every way to more messages passes here.
    corrupt: Option<Corrupt>,
}

impl Consumer {
    pub(crate) const fn new(start: Index) -> Self {
        Self { next: start, seen: start, corrupt: None }
    }

    /// Entries that are there to read, found without looking at shared memory if they are `wanted` or more.
    #[inline]
    pub(crate) fn ready<M: RingMem>(
        &mut self,
        mem: &M,
        lane: Lane,
        room: u32,
        wanted: u32,
    ) -> Result<u32, Corrupt> {
        let known = self.seen.since(self.next);
        if known >= wanted && known > 0 { Ok(known) } else { self.look(mem, lane, room) }
    }

    /// Insists that a message of `entries` entries is there as a whole.
    #[inline]
    pub(crate) fn require<M: RingMem>(
        &mut self,
        mem: &M,
        lane: Lane,
        room: u32,
        entries: u32,
    ) -> Result<(), Corrupt> {
        if self.ready(mem, lane, room, entries)? >= entries {
            return Ok(());
        }
        let (producer, consumer) = (self.seen.get(), self.next.get());
        Err(self.condemn(Corrupt::Torn { producer, consumer, entries }))
    }

    /// Moves past `entries` entries that [`Consumer::require`] found.
    #[inline]
    pub(crate) fn advance(&mut self, entries: u32) {
        self.next = self.next.plus(entries);
    }

    /// Asks to be notified when `after` entries are ready, then looks again: true if they are there already.
    #[inline]
    pub(crate) fn arm<M: RingMem>(
        &mut self,
        mem: &M,
        lane: Lane,
        room: u32,
        after: u32,
    ) -> Result<bool, Corrupt> {
        if self.seen.since(self.next) >= after {
            return Ok(true);
        }
        mem.store(lane.event(), self.next.plus(after));
        // Pairs with the producer's PublishThenLook: either it sees our event index or we see its producer index.
        fence(Fence::ArmThenLook);
        Ok(self.look(mem, lane, room)? >= after)
    }

    /// The next message to read.
    #[inline]
    pub(crate) const fn next(&self) -> Index {
        self.next
    }

    /// Renews the private copy of the peer's producer index.
    fn look<M: RingMem>(&mut self, mem: &M, lane: Lane, room: u32) -> Result<u32, Corrupt> {
        if let Some(corrupt) = self.corrupt {
            return Err(corrupt);
        }
        let producer = mem.load(lane.producer());
        // Pairs with the producer's Publish: the slots are read after the index that covers them.
        fence(Fence::Observe);
        let ready = producer.since(self.next);
        if ready > room || ready < self.seen.since(self.next) {
            let (producer, consumer) = (producer.get(), self.next.get());
            return Err(self.condemn(Corrupt::Jumped { producer, consumer, room }));
        }
        self.seen = producer;
        Ok(ready)
    }

    #[cold]
    fn condemn(&mut self, offence: Corrupt) -> Corrupt {
        self.seen = self.next;
        *self.corrupt.insert(offence)
    }
}
