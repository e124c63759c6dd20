//! Time, for shells only: the cores take `now` as an argument.

use core::time::Duration;

/// A monotonic clock.
///
/// Implementer: never goes back, and costs no more than a few tens of nanoseconds (it is read on the data path).
/// Caller: compare values of one clock only; the start is arbitrary.
pub trait Clock: Clone {
    /// Time since this clock's arbitrary start.
    fn now(&self) -> Duration;
}
