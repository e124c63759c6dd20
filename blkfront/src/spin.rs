//! Looking for a while before sleeping, for a time that tunes itself.

use core::{hint, time::Duration};

use xen_platform::Clock;

/// Looks between two readings of the clock, which cost more than a look.
const LOOKS: u32 = 16;

/// What a sleep costs, with the event that ends it, both ends together: about.
const SLEEP: Duration = Duration::from_micros(6);

/// How long looking has paid lately, and how fast answers came.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Spinner {
    budget: Duration,
    /// Between two completions, on average.
    pace: Duration,
    completed: u64,
    since: Duration,
}

impl Spinner {
    /// Takes note of how many I/Os were `completed` until `now`. False when they come so slowly that sleeping until the next costs less than
    /// looking for it.
    pub(crate) fn is_cheaper(&mut self, completed: u64, now: Duration) -> bool {
        let fresh = u32::try_from(completed.saturating_sub(self.completed)).unwrap_or(u32::MAX);
        if fresh > 0 {
            // One long pause says little of what comes after it.
            let each = (now.saturating_sub(self.since) / fresh).min(SLEEP * 4);
            self.pace = (self.pace * 15 + each) / 16;
            (self.completed, self.since) = (completed, now);
        }
        self.pace < SLEEP
    }

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
