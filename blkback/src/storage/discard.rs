//! Discard on block devices: an ioctl that blocks, so it has a thread of its own, started when first needed.

use std::{
    fs::File,
    io,
    os::fd::{AsFd, OwnedFd},
    sync::{Arc, mpsc},
    thread,
};

use nix::{
    errno::Errno,
    sys::eventfd::{EfdFlags, EventFd},
};

use super::{
    Image,
    uring::{block_discard, block_secure_discard},
};

/// True when the device can make old contents unrecoverable. Asks with a range that is never valid, so nothing is erased:
/// a device that could says `EINVAL`, one that cannot says `EOPNOTSUPP` before it looks at the range.
pub(super) fn secure_supported(file: &File) -> bool {
    block_secure_discard(file, 1, 1) == Err(Errno::EINVAL)
}

/// The thread that discards, and what it has done.
pub(super) struct Discarder {
    todo: mpsc::Sender<Job>,
    done: mpsc::Receiver<(u32, Result<(), Errno>)>,
    wake: Arc<EventFd>,
}

struct Job {
    slot: u32,
    image: Arc<Image>,
    offset: u64,
    len: u64,
    secure: bool,
}

impl Discarder {
    /// Starts the thread; it ends when this value is dropped.
    pub(super) fn start() -> io::Result<Self> {
        let wake = Arc::new(EventFd::from_flags(EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC)?);
        let (todo, jobs) = mpsc::channel::<Job>();
        let (report, done) = mpsc::channel();
        let waker = Arc::clone(&wake);
        thread::Builder::new().name("discard".into()).spawn(move || {
            for job in jobs {
                let result = job.image.target().file().ok_or(Errno::ENODEV).and_then(|file| {
                    let discard = if job.secure { block_secure_discard } else { block_discard };
                    discard(file, job.offset, job.len)
                });
                if report.send((job.slot, result)).is_err() || waker.write(1).is_err() {
                    return;
                }
            }
        })?;
        Ok(Self { todo, done, wake })
    }

    /// Becomes readable when something is done.
    pub(super) fn waker(&self) -> io::Result<OwnedFd> {
        self.wake.as_fd().try_clone_to_owned()
    }

    /// Hands a discard over; false when the thread is gone.
    pub(super) fn submit(&self, slot: u32, image: Arc<Image>, offset: u64, len: u64, secure: bool) -> bool {
        self.todo.send(Job { slot, image, offset, len, secure }).is_ok()
    }

    /// A finished discard.
    pub(super) fn reap(&mut self) -> Option<(u32, Result<(), Errno>)> {
        self.done.try_recv().ok()
    }

    /// Makes the descriptor unreadable; look with [`reap`](Self::reap) afterwards, not before.
    pub(super) fn clear(&self) {
        // Nothing to read is as good as read.
        _ = self.wake.read();
    }
}
