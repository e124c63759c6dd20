//! A descriptor that is readable while its owner has events to take.

use std::{
    os::fd::{AsFd, BorrowedFd},
    sync::atomic::{AtomicBool, Ordering::Relaxed},
};

use nix::{
    errno::Errno,
    sys::eventfd::{EfdFlags, EventFd},
};

/// An eventfd that counts to one. Used under the machine's lock.
#[derive(Debug)]
pub(crate) struct Bell {
    fd: EventFd,
    rung: AtomicBool,
}

impl Bell {
    pub(crate) fn new() -> Result<Self, Errno> {
        let fd = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
        Ok(Self { fd, rung: AtomicBool::new(false) })
    }

    /// Makes the descriptor readable.
    pub(crate) fn ring(&self) {
        if !self.rung.swap(true, Relaxed) {
            // A counter that went from 0 to 1 cannot be full.
            let _ = self.fd.write(1);
        }
    }

    /// Makes the descriptor unreadable.
    pub(crate) fn quiet(&self) {
        if self.rung.swap(false, Relaxed) {
            let _ = self.fd.read();
        }
    }
}

impl AsFd for Bell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
