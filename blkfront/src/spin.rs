//! Looking for a while before sleeping, for a time that tunes itself.

use core::{hint, time::Duration};

use xen_platform::Clock;

/// Looks between two readings of the clock, which cost more than a look.
const LOOKS: u32 = 16;

/// How long looking has paid lately.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Spinner {
    budget: Duration,
}

impl Spinner {
    /// Looks until `ready` is true or fails, at most for the present budget, which stays between a sixteenth of `limit` and
    /// `limit`: it doubles when looking paid, and halves when it did not.
    pub(crate) fn spin<E>(
        &mut self,
        limit: Duration,
        clock: &impl Clock,
        mut ready: impl FnMut() -> Result<bool, E>,
    ) -> Result<bool, E> {
        if limit.is_zero() {
            return ready();
        }
        self.budget = self.budget.clamp(limit / 16, limit);
        let end = clock.now().saturating_add(self.budget);
        // A clock that stands still (the model's) must not keep us here: a look takes some nanoseconds.
        let mut rounds = self.budget.as_nanos() / u128::from(4 * LOOKS) + 1;
        loop {
            for _ in 0..LOOKS {
                if ready()? {
                    self.budget = (self.budget * 2).min(limit);
                    return Ok(true);
                }
                hint::spin_loop();
            }
            rounds -= 1;
            if rounds == 0 || clock.now() >= end {
                self.budget = (self.budget / 2).max(limit / 16);
                return Ok(false);
            }
        }
    }
}

#[cfg(test)]
mod tests;
