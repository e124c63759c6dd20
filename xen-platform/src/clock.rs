//! Time, for shells only: the cores take `now` as an argument.

use core::time::Duration;
#[cfg(feature = "std")]
use std::time::Instant;

/// A monotonic clock.
///
/// Implementer: never goes back, and costs no more than a few tens of nanoseconds (it is read on the data path).
/// Caller: compare values of one clock only; the start is arbitrary.
pub trait Clock: Clone {
    /// Time since this clock's arbitrary start.
    fn now(&self) -> Duration;
}

/// The system's monotonic clock: time since it was made. Clones share their start.
#[cfg(feature = "std")]
#[derive(Clone, Copy, Debug)]
pub struct SystemClock(Instant);

#[cfg(feature = "std")]
impl Default for SystemClock {
    fn default() -> Self {
        Self(Instant::now())
    }
}

#[cfg(feature = "std")]
impl Clock for SystemClock {
    fn now(&self) -> Duration {
        self.0.elapsed()
    }
}
