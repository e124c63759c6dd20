//! Limits: operations and bytes per second, for a disk and for the disks of a group.
//!
//! ```text
//!   queue ──Gate──┬─ Share ─▶ Throttle of the disk ─┬ operations: all, read, write ┐
//!   queue ──Gate──┤                                 └ bytes:      all, read, write ┴ a Bucket each
//!                 └─ Share of the disk ─▶ Throttle of the group
//! ```
//!
//! A request may go while no bucket that it takes from is in debt, and takes what it needs, also if that is more than there is: the
//! bucket is in debt then, and shut until it is paid. So large requests pass, however small the burst, and the rate is kept.
//!
//! Pure: the time comes as an argument, and whoever may not go is told when to ask again. Several threads ask at once; there are no
//! locks to wait for, and what two of them take at the same instant is owed.

use std::{
    sync::{
        RwLock, Weak,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

mod bucket;
mod gate;
mod rates;
mod share;

pub use gate::{DiskThrottle, Gate};
pub use rates::Rates;
pub use share::Share;

use bucket::Bucket;
use share::Used;

/// What of a limit a request counts for. Flushes and discards count as writes of no bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Moves data to the guest.
    Read,
    /// Everything else.
    Write,
}

/// One set of limits, in force and shared by threads.
#[derive(Debug, Default)]
pub struct Throttle {
    /// Nanoseconds; 0: there is no limit at all.
    burst: AtomicU64,
    operations: Buckets,
    bytes: Buckets,
    /// How far in this throttle's time that party is that has had most.
    latest: AtomicU64,
    parties: RwLock<Vec<Weak<Used>>>,
}

/// A limit for both kinds together, and one for each.
#[derive(Debug, Default)]
struct Buckets {
    all: Bucket,
    read: Bucket,
    write: Bucket,
}

impl Buckets {
    fn of(&self, kind: Kind) -> [&Bucket; 2] {
        let one = match kind {
            Kind::Read => &self.read,
            Kind::Write => &self.write,
        };
        [&self.all, one]
    }
}

impl Throttle {
    /// One in which `rates` are in force.
    pub fn new(rates: &Rates) -> Self {
        let throttle = Self::default();
        throttle.set(rates, Duration::ZERO);
        throttle
    }

    /// Puts `rates` in force, whatever is under way: requests that are held are asked for again within a tenth of a second. `now` is
    /// of the clock by which requests pass; at any other time nothing is carried over from the rates before.
    pub fn set(&self, rates: &Rates, now: Duration) {
        let (Self { operations, bytes, .. }, now) = (self, nanos(now));
        for (bucket, rate) in [
            (&operations.all, rates.iops),
            (&operations.read, rates.read_iops),
            (&operations.write, rates.write_iops),
            (&bytes.all, rates.bytes),
            (&bytes.read, rates.read_bytes),
            (&bytes.write, rates.write_bytes),
        ] {
            bucket.set_rate(rate.unwrap_or(0), now);
        }
        self.burst.store(if rates.is_none() { 0 } else { nanos(rates.burst()) }, Relaxed);
    }

    /// What is in force.
    pub fn rates(&self) -> Rates {
        let limit = |bucket: &Bucket| Some(bucket.rate()).filter(|rate| *rate > 0);
        let Self { operations, bytes, .. } = self;
        Rates {
            iops: limit(&operations.all),
            read_iops: limit(&operations.read),
            write_iops: limit(&operations.write),
            bytes: limit(&bytes.all),
            read_bytes: limit(&bytes.read),
            write_bytes: limit(&bytes.write),
            burst_ms: self.is_on().then(|| self.burst() / 1_000_000),
        }
    }

    /// A share of it, for one more party.
    pub fn join(self: &std::sync::Arc<Self>) -> Share {
        Share::new(std::sync::Arc::clone(self))
    }

    /// False when everything may pass.
    #[inline]
    pub fn is_on(&self) -> bool {
        self.burst() > 0
    }

    fn burst(&self) -> u64 {
        self.burst.load(Relaxed)
    }

    /// The four buckets that requests take from, and how much.
    fn fares(&self, kind: Kind, fare: Fare) -> [(&Bucket, u64); 4] {
        let ([all, one], [every, each]) = (self.operations.of(kind), self.bytes.of(kind));
        [(all, fare.operations), (one, fare.operations), (every, fare.bytes), (each, fare.bytes)]
    }

    /// When a request may go, as far as this throttle is concerned.
    fn opens(&self, kind: Kind) -> u64 {
        let burst = self.burst();
        self.fares(kind, Fare::default())
            .map(|(bucket, _)| bucket.opens(burst))
            .into_iter()
            .max()
            .unwrap_or(0)
    }

    /// True when all of it may go at once, and is little.
    fn affords(&self, kind: Kind, fare: Fare, now: u64) -> bool {
        let burst = self.burst();
        self.fares(kind, fare).into_iter().all(|(bucket, tokens)| bucket.affords(tokens, burst, now))
    }

    /// Takes what requests need. Returns how much of this throttle's time that is, in nanoseconds.
    fn take(&self, kind: Kind, fare: Fare, now: u64) -> u64 {
        self.fares(kind, fare).map(|(bucket, tokens)| bucket.take(tokens, now)).into_iter().max().unwrap_or(0)
    }

    /// Gives it back. Returns how much of this throttle's time that is.
    fn refund(&self, kind: Kind, fare: Fare) -> u64 {
        self.fares(kind, fare).map(|(bucket, tokens)| bucket.refund(tokens)).into_iter().max().unwrap_or(0)
    }
}

/// What requests of one kind need.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Fare {
    operations: u64,
    bytes: u64,
}

/// Nanoseconds since a clock's start: enough for five hundred years.
fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
