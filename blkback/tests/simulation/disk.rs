//! A disk in memory that finishes operations in any order, fails some, and outlives the process that gave it them.

use std::{
    io,
    os::fd::OwnedFd,
    sync::{Arc, Mutex},
    time::Duration,
};

use blkback::storage::{Action, DiskId, Image, IoMemory, Op, Part, Storage};
use nix::errno::Errno;

/// What is on the disk, for all who have it.
pub(crate) type Bytes = Arc<Mutex<Vec<u8>>>;

/// One process' way to the disk.
pub(crate) struct Disk<T> {
    pub(crate) bytes: Bytes,
    /// Given to it, and not begun.
    pub(crate) waiting: Vec<Box<Op<T>>>,
    done: Vec<Box<Op<T>>>,
    /// What becomes of operations under way when the process dies: a bit for each.
    pub(crate) fate: u64,
}

impl<T: IoMemory> Disk<T> {
    pub(crate) fn new(bytes: Bytes) -> Self {
        Self { bytes, waiting: Vec::new(), done: Vec::new(), fate: 0 }
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
        let mut bytes = self.bytes.lock().unwrap();
        let (offset, write) = match action {
            Action::Read { offset } => (offset, false),
            Action::Write { offset } => (offset, true),
            Action::Flush => return Ok(()),
            Action::Discard { .. } => return Err(Errno::EOPNOTSUPP),
        };
        let mut at = offset as usize;
        memory.parts(|part| {
            let range = &mut bytes[at..at + part.len()];
            at += part.len();
            match (part, write) {
                (Part::Shared(page), false) => _ = page.write(range),
                (Part::Shared(page), true) => _ = page.read(range),
                (Part::Private(own), false) => own.copy_from_slice(range),
                (Part::Private(own), true) => range.copy_from_slice(own),
            }
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
