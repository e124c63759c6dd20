//! Event channels by hypercalls. Nobody is interrupted: an event is a bit in the shared page, and waiting is a poll.

use alloc::{sync::Arc, vec::Vec};
use core::time::Duration;

use super::{
    Machine, abi,
    hypercall::{self, Errno},
    shared_info::SharedInfo,
    start::Daemon,
};
use crate::{DomId, EventChannels, EventError, Port};

/// Most ports of a handle: as many as one poll takes.
const MAX_PORTS: usize = 128;

/// A handle on event channels. Once the guest was restored it has none any more: it stays silent.
#[derive(Debug)]
pub struct Events {
    machine: Arc<Machine>,
    /// Of which life of the guest it is.
    life: u32,
    ports: Vec<Port>,
    /// Where to look first, so that a busy port does not starve the others.
    next: usize,
}

impl Events {
    pub(super) fn new(machine: Arc<Machine>) -> Self {
        Self { life: machine.life(), machine, ports: Vec::new(), next: 0 }
    }

    /// Xen closed the ports of an earlier life, and has given their numbers to others.
    fn is_over(&self) -> bool {
        self.life != self.machine.life()
    }

    fn bind(&mut self, bind: impl FnOnce() -> Result<Port, Errno>, dom: DomId) -> Result<Port, EventError> {
        if self.ports.len() == MAX_PORTS || self.is_over() {
            return Err(EventError::Exhausted);
        }
        let port = bind().map_err(|errno| match errno.0 {
            abi::EINVAL => EventError::NotUnbound,
            abi::ESRCH => EventError::NoDomain(dom),
            abi::ENOSPC => EventError::Exhausted,
            errno => EventError::System(errno),
        })?;
        // Whoever had the number before may have left it masked.
        self.machine.shared.unmask(port);
        self.ports.push(port);
        Ok(port)
    }

    fn owned(&self, port: Port) -> Result<Port, EventError> {
        if self.ports.contains(&port) && !self.is_over() { Ok(port) } else { Err(EventError::NotBound(port)) }
    }
}

impl EventChannels for Events {
    fn alloc_unbound(&mut self, remote: DomId) -> Result<Port, EventError> {
        self.bind(|| hypercall::alloc_unbound(remote), remote)
    }

    fn bind_interdomain(&mut self, remote: DomId, port: Port) -> Result<Port, EventError> {
        self.bind(|| hypercall::bind_interdomain(remote, port), remote)
    }

    fn unbind(&mut self, port: Port) -> Result<(), EventError> {
        let port = self.owned(port)?;
        self.ports.retain(|other| *other != port);
        hypercall::close(port).map_err(system)
    }

    fn notify(&mut self, port: Port) -> Result<(), EventError> {
        // As Xen does it where nobody listens.
        if self.is_over() { Ok(()) } else { hypercall::send(self.owned(port)?).map_err(system) }
    }

    fn take_pending(&mut self) -> Option<Port> {
        if self.is_over() {
            self.ports.clear();
        }
        let (count, shared) = (self.ports.len(), self.machine.shared);
        let (later, sooner) = self.ports.split_at(self.next.min(count));
        let found = sooner.iter().chain(later).position(|port| shared.take(*port))?;
        let at = (self.next.min(count) + found) % count;
        self.next = (at + 1) % count;
        self.ports.get(at).copied()
    }

    fn unmask(&mut self, port: Port) -> Result<(), EventError> {
        if !self.is_over() {
            self.machine.shared.unmask(self.owned(port)?);
        }
        Ok(())
    }

    fn wait(&mut self, timeout: Option<Duration>) -> Result<bool, EventError> {
        if self.is_over() {
            self.ports.clear();
        }
        let shared = self.machine.shared;
        let any_pending = |ports: &[Port]| ports.iter().any(|port| shared.is_pending(*port));
        if any_pending(&self.ports) {
            return Ok(true);
        }
        let mut awaited = [0; MAX_PORTS];
        // A masked port that is pending would end the poll at once, again and again.
        let open = self.ports.iter().filter(|port| !shared.is_masked(**port));
        let count = awaited.iter_mut().zip(open).map(|(place, port)| *place = port.0).count();
        poll(shared, awaited.get(..count).unwrap_or_default(), timeout).map_err(system)?;
        Ok(any_pending(&self.ports))
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        if self.is_over() {
            return;
        }
        for port in self.ports.drain(..) {
            // It is gone either way.
            let _ = hypercall::close(port);
        }
    }
}

/// The port that the tool stack has bound for us to a daemon, which is always there.
#[derive(Clone, Copy, Debug)]
pub(super) struct Doorbell {
    pub(super) shared: SharedInfo,
    daemon: Daemon,
    port: Port,
}

impl Doorbell {
    pub(super) fn new(shared: SharedInfo, daemon: Daemon) -> Self {
        Self { shared, daemon, port: daemon.port() }
    }

    /// Asks again which port it is.
    pub(super) fn resume(&mut self) {
        self.port = self.daemon.port();
    }

    /// Rings at the other end.
    pub(super) fn ring(self) {
        // A port of the tool stack's does not go away; if it did, waiting for the answer ends in time.
        let _ = hypercall::send(self.port);
    }

    /// Forgets that it rang; to be followed by a look at what it rings for.
    pub(super) fn silence(self) {
        self.shared.clear(self.port);
    }

    /// Sleeps until it rings, or `timeout` has passed (`None`: for ever).
    pub(super) fn wait(self, timeout: Option<Duration>) -> Result<(), Errno> {
        poll(self.shared, &[self.port.0], timeout)
    }
}

fn poll(shared: SharedInfo, ports: &[u32], timeout: Option<Duration>) -> Result<(), Errno> {
    let until = match timeout {
        Some(Duration::ZERO) => return Ok(()),
        Some(timeout) => shared.system_time().saturating_add(timeout),
        None if ports.is_empty() => return Ok(()),
        None => Duration::ZERO,
    };
    // Xen's time is signed.
    let until = i64::try_from(until.as_nanos()).unwrap_or(i64::MAX);
    hypercall::poll(ports, until.unsigned_abs())
}

fn system(errno: Errno) -> EventError {
    EventError::System(errno.0)
}

#[cfg(test)]
mod tests;
