//! The daemon's storage: files and block devices through io_uring, null disks beside it.

use std::{io, os::fd::OwnedFd, sync::Arc, time::Duration};

use nix::errno::Errno;

use super::{DiskId, Image, IoMemory, Null, Op, Storage, Target, Uring};

/// Routes each disk to the storage that serves it. Null disks have the top bit of their [`DiskId`] set.
pub struct Engine<T: IoMemory> {
    uring: Uring<T>,
    null: Null<T>,
}

const NULL: u32 = 1 << 31;

impl<T: IoMemory> Engine<T> {
    /// Sets the io_uring up. Call on the thread that will use it. Errors: the kernel refuses (disabled, or before 5.11).
    pub fn new() -> io::Result<Self> {
        Ok(Self { uring: Uring::new()?, null: Null::default() })
    }
}

impl<T: IoMemory> Storage<T> for Engine<T> {
    fn attach(&mut self, image: &Arc<Image>) -> io::Result<DiskId> {
        match image.target() {
            Target::Null => self.null.attach(image).map(|DiskId(id)| DiskId(id | NULL)),
            Target::File(_) | Target::Block(_) => self.uring.attach(image),
        }
    }

    fn detach(&mut self, disk: DiskId) {
        if disk.0 & NULL == 0 {
            self.uring.detach(disk);
        }
    }

    fn submit(&mut self, op: Box<Op<T>>) -> Result<(), Box<Op<T>>> {
        if op.disk.0 & NULL == 0 { self.uring.submit(op) } else { self.null.submit(op) }
    }

    fn kick(&mut self) -> io::Result<()> {
        self.uring.kick()
    }

    fn reap(&mut self) -> Option<Box<Op<T>>> {
        self.null.reap().or_else(|| self.uring.reap())
    }

    fn wait(&mut self, timeout: Option<Duration>) -> io::Result<bool> {
        if self.null.in_flight() > 0 { Ok(true) } else { self.uring.wait(timeout) }
    }

    fn wake_on(&mut self, fd: OwnedFd) {
        self.uring.wake_on(fd);
    }

    fn follow(&mut self, fd: OwnedFd) -> Result<(), OwnedFd> {
        self.uring.follow(fd)
    }

    fn received(&mut self) -> Option<Result<&[u8], Errno>> {
        self.uring.received()
    }

    fn send(&mut self, bytes: &[u8]) -> bool {
        self.uring.send(bytes)
    }

    fn in_flight(&self) -> usize {
        self.null.in_flight() + self.uring.in_flight()
    }

    fn system_calls(&self) -> u64 {
        self.uring.system_calls()
    }
}
