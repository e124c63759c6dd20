//! How long things took: a fixed number of buckets, each twice as wide as the one before.

use std::time::Duration;

use super::Counter;

/// Buckets but the last: the first ends at 1 µs, the last at 16.8 s.
const BUCKETS: usize = 25;

/// Durations that one thread counts, and any may read.
#[derive(Debug, Default)]
pub struct Histogram {
    /// How many took less than 1 µs, 2 µs, 4 µs and so on, and longer than all that.
    counts: [Counter; BUCKETS + 1],
    /// Nanoseconds in all.
    nanos: Counter,
}

/// What a [`Histogram`] held when it was read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    counts: [u64; BUCKETS + 1],
    nanos: u64,
}

impl Histogram {
    /// Counts `n` that took `time` each. Only the owning thread may call this.
    #[inline]
    pub fn record(&self, time: Duration, n: u64) {
        let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let bucket = (u64::BITS - (nanos / 1000).leading_zeros()) as usize;
        if let Some(count) = self.counts.get(bucket.min(BUCKETS)) {
            count.add(n);
            self.nanos.add(nanos.saturating_mul(n));
        }
    }

    /// What is in it now. What is counted meanwhile may be in it or not.
    pub fn read(&self) -> Reading {
        Reading { counts: self.counts.each_ref().map(Counter::get), nanos: self.nanos.get() }
    }
}

impl Reading {
    /// How many there are in all.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// How long they took together, in seconds.
    pub fn seconds(&self) -> f64 {
        Duration::from_nanos(self.nanos).as_secs_f64()
    }

    /// Each bucket's upper end in seconds, infinite for the last, and how many are in it.
    pub fn buckets(&self) -> [(f64, u64); BUCKETS + 1] {
        std::array::from_fn(|at| {
            let end = if at < BUCKETS { (1u64 << at) as f64 / 1e6 } else { f64::MAX };
            (end, self.counts.get(at).copied().unwrap_or_default())
        })
    }

    /// What was added since `earlier` was read.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let mut since = self.clone();
        for (now, before) in since.counts.iter_mut().zip(&earlier.counts) {
            *now = now.wrapping_sub(*before);
        }
        since.nanos = self.nanos.wrapping_sub(earlier.nanos);
        since
    }

    /// The time within which a part of them was done, from 0 to 1: the end of the bucket, in seconds; none of nothing.
    pub fn quantile(&self, part: f64) -> Option<f64> {
        let wanted = self.count() as f64 * part;
        let mut sum = 0;
        let within = |(end, count): (f64, u64)| {
            sum += count;
            (count > 0 && sum as f64 >= wanted).then_some(end)
        };
        self.buckets().into_iter().find_map(within)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_bucket_is_twice_as_wide() {
        let histogram = Histogram::default();
        for (nanos, n) in [(0, 1), (999, 1), (1000, 2), (1999, 1), (2000, 1), (16_777_215_999, 1)] {
            histogram.record(Duration::from_nanos(nanos), n);
        }
        histogram.record(Duration::from_secs(17), 3);
        histogram.record(Duration::MAX, 0);
        let reading = histogram.read();
        let buckets = reading.buckets();
        assert_eq!(buckets[0], (1e-6, 2));
        assert_eq!(buckets[1], (2e-6, 3));
        assert_eq!(buckets[2], (4e-6, 1));
        assert_eq!(buckets[24], (16.777_216, 1));
        assert_eq!(buckets[25], (f64::MAX, 3));
        assert_eq!(reading.count(), 10);
        assert!((reading.seconds() - 67.777_223).abs() < 1e-6);
        assert_eq!((reading.quantile(0.5), reading.quantile(1.0)), (Some(2e-6), Some(f64::MAX)));
        assert_eq!(Reading::default().quantile(0.5), None);
        histogram.record(Duration::from_micros(3), 1);
        assert_eq!(histogram.read().since(&reading).quantile(0.99), Some(4e-6));
    }
}
