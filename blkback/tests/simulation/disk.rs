//! A disk in memory that finishes operations in any order, fails some, outlives the process that gave it them, and forgets what was
//! not flushed when its power fails.

use std::{
    io,
    os::fd::OwnedFd,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use blkback::storage::{Action, DiskId, Image, IoMemory, Op, Part, Storage};
use nix::errno::Errno;

/// What is on the disk, for all who have it.
pub(crate) type Shared = Arc<Mutex<Platter>>;

/// Bytes as they are read, and what of them would be there after a power loss.
pub(crate) struct Platter {
    pub(crate) bytes: Vec<u8>,
    durable: Vec<u8>,
    /// Sectors written since the last flush, in order: first byte, and content.
    cached: Vec<(usize, [u8; 512])>,
}

impl Platter {
    pub(crate) fn new(bytes: usize) -> Self {
        Self { bytes: vec![0; bytes], durable: vec![0; bytes], cached: Vec::new() }
    }

    fn write(&mut self, at: usize, data: &[u8]) {
        self.bytes[at..at + data.len()].copy_from_slice(data);
        let sectors = data.as_chunks().0.iter();
        self.cached.extend((at..).step_by(512).zip(sectors.copied()));
    }

    fn flush(&mut self) {
        for (at, sector) in self.cached.drain(..) {
            self.durable[at..at + 512].copy_from_slice(&sector);
        }
    }

    /// The disk after a power loss: of what was not flushed, any part may be there.
    pub(crate) fn after_power_loss(&self, mut kept: impl FnMut() -> bool) -> Vec<u8> {
        let mut left = self.durable.clone();
        for (at, sector) in &self.cached {
            if kept() {
                left[*at..*at + 512].copy_from_slice(sector);
            }
        }
        left
    }
}

/// A run that fails while it holds the disk lets it go.
pub(crate) fn lock(platter: &Shared) -> MutexGuard<'_, Platter> {
    platter.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One process' way to the disk.
pub(crate) struct Disk<T> {
    pub(crate) platter: Shared,
    /// Given to it, and not begun.
    pub(crate) waiting: Vec<Box<Op<T>>>,
    done: Vec<Box<Op<T>>>,
    /// What becomes of operations under way when the process dies: a bit for each.
    pub(crate) fate: u64,
}

impl<T: IoMemory> Disk<T> {
    pub(crate) fn new(platter: Shared) -> Self {
        Self { platter, waiting: Vec::new(), done: Vec::new(), fate: 0 }
    }

    /// Finishes one of those that wait.
    pub(crate) fn finish(&mut self, choice: usize, fails: bool) {
        if self.waiting.is_empty() {
            return;
        }
        let mut op = self.waiting.swap_remove(choice % self.waiting.len());
        op.outcome = if fails { Err(Errno::EIO) } else { self.apply(op.action, &mut op.data) };
        self.done.push(op);
    }

    /// True when there is something to reap.
    pub(crate) fn has_done(&self) -> bool {
        !self.done.is_empty()
    }

    fn apply(&mut self, action: Action, memory: &mut T) -> Result<(), Errno> {
        let mut platter = lock(&self.platter);
        let (offset, write) = match action {
            Action::Read { offset } => (offset, false),
            Action::Write { offset } => (offset, true),
            Action::Flush => {
                platter.flush();
                return Ok(());
            }
            Action::Discard { .. } => return Err(Errno::EOPNOTSUPP),
        };
        let mut at = offset as usize;
        memory.parts(|part| {
            let mut data = vec![0; part.len()];
            match (part, write) {
                (Part::Shared(page), false) => _ = page.write(&platter.bytes[at..at + data.len()]),
                (Part::Private(own), false) => own.copy_from_slice(&platter.bytes[at..at + own.len()]),
                (Part::Shared(page), true) => _ = page.read(&mut data),
                (Part::Private(own), true) => data.copy_from_slice(own),
            }
            if write {
                platter.write(at, &data);
            }
            at += data.len();
        });
        Ok(())
    }
}

impl<T: IoMemory> Storage<T> for Disk<T> {
    fn attach(&mut self, _: &Arc<Image>) -> io::Result<DiskId> {
        Ok(DiskId(0))
    }

    fn detach(&mut self, _: DiskId) {}

    fn submit(&mut self, op: Box<Op<T>>) -> Result<(), Box<Op<T>>> {
        self.waiting.push(op);
        Ok(())
    }

    fn kick(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn reap(&mut self) -> Option<Box<Op<T>>> {
        self.done.pop()
    }

    /// Only a worker that dies calls this: what is under way comes to an end, or was never begun, and nobody hears of it.
    fn wait(&mut self, _: Option<Duration>) -> io::Result<bool> {
        while !self.waiting.is_empty() {
            self.fate = self.fate.rotate_left(1);
            let (choice, lost) = ((self.fate >> 7) as usize, self.fate & 1 == 1);
            self.finish(choice, lost);
        }
        Ok(true)
    }

    fn wake_on(&mut self, _: OwnedFd) {}

    fn in_flight(&self) -> usize {
        self.waiting.len() + self.done.len()
    }

    fn system_calls(&self) -> u64 {
        0
    }
}
