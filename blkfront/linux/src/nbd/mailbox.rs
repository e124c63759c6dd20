//! How the accepting thread reaches a worker that sleeps.

use std::{
    io,
    os::{
        fd::{AsFd, BorrowedFd},
        unix::net::UnixStream,
    },
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use nix::sys::eventfd::{EfdFlags, EventFd};

/// New clients for one worker, and the word to stop. Its descriptor is readable while there is something new.
#[derive(Debug)]
pub(super) struct Mailbox {
    clients: Mutex<Vec<UnixStream>>,
    stop: AtomicBool,
    bell: EventFd,
}

impl Mailbox {
    pub(super) fn new() -> io::Result<Self> {
        let bell = EventFd::from_flags(EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC)?;
        Ok(Self { clients: Mutex::default(), stop: AtomicBool::new(false), bell })
    }

    pub(super) fn give(&self, client: UnixStream) {
        self.clients.lock().unwrap_or_else(PoisonError::into_inner).push(client);
        self.ring();
    }

    /// Tells the worker to answer what was asked, hang up and end.
    pub(super) fn stop(&self) {
        self.stop.store(true, Ordering::Release);
        self.ring();
    }

    pub(super) fn stopped(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    /// The clients that came since the last time.
    pub(super) fn take(&self) -> Vec<UnixStream> {
        // A bell that did not ring is no error.
        let _ = self.bell.read();
        std::mem::take(&mut *self.clients.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The bell only overflows after 2^64 unheard rings.
    fn ring(&self) {
        let _ = self.bell.write(1);
    }
}

impl AsFd for Mailbox {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }
}
