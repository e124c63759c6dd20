//! Waiting for descriptors without an io_uring: for the storages that have none.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    time::Duration,
};

use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
};

/// Descriptors that end a wait.
#[derive(Debug, Default)]
pub(super) struct Wakers(Vec<OwnedFd>);

impl Wakers {
    pub(super) fn add(&mut self, fd: OwnedFd) {
        self.0.push(fd);
    }

    /// Blocks until one is readable or `timeout` has passed. True when one is.
    pub(super) fn wait(&self, timeout: Option<Duration>) -> io::Result<bool> {
        let mut fds: Vec<_> = self.0.iter().map(|fd| PollFd::new(fd.as_fd(), PollFlags::POLLIN)).collect();
        // Rounded up: a wait that is too short would spin.
        let timeout = timeout.map_or(PollTimeout::NONE, |t| {
            PollTimeout::try_from(t.as_micros().div_ceil(1000)).unwrap_or(PollTimeout::MAX)
        });
        match poll(&mut fds, timeout) {
            Ok(ready) => Ok(ready > 0),
            Err(Errno::EINTR) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}
