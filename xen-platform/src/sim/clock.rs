//! The system's monotonic clock.

use core::time::Duration;
use std::time::Instant;

use crate::Clock;

/// Time since this clock was made; clones share their start.
#[derive(Clone, Copy, Debug)]
pub struct SimClock(Instant);

impl SimClock {
    /// A clock that starts now.
    pub fn new() -> Self {
        Self(Instant::now())
    }
}

impl Default for SimClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SimClock {
    fn now(&self) -> Duration {
        self.0.elapsed()
    }
}
