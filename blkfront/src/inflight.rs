//! Tables of what is under way: a fixed number of slots, and ids that a hostile peer cannot forge into anything worse than an
//! error.
//!
//! An id is the slot's number in the low 16 bits and the slot's generation above. The generation moves on whenever the slot
//! is emptied, so a response to a request that has been answered, or to one that never was, names nothing.

use alloc::{boxed::Box, vec::Vec};

/// Most slots of a table: their numbers take 16 bits of an id. The largest ring has 1024 entries.
const MAX_SLOTS: usize = 1 << 16;

/// Requests (or I/Os) under way. Never allocates after it was made.
#[derive(Debug)]
pub(crate) struct Inflight<T> {
    slots: Box<[Slot<T>]>,
    /// Numbers of the empty slots; the last is taken first, so that few slots stay warm in the cache.
    free: Vec<u16>,
}

#[derive(Debug)]
struct Slot<T> {
    generation: u64,
    value: Option<T>,
}

impl<T> Inflight<T> {
    /// A table of `slots` empty slots.
    pub(crate) fn new(slots: usize) -> Self {
        let slots = slots.min(MAX_SLOTS);
        #[expect(clippy::cast_possible_truncation, reason = "capped at 2^16 above")]
        let free = (0..slots).rev().map(|slot| slot as u16).collect();
        Self { slots: (0..slots).map(|_| Slot { generation: 1, value: None }).collect(), free }
    }

    /// Puts a value into an empty slot and names it; gives it back when there is none.
    #[inline]
    pub(crate) fn insert(&mut self, value: T) -> Result<u64, T> {
        let Some(number) = self.free.pop() else { return Err(value) };
        let Some(slot) = self.slots.get_mut(usize::from(number)) else { return Err(value) };
        slot.value = Some(value);
        Ok(slot.generation << 16 | u64::from(number))
    }

    /// Empties the slot that `id` names; `None` when it names no value of ours.
    #[inline]
    pub(crate) fn take(&mut self, id: u64) -> Option<T> {
        let number = slot_of(id);
        let slot = self.slots.get_mut(usize::from(number))?;
        if slot.generation << 16 | u64::from(number) != id {
            return None;
        }
        let value = slot.value.take()?;
        slot.generation += 1;
        self.free.push(number);
        Some(value)
    }

    /// The value that `id` names.
    #[inline]
    pub(crate) fn get_mut(&mut self, id: u64) -> Option<&mut T> {
        let number = slot_of(id);
        let slot = self.slots.get_mut(usize::from(number))?;
        if slot.generation << 16 | u64::from(number) != id {
            return None;
        }
        slot.value.as_mut()
    }

    /// The values, each with its id, by slot number.
    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = (u64, &mut T)> {
        self.slots.iter_mut().enumerate().filter_map(|(number, slot)| {
            let id = slot.generation << 16 | number as u64;
            slot.value.as_mut().map(|value| (id, value))
        })
    }

    /// Empties every slot.
    pub(crate) fn clear(&mut self) {
        for number in 0..self.slots.len() {
            let id = self.slots[number].generation << 16 | number as u64;
            drop(self.take(id));
        }
    }

    /// Number of values.
    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Number of slots.
    #[inline]
    pub(crate) fn capacity(&self) -> usize {
        self.slots.len()
    }
}

/// The slot's number within an id.
#[inline]
#[expect(clippy::cast_possible_truncation, reason = "the low 16 bits are the slot")]
pub(crate) fn slot_of(id: u64) -> u16 {
    id as u16
}

#[cfg(test)]
mod tests;
