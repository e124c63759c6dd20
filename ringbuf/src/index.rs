//! Ring indices and every bit of arithmetic on them that wraps.

use core::fmt;

/// A free-running position in a ring: counts entries since the start, modulo 2^32.
///
/// Indices have no order, only distances ([`Index::since`]), so the type offers no comparison but equality.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Index(u32);

impl Index {
    /// Where the frontend starts every ring (`SHARED_RING_INIT` of Xen's `io/ring.h`).
    pub const START: Self = Self(0);

    /// The index with this raw value; every value is one.
    #[must_use]
    pub const fn new(raw: u32) -> Self {
        Self(raw)
    }

    /// The raw value, as it lies in the shared page.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0
    }

    /// The index `entries` further on.
    #[inline]
    #[must_use]
    pub const fn plus(self, entries: u32) -> Self {
        Self(self.0.wrapping_add(entries))
    }

    /// Entries from `earlier` up to here. Enormous (over 2^31) if `earlier` is in truth the later one, so one
    /// comparison with the ring's size finds a peer's index that jumped in either direction.
    #[inline]
    #[must_use]
    pub const fn since(self, earlier: Self) -> u32 {
        self.0.wrapping_sub(earlier.0)
    }

    /// Whether a producer that moved from `old` to here passed `event`, the index its consumer waits for.
    ///
    /// This is the test of `RING_PUSH_*_AND_CHECK_NOTIFY` in Xen's `io/ring.h`: is `event` in (`old`, here]?
    #[inline]
    #[must_use]
    pub const fn passed(self, event: Self, old: Self) -> bool {
        self.since(event) < self.since(old)
    }

    /// The slot, from 0, in a ring of `mask + 1` slots (a power of two).
    #[inline]
    pub(crate) const fn masked(self, mask: u32) -> u32 {
        self.0 & mask
    }
}

impl fmt::Debug for Index {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#010x}", self.0)
    }
}

#[cfg(test)]
mod tests;
