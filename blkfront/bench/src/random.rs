//! Numbers that look random and come again with their seed.

/// One sequence of numbers.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// Sequence `stream` of `seed`; neighbouring seeds and streams do not look alike.
    pub fn new(seed: u64, stream: u64) -> Self {
        // Zero would stay zero.
        let mut this = Self((seed << 8 ^ stream).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        for _ in 0..16 {
            this.number();
        }
        this
    }

    /// Any number. xorshift64* (Marsaglia, Vigna): fast, and good enough to spread I/Os.
    #[inline]
    pub fn number(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number less than `count`; 0 if that is 0.
    #[inline]
    pub fn below(&mut self, count: u64) -> u64 {
        scaled(self.number(), count)
    }
}

/// `number`, out of all there are, brought down to less than `count`.
#[inline]
pub(crate) fn scaled(number: u64, count: u64) -> u64 {
    // The upper half of the product.
    ((u128::from(number) * u128::from(count)) >> 64) as u64
}
