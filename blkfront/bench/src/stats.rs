//! What is counted while measuring.

use alloc::{vec, vec::Vec};
use core::time::Duration;

use blkfront::QueueStats;

/// Latencies are kept up to this, in nanoseconds (a minute); longer ones count as this.
const LONGEST: u64 = 60_000_000_000;
/// A power of two is divided into 2^10 steps up to the next: three significant digits.
const STEPS: u32 = 10;

/// How often which latency was seen, in one direction.
#[derive(Clone, Debug)]
pub struct Latencies {
    /// Up to 2^11 nanoseconds a place for each, then a place for 2, for 4, and so on.
    places: Vec<u64>,
    count: u64,
    sum: u128,
    min: u64,
    max: u64,
}

impl Default for Latencies {
    fn default() -> Self {
        Self { places: vec![0; place(LONGEST) + 1], count: 0, sum: 0, min: u64::MAX, max: 0 }
    }
}

impl Latencies {
    /// One more.
    #[inline]
    pub fn record(&mut self, latency: Duration) {
        let nanoseconds = u64::try_from(latency.as_nanos()).unwrap_or(LONGEST).clamp(1, LONGEST);
        if let Some(count) = self.places.get_mut(place(nanoseconds)) {
            *count += 1;
        }
        self.count += 1;
        self.sum += u128::from(nanoseconds);
        self.min = self.min.min(nanoseconds);
        self.max = self.max.max(nanoseconds);
    }

    /// Those of another queue, too.
    pub fn add(&mut self, other: &Self) {
        self.places.iter_mut().zip(&other.places).for_each(|(mine, theirs)| *mine += theirs);
        self.count += other.count;
        self.sum += other.sum;
        self.min = self.min.min(other.min);
        self.max = self.max.max(other.max);
    }

    /// How many.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Forgets all.
    pub fn clear(&mut self) {
        self.places.fill(0);
        *self = Self { places: core::mem::take(&mut self.places), count: 0, sum: 0, min: u64::MAX, max: 0 };
    }

    /// The latency that so many of 10,000 I/Os did not exceed, in nanoseconds.
    pub fn quantile(&self, of_10_000: u64) -> u64 {
        let rank = (u128::from(self.count) * u128::from(of_10_000)).div_ceil(10_000).max(1);
        let mut seen = 0;
        let reached = |count: &u64| {
            seen += u128::from(*count);
            seen >= rank
        };
        self.places.iter().position(reached).map_or(0, |place| greatest(place).clamp(self.min, self.max))
    }

    /// Least, mean and greatest, in nanoseconds.
    pub fn range(&self) -> (u64, f64, u64) {
        match self.count {
            0 => (0, 0.0, 0),
            count => (self.min, mean(self.sum, count), self.max),
        }
    }
}

/// Where a latency is counted.
#[inline]
fn place(nanoseconds: u64) -> usize {
    let coarse = nanoseconds.max(1).ilog2().saturating_sub(STEPS);
    usize::try_from((u64::from(coarse) << STEPS) + (nanoseconds >> coarse)).unwrap_or(usize::MAX)
}

/// The greatest latency that is counted there.
fn greatest(place: usize) -> u64 {
    let place = place as u64;
    let coarse = (place >> STEPS).saturating_sub(1);
    ((place - (coarse << STEPS) + 1) << coarse) - 1
}

#[expect(clippy::cast_precision_loss, reason = "shown with three digits")]
fn mean(sum: u128, count: u64) -> f64 {
    sum as f64 / count as f64
}

/// All that was measured after the warm-up.
#[derive(Clone, Debug, Default)]
pub struct Stats {
    /// Latencies of reads.
    pub reads: Latencies,
    /// Latencies of everything else.
    pub writes: Latencies,
    /// From the end of the warm-up to the last measured completion.
    pub time: Duration,
    /// Ring requests in that time.
    pub requests: u64,
    /// Notifications sent in that time.
    pub notifications: u64,
    /// Events received in that time.
    pub events: u64,
}

impl Stats {
    /// Adds what a queue counted since `before`.
    pub fn counted(&mut self, before: QueueStats, after: QueueStats) {
        self.requests += after.requests.saturating_sub(before.requests);
        self.notifications += after.notifications.saturating_sub(before.notifications);
        self.events += after.events.saturating_sub(before.events);
    }

    /// Both directions together.
    pub fn count(&self) -> u64 {
        self.reads.count() + self.writes.count()
    }

    /// Adds what another thread measured at the same time.
    pub fn add(&mut self, other: &Self) {
        self.reads.add(&other.reads);
        self.writes.add(&other.writes);
        self.time = self.time.max(other.time);
        self.requests += other.requests;
        self.notifications += other.notifications;
        self.events += other.events;
    }
}

#[cfg(test)]
mod tests;
