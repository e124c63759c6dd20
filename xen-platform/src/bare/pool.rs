//! The pages that can be lent: which of them are in use.
//!
//! A bit for each page, taken and given back by atomic operations, so that queues on several processors need no lock.
//!
//! Unsafe stands here because [`Pages`] are made of a bare address. What makes it sound: pages are handed out by their bits, to
//! one owner at a time, and lie in memory that the pool has for good.
#![expect(unsafe_code, reason = "pages by address; see the module documentation")]

use alloc::{boxed::Box, vec};
use core::{
    ops::Range,
    ptr::NonNull,
    sync::atomic::{AtomicU64, Ordering},
};

use blkif_proto::GrantRef;

use crate::{PAGE_SIZE, Pages, SharedMem};

/// Pages for lenders, by their numbers in the pool.
#[derive(Debug)]
pub(super) struct Pool {
    memory: SharedMem<'static>,
    used: Box<[AtomicU64]>,
}

impl Pool {
    /// All of `memory`, page aligned and not in use otherwise. `None` if it is not aligned.
    pub(super) fn new(memory: SharedMem<'static>) -> Option<Self> {
        if !memory.as_ptr().addr().is_multiple_of(PAGE_SIZE) {
            return None;
        }
        let words = (memory.len() / PAGE_SIZE).div_ceil(64);
        Some(Self { memory, used: (0..words).map(|_| AtomicU64::new(0)).collect() })
    }

    /// How many pages there are.
    pub(super) fn len(&self) -> usize {
        self.memory.len() / PAGE_SIZE
    }

    /// Takes `count` zeroed pages in a row. They are named by the number of the first.
    pub(super) fn take(&self, count: usize) -> Option<Pages> {
        let run = self.claim(count)?;
        let memory = self.memory.part(run.start * PAGE_SIZE, count * PAGE_SIZE)?;
        memory.zero();
        let base = NonNull::new(memory.as_ptr())?;
        let grants = vec![GrantRef(0); count].into_boxed_slice();
        // SAFETY: page aligned pages of the pool, there for ever; their bits were clear and are ours, so nobody else has them
        // until they are given back by number.
        Some(unsafe { Pages::from_raw(base, grants, run.start as u64, None) })
    }

    /// Gives pages back by their numbers.
    pub(super) fn give(&self, numbers: Range<usize>) {
        for number in numbers {
            self.release(number);
        }
    }

    /// The numbers of `pages`; `None` when they are not this pool's.
    pub(super) fn numbers(&self, pages: &Pages) -> Option<Range<usize>> {
        let first = usize::try_from(pages.token()).ok()?;
        let memory = self.memory.part(first.checked_mul(PAGE_SIZE)?, pages.mem().len())?;
        (memory.as_ptr() == pages.mem().as_ptr()).then_some(first..first + pages.count())
    }

    /// The address of a page.
    pub(super) fn address(&self, number: usize) -> Option<usize> {
        Some(self.memory.part(number.checked_mul(PAGE_SIZE)?, PAGE_SIZE)?.as_ptr().addr())
    }

    /// Sets the bits of `count` clear ones in a row.
    fn claim(&self, count: usize) -> Option<Range<usize>> {
        let mut first = 0usize;
        while count > 0 && first.checked_add(count)? <= self.len() {
            // Others may take pages while we look: what is in the way is where to go on.
            match (first..first + count).find(|number| !self.mark(*number)) {
                None => return Some(first..first + count),
                Some(taken) => {
                    self.give(first..taken);
                    first = taken + 1;
                }
            }
        }
        None
    }

    /// Sets a page's bit; false if it was set.
    fn mark(&self, number: usize) -> bool {
        let bit = 1 << (number % 64);
        self.used.get(number / 64).is_some_and(|word| word.fetch_or(bit, Ordering::Acquire) & bit == 0)
    }

    fn release(&self, number: usize) {
        if let Some(word) = self.used.get(number / 64) {
            word.fetch_and(!(1 << (number % 64)), Ordering::Release);
        }
    }
}

#[cfg(test)]
mod tests;
