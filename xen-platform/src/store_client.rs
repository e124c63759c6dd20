//! A client of xenstored: over its socket, the simulator's or the real one, or over the device through which a guest's kernel
//! reaches it.

use core::time::Duration;
use std::{
    fs::File,
    io::{self, ErrorKind, Read, Write},
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::net::UnixStream,
    },
    path::Path,
    time::Instant,
};

use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
};

use crate::{
    DomId, StoreError, WatchEvent,
    event_queue::EventQueue,
    session::{Session, Transport},
    wire::{Decoder, Kind, Message},
};

/// A [`Store`](crate::Store) over a stream of xenstored's messages. Its descriptor becomes readable when an event may have arrived.
pub type StoreClient = Session<Stream>;

/// Carries messages over a descriptor to be read, written and polled: a Unix socket, or `/dev/xen/xenbus`, which takes exactly
/// one message a write.
#[derive(Debug)]
pub struct Stream {
    stream: File,
    decoder: Decoder,
    events: EventQueue,
    lost: bool,
}

impl StoreClient {
    /// Connects to the socket at `path`, as domain 0. Errors: [`StoreError::Other`] naming the path and the reason.
    pub fn connect(path: impl AsRef<Path>) -> Result<Self, StoreError> {
        let path = path.as_ref();
        match UnixStream::connect(path) {
            Ok(stream) => Ok(Self::over(OwnedFd::from(stream))),
            Err(error) => Err(StoreError::Other(format!("cannot connect to {}: {error}", path.display()))),
        }
    }

    /// Connects to a simulated xenstored to act for `domain`. Errors: as [`connect`](Self::connect), and
    /// [`StoreError::NoEntry`] when the domain was not introduced.
    pub fn connect_as(path: impl AsRef<Path>, domain: DomId) -> Result<Self, StoreError> {
        let mut client = Self::connect(path)?;
        client.call(0, Kind::ACT_AS, &[&domain.to_string()], &format!("domain {domain}"))?;
        Ok(client)
    }

    /// A client over a connected socket or an open device.
    pub fn over(stream: impl Into<OwnedFd>) -> Self {
        Session::new(Stream {
            stream: File::from(stream.into()),
            decoder: Decoder::default(),
            events: EventQueue::default(),
            lost: false,
        })
    }
}

impl AsFd for StoreClient {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.transport().stream.as_fd()
    }
}

impl Transport for Stream {
    fn call(&mut self, request: Message) -> Result<Message, StoreError> {
        let mut bytes = Vec::new();
        request.encode(&mut bytes);
        // One request at a time is far less than the socket holds: a server that waits for us to read cannot block this.
        self.io(|this| this.stream.write_all(&bytes))?;
        loop {
            if let Some(reply) = self.next_reply()? {
                return Ok(reply);
            }
            self.receive()?;
        }
    }

    fn next_event(&mut self) -> Result<Option<WatchEvent>, StoreError> {
        self.gather()?;
        while self.events.is_empty() && self.readable(Some(Duration::ZERO))? {
            self.receive()?;
            self.gather()?;
        }
        Ok(self.events.pop())
    }

    fn wait(&mut self, timeout: Option<Duration>) -> Result<bool, StoreError> {
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        self.gather()?;
        while self.events.is_empty() {
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            if self.readable(left)? {
                self.receive()?;
                self.gather()?;
            } else if left.is_some_and(|left| left.is_zero()) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn watched(&mut self, path: &str, token: &str) {
        self.events.watch(path, token);
    }

    fn unwatched(&mut self, path: &str, token: &str) {
        self.events.unwatch(path, token);
    }
}

impl Stream {
    /// The next reply among what has arrived; events on the way are queued.
    fn next_reply(&mut self) -> Result<Option<Message>, StoreError> {
        loop {
            let message = match self.decoder.next_message() {
                Ok(Some(message)) => message,
                Ok(None) => return Ok(None),
                Err(oversized) => return Err(self.broken(oversized.to_string())),
            };
            if message.kind != Kind::WATCH_EVENT {
                return Ok(Some(message));
            }
            match message.as_event() {
                Some(event) => self.events.push(event),
                None => return Err(self.broken("malformed watch event".into())),
            }
        }
    }

    /// Queues the events that have arrived; there is no reply to come.
    fn gather(&mut self) -> Result<(), StoreError> {
        match self.next_reply()? {
            None => Ok(()),
            Some(_) => Err(self.broken("reply to nothing".into())),
        }
    }

    /// Reads what is there; blocks until there is something.
    fn receive(&mut self) -> Result<(), StoreError> {
        let mut chunk = [0; 8192];
        let count = self.io(|this| match this.stream.read(&mut chunk) {
            Ok(0) => Err(ErrorKind::UnexpectedEof.into()),
            Err(error) if error.kind() == ErrorKind::Interrupted => Ok(0),
            outcome => outcome,
        })?;
        self.decoder.push(chunk.get(..count).unwrap_or_default());
        Ok(())
    }

    /// Whether there is something to read (the end of the connection included) before `timeout`, a signal, or a long while.
    fn readable(&self, timeout: Option<Duration>) -> Result<bool, StoreError> {
        if self.lost {
            return Err(StoreError::Disconnected);
        }
        // Rounded up to milliseconds, lest a wait for less than one spin.
        let timeout = timeout.map_or(PollTimeout::NONE, |timeout| {
            let millis = timeout.as_nanos().div_ceil(1_000_000);
            PollTimeout::try_from(millis).unwrap_or(PollTimeout::MAX)
        });
        match poll(&mut [PollFd::new(self.stream.as_fd(), PollFlags::POLLIN)], timeout) {
            Ok(ready) => Ok(ready > 0),
            Err(Errno::EINTR) => Ok(false),
            Err(errno) => Err(StoreError::Other(errno.to_string())),
        }
    }

    fn io<R>(&mut self, work: impl FnOnce(&mut Self) -> io::Result<R>) -> Result<R, StoreError> {
        if self.lost {
            return Err(StoreError::Disconnected);
        }
        work(self).map_err(|error| {
            self.lost = true;
            match error.kind() {
                ErrorKind::UnexpectedEof | ErrorKind::BrokenPipe | ErrorKind::ConnectionReset => {
                    StoreError::Disconnected
                }
                _ => StoreError::Other(error.to_string()),
            }
        })
    }

    /// The server breaks the protocol: nothing it sends can be trusted any more.
    fn broken(&mut self, what: String) -> StoreError {
        self.lost = true;
        StoreError::Other(what)
    }
}

#[cfg(test)]
#[cfg(feature = "sim")]
mod tests;
