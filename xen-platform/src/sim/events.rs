//! Event channels between processes: eventfds behind one epoll descriptor.
//!
//! The broker says who is bound to whom and makes one eventfd per direction; after that it is not asked any more. Each
//! eventfd is watched edge-triggered and never read, so an event costs its sender one `write` and its receiver its share of
//! one `epoll_wait`, and unmasking costs nothing unless an event arrived meanwhile.

use core::time::Duration;
use std::{
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::Arc,
};

use nix::{
    errno::Errno,
    sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout},
    unistd::write,
};

use super::{
    client::Connection,
    message::{Answer, Ask, Refusal},
};
use crate::{DomId, EventChannels, EventError, Port};

/// Events fetched in one go.
const BATCH: usize = 32;

/// A process's handle on event channels. Its descriptor becomes readable when an event arrives; take until there is none
/// before waiting on it.
#[derive(Debug)]
pub struct Events {
    connection: Arc<Connection>,
    epoll: Epoll,
    /// By number: ports are small.
    ports: Vec<Option<End>>,
    fetched: [EpollEvent; BATCH],
    /// The part of `fetched` that was not looked at yet.
    unseen: core::ops::Range<usize>,
}

/// The local end of a channel.
#[derive(Debug)]
struct End {
    /// Wakes us.
    own: OwnedFd,
    /// Wakes the other end.
    peer: OwnedFd,
    masked: bool,
    /// An event was fetched while masked.
    late: bool,
}

impl Events {
    pub(super) fn new(connection: Arc<Connection>) -> Result<Self, EventError> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).map_err(system)?;
        Ok(Self { connection, epoll, ports: Vec::new(), fetched: [EpollEvent::empty(); BATCH], unseen: 0..0 })
    }

    fn open(&mut self, ask: Ask) -> Result<Port, EventError> {
        let (Answer::Port(port), fds) = self.connection.call(ask)? else {
            return Err(Refusal::Garbled.into());
        };
        let [own, peer] = <[OwnedFd; 2]>::try_from(fds).map_err(|_| Refusal::Garbled)?;
        // An eventfd that has counted before is reported at once: the event that binding leaves pending.
        self.epoll.add(&own, watch(port)).map_err(system)?;
        let index = port.0 as usize;
        if self.ports.len() <= index {
            self.ports.resize_with(index + 1, || None);
        }
        if let Some(place) = self.ports.get_mut(index) {
            *place = Some(End { own, peer, masked: false, late: false });
        }
        Ok(port)
    }

    fn end(&mut self, port: Port) -> Result<&mut End, EventError> {
        let end = self.ports.get_mut(port.0 as usize).and_then(Option::as_mut);
        end.ok_or(EventError::NotBound(port))
    }

    /// The next fetched event whose port is bound and not masked.
    fn next_unmasked(&mut self) -> Option<Port> {
        while let Some(event) = self.fetched.get(self.unseen.start).filter(|_| !self.unseen.is_empty()) {
            let port = Port(u32::try_from(event.data()).unwrap_or(u32::MAX));
            match self.ports.get_mut(port.0 as usize).and_then(Option::as_mut) {
                Some(end) if end.masked => end.late = true,
                Some(_) => return Some(port),
                None => {}
            }
            self.unseen.start += 1;
        }
        None
    }

    fn fetch(&mut self, timeout: EpollTimeout) -> Result<usize, Errno> {
        let count = self.epoll.wait(&mut self.fetched, timeout)?;
        self.unseen = 0..count;
        Ok(count)
    }
}

impl EventChannels for Events {
    fn alloc_unbound(&mut self, remote: DomId) -> Result<Port, EventError> {
        self.open(Ask::AllocUnbound { remote })
    }

    fn bind_interdomain(&mut self, remote: DomId, port: Port) -> Result<Port, EventError> {
        self.open(Ask::Bind { remote, port })
    }

    fn unbind(&mut self, port: Port) -> Result<(), EventError> {
        self.end(port)?;
        let end = self.ports.get_mut(port.0 as usize).and_then(Option::take);
        if let Some(end) = end {
            // Others hold the same eventfd, so closing ours would not end the watch.
            self.epoll.delete(&end.own).map_err(system)?;
        }
        self.connection.call(Ask::Close { port })?;
        Ok(())
    }

    fn notify(&mut self, port: Port) -> Result<(), EventError> {
        let end = self.end(port)?;
        match write(&end.peer, &1u64.to_ne_bytes()) {
            // A full counter is an event that is pending already.
            Ok(_) | Err(Errno::EAGAIN) => Ok(()),
            Err(errno) => Err(system(errno)),
        }
    }

    fn take_pending(&mut self) -> Option<Port> {
        loop {
            if let Some(port) = self.next_unmasked() {
                self.unseen.start += 1;
                self.end(port).ok()?.masked = true;
                return Some(port);
            }
            if self.fetch(EpollTimeout::ZERO).is_ok_and(|count| count > 0) {
                continue;
            }
            return None;
        }
    }

    fn unmask(&mut self, port: Port) -> Result<(), EventError> {
        let end = self.end(port)?;
        end.masked = false;
        if core::mem::take(&mut end.late) {
            // Makes epoll look at the level again, which is high since the first event.
            let Self { epoll, ports, .. } = self;
            if let Some(Some(end)) = ports.get(port.0 as usize) {
                epoll.modify(&end.own, &mut watch(port)).map_err(system)?;
            }
        }
        Ok(())
    }

    fn wait(&mut self, timeout: Option<Duration>) -> Result<bool, EventError> {
        if self.next_unmasked().is_some() {
            return Ok(true);
        }
        let timeout = timeout.map_or(EpollTimeout::NONE, |timeout| {
            // Rounded up: sleeping too short would make the caller spin.
            let milliseconds = timeout.as_nanos().div_ceil(1_000_000);
            EpollTimeout::try_from(milliseconds).unwrap_or(EpollTimeout::MAX)
        });
        match self.fetch(timeout) {
            Ok(_) | Err(Errno::EINTR) => Ok(self.next_unmasked().is_some()),
            Err(errno) => Err(system(errno)),
        }
    }
}

impl AsFd for Events {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll.0.as_fd()
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        for index in 0..self.ports.len() {
            // Fails where the port is not bound, or the broker is gone and the port with it.
            let _ = self.unbind(Port(u32::try_from(index).unwrap_or(u32::MAX)));
        }
    }
}

fn watch(port: Port) -> EpollEvent {
    EpollEvent::new(EpollFlags::EPOLLIN | EpollFlags::EPOLLET, port.0.into())
}

fn system(errno: Errno) -> EventError {
    EventError::System(errno as i32)
}
