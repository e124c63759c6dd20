//! Which block comes next, and whether it is read or written.

/// One queue's sequence of I/Os: pure numbers, the same for the same seed.
#[derive(Clone, Debug)]
pub(super) struct Pattern {
    random: bool,
    /// Of 2^32: how often a read comes.
    reads: u64,
    first: u64,
    count: u64,
    next: u64,
    state: u64,
}

impl Pattern {
    /// The sequence of queue `index` of `queues` over `blocks` blocks. Random I/Os go all over the disk; sequential ones
    /// through a part of it that is each queue's own. `reads` is a percentage.
    pub(super) fn new(random: bool, reads: u8, blocks: u64, index: u64, queues: u64, seed: u64) -> Self {
        let share = blocks / queues.max(1);
        let (first, count) = if random { (0, blocks) } else { (share * index, share) };
        // The state must not be zero; neighbouring seeds and queues must not look alike.
        let state = (seed << 8 ^ index).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut pattern = Self {
            random,
            reads: (u64::from(reads) << 32) / 100,
            first,
            count: count.max(1),
            next: 0,
            state,
        };
        for _ in 0..16 {
            pattern.number();
        }
        pattern
    }

    /// The next block and whether it is to be read.
    pub(super) fn next(&mut self) -> (u64, bool) {
        let number = self.number();
        let read = number & 0xffff_ffff < self.reads;
        let block = if self.random {
            // The upper half of the product is the number scaled to the count.
            ((u128::from(number) * u128::from(self.count)) >> 64) as u64
        } else {
            let block = self.next;
            self.next = if block + 1 == self.count { 0 } else { block + 1 };
            block
        };
        (self.first + block, read)
    }

    /// xorshift64* (Marsaglia, Vigna): fast, and good enough to spread I/Os.
    fn number(&mut self) -> u64 {
        self.state ^= self.state >> 12;
        self.state ^= self.state << 25;
        self.state ^= self.state >> 27;
        self.state.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }
}

#[cfg(test)]
mod tests;
