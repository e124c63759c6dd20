//! How long to keep looking for work before going to sleep: bounded, and tuned by what sleeping would have missed.

use std::time::{Duration, Instant};

/// Adaptive polling. While it polls, no ring is armed, so frontends send no notifications.
#[derive(Debug)]
pub(super) struct Poll {
    limit: Duration,
    window: Duration,
    idle_since: Option<Instant>,
    /// Looks since the clock was looked at.
    looks: u32,
}

/// The shortest window that is worth its look at the clock.
const LEAST: Duration = Duration::from_micros(4);
/// Looks for work to one at the clock, which in a PV domain costs a system call.
const LOOKS: u32 = 16;

impl Poll {
    /// Polls for at most `limit` after the last work; zero turns polling off.
    pub(super) fn new(limit: Duration) -> Self {
        Self { limit, window: limit, idle_since: None, looks: 0 }
    }

    /// False when it never polls, and need not be told how long a sleep was.
    pub(super) fn is_on(&self) -> bool {
        !self.limit.is_zero()
    }

    /// There was work.
    pub(super) fn found_work(&mut self) {
        self.idle_since = None;
    }

    /// There was none: true to look again, false to sleep.
    pub(super) fn look_again(&mut self, now: impl FnOnce() -> Instant) -> bool {
        if !self.is_on() {
            return false;
        }
        self.looks = (self.looks + 1) % LOOKS;
        if self.idle_since.is_some() && self.looks != 0 {
            return true;
        }
        self.looks = 0;
        let now = now();
        let since = *self.idle_since.get_or_insert(now);
        now.saturating_duration_since(since) < self.window
    }

    /// The thread slept this long. Had it been little, looking on would have been better; had it been much, looking at all
    /// was in vain.
    pub(super) fn slept(&mut self, time: Duration) {
        self.idle_since = None;
        let window = if time <= self.limit { self.window * 2 } else { self.window / 2 };
        self.window = window.clamp(LEAST.min(self.limit), self.limit);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_micros(64);

    #[test]
    fn looks_until_the_window_has_passed() {
        let start = Instant::now();
        let mut poll = Poll::new(LIMIT);
        assert!(poll.look_again(|| start));
        let mut look = |at: Duration| (0..LOOKS).all(|_| poll.look_again(|| start + at));
        assert!(look(LIMIT / 2));
        assert!(!look(LIMIT));
        poll.found_work();
        assert!(poll.look_again(|| start + LIMIT * 2));
        assert!((1..LOOKS).all(|_| poll.look_again(|| unreachable!("the clock"))));
    }

    #[test]
    fn long_sleeps_shorten_the_window_and_short_ones_widen_it() {
        let mut poll = Poll::new(LIMIT);
        (0..10).for_each(|_| poll.slept(Duration::from_secs(1)));
        assert_eq!(poll.window, LEAST);
        (0..10).for_each(|_| poll.slept(LIMIT / 2));
        assert_eq!(poll.window, LIMIT);
    }

    #[test]
    fn zero_never_looks_at_the_clock() {
        let mut poll = Poll::new(Duration::ZERO);
        assert!(!poll.is_on());
        assert!(!poll.look_again(|| unreachable!("the clock")));
    }
}
