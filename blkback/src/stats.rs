//! Counters at the borders of the stages. One thread writes each of them, any may read.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

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

    /// The number.
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// What one worker thread has done.
#[derive(Debug, Default)]
pub struct WorkerStats {
    /// Batches of requests or completions handled.
    pub batches: Counter,
    /// System calls to start or await disk operations.
    pub storage_calls: Counter,
    /// Times it went to sleep.
    pub sleeps: Counter,
    /// Queues it serves now.
    pub queues: AtomicU64,
}

/// What one queue has carried.
#[derive(Debug, Default)]
pub struct QueueStats {
    /// Requests taken out of the ring.
    pub requests: Counter,
    /// Batches of answers published.
    pub batches: Counter,
    /// Notifications sent to the frontend.
    pub notifications: Counter,
    /// Events received from the frontend.
    pub events: Counter,
    /// Bytes read from the disk.
    pub bytes_read: Counter,
    /// Bytes written to the disk.
    pub bytes_written: Counter,
    /// Requests answered with anything but okay.
    pub failures: Counter,
    /// Pages kept mapped between requests.
    pub persistent_pages: Counter,
}

impl QueueStats {
    /// All counters, by name.
    pub fn counters(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let all = [
            ("requests", &self.requests),
            ("batches", &self.batches),
            ("notifications", &self.notifications),
            ("events", &self.events),
            ("bytes-read", &self.bytes_read),
            ("bytes-written", &self.bytes_written),
            ("failures", &self.failures),
            ("persistent-pages", &self.persistent_pages),
        ];
        all.into_iter().map(|(name, counter)| (name, counter.get()))
    }
}
