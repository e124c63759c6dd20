//! Which block comes next, and whether it is read or written.

use crate::random::{Random, scaled};

/// One queue's sequence of I/Os: pure numbers, the same for the same seed.
#[derive(Clone, Debug)]
pub struct Pattern {
    random: bool,
    /// Of 2^32: how often a read comes.
    reads: u64,
    first: u64,
    count: u64,
    next: u64,
    numbers: Random,
}

impl Pattern {
    /// The sequence of queue `index` of `queues` over `blocks` blocks. Random I/Os go all over the disk; sequential ones
    /// through a part of it that is each queue's own. `reads` is a percentage.
    pub fn new(random: bool, reads: u8, blocks: u64, index: u64, queues: u64, seed: u64) -> Self {
        let share = blocks / queues.max(1);
        let (first, count) = if random { (0, blocks) } else { (share * index, share) };
        Self {
            random,
            reads: (u64::from(reads) << 32) / 100,
            first,
            count: count.max(1),
            next: 0,
            numbers: Random::new(seed, index),
        }
    }

    /// The next block and whether it is to be read.
    #[inline]
    pub fn next_block(&mut self) -> (u64, bool) {
        let number = self.numbers.number();
        let read = number & 0xffff_ffff < self.reads;
        let block = if self.random {
            scaled(number, self.count)
        } else {
            let block = self.next;
            self.next = if block + 1 == self.count { 0 } else { block + 1 };
            block
        };
        (self.first + block, read)
    }
}

#[cfg(test)]
mod tests;
