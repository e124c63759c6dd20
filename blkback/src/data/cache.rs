//! Persistent grants: pages of a guest that stay mapped from one request to the next.
//!
//! The rules are those of Linux' backend (PROTOCOL.md 6.1): always mapped writable, at most so many, the one unused for
//! longest makes room. A page under way is out of the cache, on loan to one request. One that is on loan already, or for which
//! there is no room, is not mapped again: copying it is cheaper, and Xen maps a page at most 128 times at once.

use std::collections::HashMap;

use blkif_proto::{GrantRef, Segment};
use foldhash::fast::RandomState;
use xen_platform::{Access, DomId, GrantError, Mapper, Mapping, SharedMem};

use super::budget::Budget;

/// One page on loan to a request.
pub struct Lease<M> {
    // Boxed, and slots are small, because large requests walk through hundreds of both.
    mapping: Box<M>,
    /// Its place in the cache; none if it is mapped for this request only.
    slot: Option<u32>,
}

impl<M: Mapping> Lease<M> {
    /// The part of the page that `segment` names.
    pub fn part(&self, segment: &Segment) -> Option<SharedMem<'_>> {
        self.mapping.page(0)?.part(segment.offset(), segment.bytes())
    }

    /// The whole page.
    pub fn page(&self) -> Option<SharedMem<'_>> {
        self.mapping.page(0)
    }
}

/// One queue's persistently mapped pages.
pub struct GrantCache<M> {
    slots: Vec<Slot<M>>,
    // Looked up for every page of every request; seeded, because the guest chooses the keys.
    by_gref: HashMap<GrantRef, u32, RandomState>,
    /// Empty holders, to be used again.
    // A box goes from here into a slot and on into a lease without being moved or freed.
    spare: Vec<Box<M>>,
    capacity: usize,
    budget: &'static Budget,
    /// Ends of the list of idle slots.
    oldest: u32,
    newest: u32,
    /// The slot that was leased last.
    last: u32,
}

struct Slot<M> {
    gref: GrantRef,
    /// None while on loan.
    page: Option<Box<M>>,
    older: u32,
    newer: u32,
    /// The slot that was leased after this one: guests use their buffers again, so it is probably the next one again, and need
    /// not be looked up.
    follower: u32,
}

/// Empty holders kept: as many as Linux' backend keeps pages.
const SPARES: usize = 1056;
/// No slot.
const END: u32 = u32::MAX;

impl<M: Mapping> GrantCache<M> {
    /// A cache of at most `capacity` pages. Takes no memory yet.
    pub fn new(capacity: usize) -> Self {
        Self::within(capacity, Budget::of_process())
    }

    /// The same, with its pages taken from `budget`.
    pub(super) fn within(capacity: usize, budget: &'static Budget) -> Self {
        Self {
            slots: Vec::new(),
            by_gref: HashMap::default(),
            spare: Vec::new(),
            capacity,
            budget,
            oldest: END,
            newest: END,
            last: END,
        }
    }

    /// Pages in the cache or on loan from it.
    pub fn len(&self) -> usize {
        self.by_gref.len()
    }

    /// True when no page is in the cache or on loan.
    pub fn is_empty(&self) -> bool {
        self.by_gref.is_empty()
    }

    /// The page behind `gref`, mapped writable: out of the cache, or else mapped now. Errors: [`GrantError::Exhausted`] when it is
    /// on loan, or there is no room to keep it; the mapper's.
    pub fn lease<P: Mapper<Mapping = M>>(
        &mut self,
        mapper: &mut P,
        from: DomId,
        gref: GrantRef,
    ) -> Result<Lease<M>, GrantError> {
        if let Some(slot) = self.find(gref) {
            let mapping = self.slots[slot as usize].page.take().ok_or(GrantError::Exhausted)?;
            self.unlink(slot);
            return Ok(Lease { mapping, slot: Some(slot) });
        }
        if !self.has_room() {
            return Err(GrantError::Exhausted);
        }
        let mapping = self.map(mapper, from, gref)?;
        let slot = self.place(gref);
        Ok(Lease { mapping, slot })
    }

    /// The slot of `gref`.
    fn find(&mut self, gref: GrantRef) -> Option<u32> {
        let guess = self.slots.get(self.last as usize).map_or(END, |last| last.follower);
        let slot = match self.slots.get(guess as usize) {
            Some(slot) if slot.gref == gref => guess,
            _ => *self.by_gref.get(&gref)?,
        };
        self.follow(slot);
        Some(slot)
    }

    /// Notes that `slot` is leased after the last one.
    fn follow(&mut self, slot: u32) {
        if let Some(last) = self.slots.get_mut(self.last as usize) {
            last.follower = slot;
        }
        self.last = slot;
    }

    fn has_room(&self) -> bool {
        self.oldest != END || (self.slots.len() < self.capacity && self.budget.is_left())
    }

    /// Takes a page back: into the cache, or unmapped now.
    pub fn give_back(&mut self, lease: Lease<M>) {
        match lease.slot {
            Some(slot) => {
                self.slots[slot as usize].page = Some(lease.mapping);
                self.link(slot);
            }
            None => self.retire(lease.mapping),
        }
    }

    fn map<P: Mapper<Mapping = M>>(
        &mut self,
        mapper: &mut P,
        from: DomId,
        gref: GrantRef,
    ) -> Result<Box<M>, GrantError> {
        let mut mapping = self.spare.pop().unwrap_or_else(|| Box::new(mapper.mapping()));
        let mapped = mapper.map(from, &[gref], Access::ReadWrite, &mut mapping);
        match mapped {
            Ok(()) => Ok(mapping),
            Err(error) => {
                self.retire(mapping);
                Err(error)
            }
        }
    }

    fn retire(&mut self, mut mapping: Box<M>) {
        mapping.clear();
        if self.spare.len() < SPARES {
            self.spare.push(mapping);
        }
    }

    /// A place for a page that is not in the cache; none if all are on loan, and another thread took the last of the budget.
    fn place(&mut self, gref: GrantRef) -> Option<u32> {
        let slot = if self.slots.len() < self.capacity && self.budget.take() {
            let slot = u32::try_from(self.slots.len()).ok().filter(|slot| *slot != END)?;
            self.slots.push(Slot { gref, page: None, older: END, newer: END, follower: END });
            slot
        } else {
            let slot = self.oldest;
            let page = self.slots.get_mut(slot as usize)?.page.take()?;
            self.unlink(slot);
            let old = std::mem::replace(&mut self.slots[slot as usize].gref, gref);
            self.by_gref.remove(&old);
            self.retire(page);
            slot
        };
        self.by_gref.insert(gref, slot);
        self.follow(slot);
        Some(slot)
    }

    fn link(&mut self, slot: u32) {
        let link = &mut self.slots[slot as usize];
        (link.older, link.newer) = (self.newest, END);
        match self.slots.get_mut(self.newest as usize) {
            Some(newest) => newest.newer = slot,
            None => self.oldest = slot,
        }
        self.newest = slot;
    }

    fn unlink(&mut self, slot: u32) {
        let Slot { older, newer, .. } = self.slots[slot as usize];
        match self.slots.get_mut(older as usize) {
            Some(older) => older.newer = newer,
            None => self.oldest = newer,
        }
        match self.slots.get_mut(newer as usize) {
            Some(newer) => newer.older = older,
            None => self.newest = older,
        }
    }
}

impl<M> Drop for GrantCache<M> {
    fn drop(&mut self) {
        self.budget.give(self.slots.len());
    }
}

#[cfg(test)]
mod tests;
