//! The daemon's storage: files and block devices through io_uring, disks with drivers and null disks beside it.

use std::{io, os::fd::OwnedFd, sync::Arc, time::Duration};

use nix::errno::Errno;

use super::{DiskId, Image, IoMemory, Null, Op, Storage, Target, Uring, driven::Driven};

/// Routes each disk to what serves it, by the top bits of its [`DiskId`].
pub struct Engine<T: IoMemory> {
    uring: Uring<T>,
    driven: Driven<T>,
    null: Null<T>,
}

const NULL: u32 = 1 << 31;
const DRIVEN: u32 = 1 << 30;

impl<T: IoMemory> Engine<T> {
    /// Sets the io_uring up. Call on the thread that will use it. Errors: the kernel refuses (disabled, or before 5.11).
    pub fn new() -> io::Result<Self> {
        let (mut uring, driven) = (Uring::new()?, Driven::new()?);
        uring.wait_for(driven.bell()?);
        Ok(Self { uring, driven, null: Null::default() })
    }
}

impl<T: IoMemory> Storage<T> for Engine<T> {
    fn attach(&mut self, image: &Arc<Image>) -> io::Result<DiskId> {
        match image.target() {
            Target::Null => self.null.attach(image).map(|DiskId(id)| DiskId(id | NULL)),
            Target::Driven(_) => self.driven.attach(image).map(|DiskId(id)| DiskId(id | DRIVEN)),
            Target::File(_) | Target::Block(_) => self.uring.attach(image),
        }
    }

    fn detach(&mut self, disk: DiskId) {
        match disk.0 & (NULL | DRIVEN) {
            0 => self.uring.detach(disk),
            DRIVEN => self.driven.detach(DiskId(disk.0 & !DRIVEN)),
            _ => {}
        }
    }

    fn submit(&mut self, mut op: Box<Op<T>>) -> Result<(), Box<Op<T>>> {
        match op.disk.0 & (NULL | DRIVEN) {
            0 => self.uring.submit(op),
            DRIVEN => {
                op.disk.0 &= !DRIVEN;
                self.driven.submit(op)
            }
            _ => self.null.submit(op),
        }
    }

    fn kick(&mut self) -> io::Result<()> {
        self.driven.kick();
        self.uring.kick()
    }

    fn reap(&mut self) -> Option<Box<Op<T>>> {
        self.null.reap().or_else(|| self.uring.reap()).or_else(|| {
            let mut op = self.driven.reap()?;
            op.disk.0 |= DRIVEN;
            Some(op)
        })
    }

    fn wait(&mut self, timeout: Option<Duration>) -> io::Result<bool> {
        if self.null.in_flight() > 0 {
            return Ok(true);
        }
        let woken = self.uring.wait(timeout)?;
        if self.driven.in_flight() > 0 {
            self.driven.quiet();
        }
        Ok(woken)
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
        self.null.in_flight() + self.driven.in_flight() + self.uring.in_flight()
    }

    fn system_calls(&self) -> u64 {
        self.uring.system_calls()
    }
}
