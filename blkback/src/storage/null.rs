//! A disk without memory.

use std::{collections::VecDeque, io, os::fd::OwnedFd, sync::Arc, time::Duration};

use super::{Action, DiskId, Image, IoMemory, Op, Part, Storage, wake::Wakers};

/// Reads as zeros and forgets writes, in no time.
///
/// Guest pages that a read should fill are left as they are: what the guest finds there was its own before. Private memory
/// is zeroed, since another guest's bytes may be in it.
pub struct Null<T> {
    attached: u32,
    done: VecDeque<Box<Op<T>>>,
    wakers: Wakers,
    waits: u64,
}

impl<T> Default for Null<T> {
    fn default() -> Self {
        Self { attached: 0, done: VecDeque::new(), wakers: Wakers::default(), waits: 0 }
    }
}

impl<T: IoMemory> Storage<T> for Null<T> {
    fn attach(&mut self, _image: &Arc<Image>) -> io::Result<DiskId> {
        self.attached += 1;
        Ok(DiskId(self.attached - 1))
    }

    fn detach(&mut self, _disk: DiskId) {}

    fn submit(&mut self, mut op: Box<Op<T>>) -> Result<(), Box<Op<T>>> {
        if let Action::Read { .. } = op.action {
            op.data.parts(|part| {
                if let Part::Private(bytes) = part {
                    bytes.fill(0);
                }
            });
        }
        op.outcome = Ok(());
        self.done.push_back(op);
        Ok(())
    }

    fn kick(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn reap(&mut self) -> Option<Box<Op<T>>> {
        self.done.pop_front()
    }

    fn wait(&mut self, timeout: Option<Duration>) -> io::Result<bool> {
        if !self.done.is_empty() {
            return Ok(true);
        }
        self.waits += 1;
        self.wakers.wait(timeout)
    }

    fn wake_on(&mut self, fd: OwnedFd) {
        self.wakers.add(fd);
    }

    fn in_flight(&self) -> usize {
        self.done.len()
    }

    fn system_calls(&self) -> u64 {
        self.waits
    }
}
