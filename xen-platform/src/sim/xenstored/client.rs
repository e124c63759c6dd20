//! One client of the socket: bytes in, bytes out, both bounded.

use std::{
    io::{self, Read, Write},
    os::{
        fd::{AsFd, BorrowedFd},
        unix::net::UnixStream,
    },
};

use nix::sys::epoll::EpollFlags;

use crate::{
    DomId,
    fake::store::{ConnId, SharedStore, XenStore},
    wire::{self, Decoder, Errno, Kind, Message},
};

/// Bytes that may wait to be sent before no more requests are read and no more events taken.
const OUT_LIMIT: usize = 32 * 1024;
/// Bytes read at a time.
const READ_CHUNK: usize = 16 * 1024;

#[derive(Debug)]
pub(super) struct Client {
    stream: UnixStream,
    /// Known from the first message on.
    connection: Option<ConnId>,
    decoder: Decoder,
    out: Vec<u8>,
    sent: usize,
    /// Held up by `OUT_LIMIT`: there may be requests in the decoder or events in the store.
    held: bool,
}

impl Client {
    pub(super) fn new(stream: UnixStream) -> Self {
        Self { stream, connection: None, decoder: Decoder::default(), out: Vec::new(), sent: 0, held: false }
    }

    /// Reads, answers, takes events and sends, each once. What to wait for next; `None` when the client is done with.
    pub(super) fn advance(&mut self, store: &SharedStore, readable: bool) -> Option<EpollFlags> {
        if readable && !self.is_full() {
            self.receive().ok()?;
        }
        self.work(store)?;
        self.send().ok()?;
        let mut interest = EpollFlags::empty();
        interest.set(EpollFlags::EPOLLIN, !self.is_full());
        interest.set(EpollFlags::EPOLLOUT, self.held || self.sent < self.out.len());
        Some(interest)
    }

    /// Whether the store has something for this client that it could take now.
    pub(super) fn is_due(&self, store: &XenStore) -> bool {
        self.connection.is_some_and(|id| !store.is_open(id) || (store.has_event(id) && !self.is_full()))
    }

    pub(super) fn close(self, store: &SharedStore) {
        if let Some(connection) = self.connection {
            store.with(|store| store.disconnect(connection));
        }
    }

    fn receive(&mut self) -> io::Result<()> {
        let mut chunk = [0; READ_CHUNK];
        match self.stream.read(&mut chunk) {
            Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => {
                self.decoder.push(chunk.get(..count).unwrap_or_default());
                Ok(())
            }
            Err(error) if is_passing(&error) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Answers what was read, then takes events; replies go first, since a watch is acknowledged before it fires.
    fn work(&mut self, store: &SharedStore) -> Option<()> {
        store.with(|store| {
            self.held = true;
            while !self.is_full() {
                match self.decoder.next_message().ok()? {
                    Some(request) => self.answer(store, &request)?.encode(&mut self.out),
                    None => match self.connection.and_then(|id| store.next_event(id)) {
                        Some(event) => Message::event(&event)?.encode(&mut self.out),
                        None => {
                            self.held = false;
                            break;
                        }
                    },
                }
            }
            self.connection.is_none_or(|id| store.is_open(id)).then_some(())
        })
    }

    fn answer(&mut self, store: &mut XenStore, request: &Message) -> Option<Message> {
        if self.connection.is_none() && request.kind == Kind::ACT_AS {
            let domain = wire::split(&request.payload).next().flatten().and_then(wire::parse_domain);
            let Some(domain) = domain else { return Some(request.refusal(Errno::Inval)) };
            self.connection = store.connect(domain);
            let known = self.connection.is_some();
            return Some(if known { request.reply(b"OK\0".into()) } else { request.refusal(Errno::Noent) });
        }
        if self.connection.is_none() {
            self.connection = store.connect(DomId::DOM0);
        }
        store.handle(self.connection?, request)
    }

    fn send(&mut self) -> io::Result<()> {
        while self.sent < self.out.len() {
            match self.stream.write(self.out.get(self.sent..).unwrap_or_default()) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => self.sent += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.out.drain(..self.sent);
        self.sent = 0;
        Ok(())
    }

    fn is_full(&self) -> bool {
        self.out.len() - self.sent >= OUT_LIMIT
    }
}

impl AsFd for Client {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

fn is_passing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}
