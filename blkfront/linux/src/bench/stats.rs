//! What one queue's thread measures.

use std::time::Duration;

use anyhow::Context as _;
use blkfront::QueueStats;
use hdrhistogram::Histogram;

/// Latencies are kept up to this, in nanoseconds (a minute); longer ones count as this.
const LONGEST: u64 = 60_000_000_000;
/// Significant digits of a latency.
const DIGITS: u8 = 3;

/// Counts and latencies of one direction.
#[derive(Clone, Debug)]
pub(super) struct Latencies(Histogram<u64>);

impl Latencies {
    pub(super) fn new() -> anyhow::Result<Self> {
        Histogram::new_with_bounds(1, LONGEST, DIGITS).map(Self).context("making a histogram")
    }

    pub(super) fn record(&mut self, latency: Duration) {
        let nanoseconds = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX);
        self.0.saturating_record(nanoseconds.max(1));
    }

    pub(super) fn add(&mut self, other: &Self) -> anyhow::Result<()> {
        self.0.add(&other.0).context("adding histograms")
    }

    pub(super) fn count(&self) -> u64 {
        self.0.len()
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// The latency that this percentage of I/Os did not exceed, in nanoseconds.
    pub(super) fn percentile(&self, percentage: f64) -> u64 {
        self.0.value_at_percentile(percentage)
    }

    /// Least, mean and greatest, in nanoseconds.
    pub(super) fn range(&self) -> (u64, f64, u64) {
        match self.0.is_empty() {
            true => (0, 0.0, 0),
            false => (self.0.min(), self.0.mean(), self.0.max()),
        }
    }
}

/// All of one queue, measured after the warm-up.
#[derive(Clone, Debug)]
pub(super) struct Stats {
    pub(super) reads: Latencies,
    pub(super) writes: Latencies,
    /// From the end of the warm-up to the last measured completion.
    pub(super) time: Duration,
    /// The queue's own counters in that time.
    pub(super) requests: u64,
    pub(super) notifications: u64,
    pub(super) events: u64,
}

impl Stats {
    pub(super) fn new() -> anyhow::Result<Self> {
        Ok(Self {
            reads: Latencies::new()?,
            writes: Latencies::new()?,
            time: Duration::ZERO,
            requests: 0,
            notifications: 0,
            events: 0,
        })
    }

    /// Puts down what the queue counted since `before`.
    pub(super) fn counted(&mut self, before: QueueStats, after: QueueStats) {
        self.requests = after.requests.saturating_sub(before.requests);
        self.notifications = after.notifications.saturating_sub(before.notifications);
        self.events = after.events.saturating_sub(before.events);
    }

    /// Both directions together.
    pub(super) fn count(&self) -> u64 {
        self.reads.count() + self.writes.count()
    }

    pub(super) fn add(&mut self, other: &Self) -> anyhow::Result<()> {
        self.reads.add(&other.reads)?;
        self.writes.add(&other.writes)?;
        self.time = self.time.max(other.time);
        self.requests += other.requests;
        self.notifications += other.notifications;
        self.events += other.events;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
