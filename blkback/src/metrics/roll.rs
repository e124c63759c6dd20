//! Where the counters are of everything that is served.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::stats::{QueueStats, WorkerStats};

/// Names a queue, as monitoring does.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Label {
    /// The guest's number.
    pub domain: String,
    /// The disk's number.
    pub device: String,
    /// The queue's, from 0.
    pub queue: u32,
}

/// All queues that are served, and all threads.
#[derive(Debug, Default)]
pub struct Roll {
    queues: Mutex<BTreeMap<(Label, u64), Arc<QueueStats>>>,
    workers: Vec<Arc<WorkerStats>>,
}

/// A queue's place in the roll, which it leaves when this is dropped.
#[derive(Debug)]
pub struct Entry {
    roll: Arc<Roll>,
    key: (Label, u64),
}

impl Roll {
    /// One with these threads, and no queues yet.
    pub fn new(workers: Vec<Arc<WorkerStats>>) -> Self {
        Self { queues: Mutex::default(), workers }
    }

    /// Takes a queue in. `connection` is any number that no other queue of the same name has at the time: a guest may be connected anew
    /// before all that it had is gone.
    pub fn enter(self: &Arc<Self>, label: Label, connection: u64, stats: &Arc<QueueStats>) -> Entry {
        let key = (label, connection);
        self.lock().insert(key.clone(), Arc::clone(stats));
        Entry { roll: Arc::clone(self), key }
    }

    /// The queues at this instant, the latest connection of each.
    pub fn queues(&self) -> BTreeMap<Label, Arc<QueueStats>> {
        self.lock().iter().map(|((label, _), stats)| (label.clone(), Arc::clone(stats))).collect()
    }

    /// The threads, in order.
    pub fn workers(&self) -> &[Arc<WorkerStats>] {
        &self.workers
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<(Label, u64), Arc<QueueStats>>> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.roll.lock().remove(&self.key);
    }
}
