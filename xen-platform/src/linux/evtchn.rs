//! Event channels through `/dev/xen/evtchn`.
//!
//! Reading gives ports that are pending, and masks them; writing a port lets it be delivered again. What was read and not yet
//! asked for waits in a buffer here.

use core::time::Duration;
use std::{
    collections::VecDeque,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    unistd::{read, write},
};

use super::{Node, uapi};
use crate::{DomId, EventChannels, EventError, Port};

pub(super) const NODE: Node = Node { path: "/dev/xen/evtchn", module: "xen-evtchn" };

/// Ports read in one go.
const BATCH: usize = 64;

/// A handle on event channels. Its descriptor becomes readable when an event arrives; take until there is none before
/// waiting on it.
#[derive(Debug)]
pub struct Events {
    node: OwnedFd,
    /// Ports bound on this handle; few.
    bound: Vec<Port>,
    /// Read, masked, and not taken yet.
    pending: VecDeque<Port>,
    /// The last read gave all there was: another would be in vain.
    drained: bool,
}

impl Events {
    pub(super) fn open() -> Result<Self, EventError> {
        let node = super::open(NODE.path).map_err(|error| system(super::errno(&error)))?;
        Ok(Self::over(node))
    }

    pub(super) fn over(node: OwnedFd) -> Self {
        Self { node, bound: Vec::new(), pending: VecDeque::with_capacity(BATCH), drained: false }
    }

    /// From now on this handle can bind ports of `dom` only, whatever happens to this process. Errors: it is restricted already.
    pub fn restrict(&mut self, dom: DomId) -> Result<(), EventError> {
        uapi::restrict(self.node.as_fd(), dom).map_err(system)
    }

    fn bind(&mut self, dom: DomId, bound: Result<Port, Errno>) -> Result<Port, EventError> {
        let port = bound.map_err(|errno| match errno {
            Errno::EINVAL => EventError::NotUnbound,
            Errno::ESRCH => EventError::NoDomain(dom),
            Errno::ENOSPC => EventError::Exhausted,
            errno => system(errno),
        })?;
        self.bound.push(port);
        Ok(port)
    }

    /// Reads what is pending into the buffer, without blocking.
    fn fetch(&mut self) {
        let mut bytes = [0; BATCH * size_of::<u32>()];
        let count = match read(&self.node, &mut bytes) {
            Ok(count) => count,
            Err(Errno::EFBIG) => {
                // The kernel has lost some: any port may be pending. Taking one that is not does no harm.
                let _ = uapi::reset(self.node.as_fd());
                self.pending.extend(&self.bound);
                return;
            }
            // Nothing there; or nothing that could be told apart from it.
            Err(_) => return,
        };
        self.drained = count < bytes.len();
        self.extend(bytes.get(..count).unwrap_or_default());
    }

    fn extend(&mut self, ports: &[u8]) {
        let (words, _) = ports.as_chunks();
        self.pending.extend(words.iter().map(|word| Port(u32::from_ne_bytes(*word))));
    }
}

impl EventChannels for Events {
    fn alloc_unbound(&mut self, remote: DomId) -> Result<Port, EventError> {
        let bound = uapi::bind_unbound(self.node.as_fd(), remote);
        self.bind(remote, bound)
    }

    fn bind_interdomain(&mut self, remote: DomId, port: Port) -> Result<Port, EventError> {
        let bound = uapi::bind_interdomain(self.node.as_fd(), remote, port);
        self.bind(remote, bound)
    }

    fn unbind(&mut self, port: Port) -> Result<(), EventError> {
        uapi::unbind(self.node.as_fd(), port).map_err(|errno| of_port(errno, port))?;
        self.bound.retain(|other| *other != port);
        self.pending.retain(|other| *other != port);
        Ok(())
    }

    fn notify(&mut self, port: Port) -> Result<(), EventError> {
        uapi::notify(self.node.as_fd(), port).map_err(|errno| of_port(errno, port))
    }

    fn take_pending(&mut self) -> Option<Port> {
        if self.pending.is_empty() && !std::mem::take(&mut self.drained) {
            self.fetch();
        }
        self.pending.pop_front()
    }

    fn unmask(&mut self, port: Port) -> Result<(), EventError> {
        write(&self.node, &port.0.to_ne_bytes()).map(drop).map_err(|errno| of_port(errno, port))
    }

    fn wait(&mut self, timeout: Option<Duration>) -> Result<bool, EventError> {
        if !self.pending.is_empty() {
            return Ok(true);
        }
        let timeout = timeout.map_or(PollTimeout::NONE, |timeout| {
            // Rounded up: sleeping too short would make the caller spin.
            PollTimeout::try_from(timeout.as_nanos().div_ceil(1_000_000)).unwrap_or(PollTimeout::MAX)
        });
        match poll(&mut [PollFd::new(self.node.as_fd(), PollFlags::POLLIN)], timeout) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(system(errno)),
        }
        self.fetch();
        Ok(!self.pending.is_empty())
    }

    fn is_stream(&self) -> bool {
        true
    }

    fn feed(&mut self, ports: &[u8]) {
        // Whoever reads sees to what is left.
        self.drained = true;
        self.extend(ports);
    }
}

impl AsFd for Events {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.node.as_fd()
    }
}

fn of_port(errno: Errno, port: Port) -> EventError {
    if errno == Errno::ENOTCONN { EventError::NotBound(port) } else { system(errno) }
}

fn system(errno: Errno) -> EventError {
    EventError::System(errno as i32)
}

#[cfg(test)]
mod tests;
