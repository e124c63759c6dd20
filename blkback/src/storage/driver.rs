//! Disks that are no plain files: what serves them, a driver, and what it is given to do, jobs.
//!
//! A driver belongs to a disk and is shared by all worker threads that serve queues of it. It works on memory of ours, never on
//! a guest's: what a format computes over, or a library sends twice, does not change under its hands, and nothing of a guest
//! is in reach of a library's threads when the daemon lets the guest go.

use std::{
    fmt, io, mem,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
};

use nix::errno::Errno;
use tokio::sync::OwnedRwLockReadGuard;

use super::{Action, Image, bell::Bell};
use crate::data::buffer::Buffer;

/// What serves a disk. Dropped when no image and no worker has it any more: it ends its threads and connections then.
///
/// Implementer: finishes every job exactly once, on any thread and in any order, and in a bounded time; a job that was not started
/// because the disk is beyond help is finished with an error. A read is [`finish`](Job::finish)ed with `Ok` only if all of its
/// bytes were filled: the buffer may hold another guest's data. A write is durable after a flush that was started when the write
/// had been finished. What has been finished stays written if this process is killed. Never panics, whatever the job says.
pub trait Driver: fmt::Debug + Send + Sync {
    /// The disk's size in bytes, as last known. Cheap; never blocks.
    fn bytes(&self) -> u64;

    /// Takes a job over; returns at once.
    fn start(&self, job: Job);

    /// Ends a batch of [`start`](Self::start)s: a driver with a thread of its own wakes it here, once.
    fn kick(&self) {}

    /// The file that bytes of the disk lie in, where a worker may read and write them by itself ([`place`](Self::place)).
    fn file(&self) -> Option<&Arc<Image>> {
        None
    }

    /// Where a range of the disk, in bytes, lies in the [`file`](Self::file) in one piece: it may be read and written there as long as the
    /// place is kept, and what was written there is as good as written by a job. None: it needs a job. Cheap; never blocks.
    fn place(&self, offset: u64, len: u64) -> Option<Place> {
        _ = (offset, len);
        None
    }

    /// Makes the disk larger or smaller. May block. Errors: the driver cannot, or what it works on does not let it.
    fn resize(&self, bytes: u64) -> io::Result<()> {
        _ = bytes;
        Err(io::Error::from(io::ErrorKind::Unsupported))
    }
}

/// Where bytes of a disk lie in its driver's file, as long as this is kept.
#[derive(Debug)]
pub struct Place {
    /// The first of them, in bytes from the file's beginning.
    pub offset: u64,
    /// Keeps them there.
    pub held: OwnedRwLockReadGuard<()>,
}

/// One operation with memory of ours, contiguous and page-aligned, at the same address for as long as the job exists.
///
/// A job that is dropped has failed, with `EIO`.
pub struct Job {
    action: Action,
    data: Buffer,
    len: usize,
    slot: u32,
    home: Option<Arc<Home>>,
}

impl Job {
    pub(super) fn new(action: Action, data: Buffer, len: usize, slot: u32, home: Arc<Home>) -> Self {
        Self { action, data, len, slot, home: Some(home) }
    }

    /// What is to be done. Offsets and lengths are those of the guest's request, within what the disk's size was when it was
    /// admitted.
    pub fn action(&self) -> Action {
        self.action
    }

    /// Length of the memory in bytes; 0 for what moves no data.
    pub fn len(&self) -> usize {
        self.len
    }

    /// True for what moves no data.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// What is to be written.
    pub fn bytes(&self) -> &[u8] {
        self.data.bytes(self.len)
    }

    /// What is to be filled by a read.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        self.data.bytes_mut(self.len)
    }

    /// Gives the job back to the worker it came from.
    pub fn finish(mut self, outcome: Result<(), Errno>) {
        self.go_home(outcome);
    }

    fn go_home(&mut self, outcome: Result<(), Errno>) {
        if let Some(home) = self.home.take() {
            home.take_in(Finished { slot: self.slot, data: mem::take(&mut self.data), outcome });
        }
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        self.go_home(Err(Errno::EIO));
    }
}

impl fmt::Debug for Job {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Job({:?}, {} bytes)", self.action, self.len)
    }
}

/// A job that came back.
pub(super) struct Finished {
    pub(super) slot: u32,
    pub(super) data: Buffer,
    pub(super) outcome: Result<(), Errno>,
}

/// Where a worker's finished jobs gather until it looks.
pub(super) struct Home {
    finished: Mutex<Vec<Finished>>,
    /// Whether it is worth a look.
    some: AtomicBool,
    bell: Bell,
}

impl Home {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self { finished: Mutex::default(), some: AtomicBool::new(false), bell: Bell::new()? })
    }

    /// Rings when there is something.
    pub(super) fn bell(&self) -> &Bell {
        &self.bell
    }

    fn take_in(&self, job: Finished) {
        let mut finished = self.finished();
        finished.push(job);
        self.some.store(true, SeqCst);
        drop(finished);
        self.bell.ring();
    }

    /// True if there is something.
    pub(super) fn has_some(&self) -> bool {
        self.some.load(SeqCst)
    }

    /// Swaps all that have gathered for `empty`, which stays allocated.
    pub(super) fn look(&self, empty: &mut Vec<Finished>) {
        if self.has_some() {
            let mut finished = self.finished();
            self.some.store(false, SeqCst);
            mem::swap(&mut *finished, empty);
        }
    }

    fn finished(&self) -> MutexGuard<'_, Vec<Finished>> {
        self.finished.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
