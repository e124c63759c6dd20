//! Counters at the borders of the stages. One thread writes each of them, any may read.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

mod histogram;

pub use histogram::{Histogram, Reading};

/// A number that only grows, written by one thread.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `n`. Only the owning thread may call this; a plain load and store is cheaper than an atomic addition.
    #[inline]
    pub fn add(&self, n: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(n), Relaxed);
    }

    /// Takes a value over from a counter kept elsewhere.
    pub fn set(&self, n: u64) {
        self.0.store(n, Relaxed);
    }

    /// Adds a time, in nanoseconds. As [`add`](Self::add).
    pub fn add_time(&self, time: Duration) {
        self.add(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
    }

    /// The number.
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// What one worker thread has done.
#[derive(Debug, Default)]
pub struct WorkerStats {
    /// What it measures.
    pub watch: Watch,
    /// Batches of requests or completions handled.
    pub batches: Counter,
    /// System calls to start or await disk operations.
    pub storage_calls: Counter,
    /// Times it went to sleep.
    pub sleeps: Counter,
    /// Queues it serves now.
    pub queues: AtomicU64,
}

/// How much is measured beside what is counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Watch {
    /// The clock is looked at once for each stage and batch: for [`Stages`] and [`QueueStats::ring_full`].
    pub timed: bool,
    /// A request that takes this long is told of in the log; none is if this is none. Only where it is `timed`.
    pub slow: Option<Duration>,
}

/// How long requests were in each stage. What is measured for a batch counts for each request in it.
///
/// ```text
///   notification, or looked at  taken, may go     storage     all of the batch back      answers
///   and left in the ring        and is alone      gets it     from the storage, copied   published
///        └────────── ring ─────────────┴─── data ─────┴─ storage ─┴───── data ────┴── respond ──┘
/// ```
#[derive(Debug, Default)]
pub struct Stages {
    /// In the ring or held: from when the worker woke for it, or left it in the ring, at the latest, until it was taken out and might go, by
    /// its limits and by barriers. Nothing, for what was found in a ring that is looked at all the time.
    pub ring: Histogram,
    /// Getting at the data: pages mapped or copied from the guest before the storage gets it, and given back or copied to the guest after.
    pub data: Histogram,
    /// From when the storage got it until it was reaped, all of its steps.
    pub storage: Histogram,
    /// From the end of `data` until its answer was published and the guest notified.
    pub respond: Histogram,
}

/// Requests that went well, by what they were. Barriers count as writes, and as flushes if they have no data.
#[derive(Debug, Default)]
pub struct Done {
    /// Reads.
    pub reads: Counter,
    /// Writes.
    pub writes: Counter,
    /// Flushes.
    pub flushes: Counter,
    /// Discards.
    pub discards: Counter,
}

/// Requests that failed, by what was in the way.
#[derive(Debug, Default)]
pub struct Failed {
    /// What the guest asked for: it had no right to that, or it makes no sense.
    pub refused: Counter,
    /// The guest's pages.
    pub grants: Counter,
    /// Our memory.
    pub memory: Counter,
    /// The storage.
    pub storage: Counter,
}

/// How data reached pages that guests granted, in pages.
#[derive(Debug, Default)]
pub struct Grants {
    /// Copied by the hypervisor, or the simulator in its place.
    pub copied: Counter,
    /// Mapped for one request.
    pub mapped: Counter,
    /// Found mapped, or mapped to stay.
    pub persistent: Counter,
}

/// What one queue has carried.
#[derive(Debug, Default)]
pub struct QueueStats {
    /// Requests taken out of the ring.
    pub requests: Counter,
    /// Those of them that are not answered yet.
    pub in_flight: Counter,
    /// Requests that went well.
    pub done: Done,
    /// Requests answered with anything but okay.
    pub failed: Failed,
    /// Bytes read from the disk.
    pub bytes_read: Counter,
    /// Bytes written to the disk.
    pub bytes_written: Counter,
    /// Bytes discarded.
    pub bytes_discarded: Counter,
    /// Batches of answers published.
    pub batches: Counter,
    /// Notifications sent to the frontend; batches without one needed none.
    pub notifications: Counter,
    /// Events received from the frontend.
    pub events: Counter,
    /// Nanoseconds in which the frontend had no room for another request, as the worker saw it.
    pub ring_full: Counter,
    /// Requests that had to wait for limits.
    pub held: Counter,
    /// How data reached the guest's pages.
    pub grants: Grants,
    /// Pages kept mapped between requests.
    pub persistent_pages: Counter,
    /// How long it took.
    pub stages: Stages,
}

impl QueueStats {
    /// All counters, by name.
    pub fn counters(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let all = [
            ("requests", &self.requests),
            ("in-flight", &self.in_flight),
            ("reads", &self.done.reads),
            ("writes", &self.done.writes),
            ("flushes", &self.done.flushes),
            ("discards", &self.done.discards),
            ("bytes-read", &self.bytes_read),
            ("bytes-written", &self.bytes_written),
            ("bytes-discarded", &self.bytes_discarded),
            ("failed-refused", &self.failed.refused),
            ("failed-grants", &self.failed.grants),
            ("failed-memory", &self.failed.memory),
            ("failed-storage", &self.failed.storage),
            ("batches", &self.batches),
            ("notifications", &self.notifications),
            ("events", &self.events),
            ("ring-full-ns", &self.ring_full),
            ("held", &self.held),
            ("grants-copied", &self.grants.copied),
            ("grants-mapped", &self.grants.mapped),
            ("grants-persistent", &self.grants.persistent),
            ("persistent-pages", &self.persistent_pages),
        ];
        let sum = ("failures", self.failures());
        all.into_iter().map(|(name, counter)| (name, counter.get())).chain([sum])
    }

    /// Requests answered with anything but okay.
    pub fn failures(&self) -> u64 {
        let Failed { refused, grants, memory, storage } = &self.failed;
        [refused, grants, memory, storage].map(Counter::get).iter().sum()
    }
}
