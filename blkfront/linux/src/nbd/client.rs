//! One client's socket and what is under way for it.

use std::{
    collections::VecDeque,
    io::{self, IoSlice, Read as _, Write as _},
    os::{
        fd::{AsFd, BorrowedFd},
        unix::net::UnixStream,
    },
};

use super::conversation::Conversation;

/// Requests of one client that are worked on at once; the next ones wait in the socket.
const MOST_JOBS: usize = 256;
/// Bytes of answers that may wait for a client before its next requests are read.
const MOST_WAITING: usize = 32 << 20;
/// Answers written by one system call.
const BATCH: usize = 64;

/// A connected client.
#[derive(Debug)]
pub(super) struct Client {
    stream: UnixStream,
    pub(super) talk: Conversation,
    /// Tells this client from others that have had its place before.
    pub(super) generation: u64,
    /// The job whose data is being received.
    pub(super) receiving: Option<usize>,
    /// Requests that are worked on, and the bytes of answers that are promised or wait.
    pub(super) jobs: usize,
    pub(super) promised: usize,
    /// The socket may have bytes.
    pub(super) readable: bool,
    /// No more requests are heard.
    pub(super) ending: bool,
    /// The socket is of no more use.
    pub(super) broken: bool,
    waiting: VecDeque<Vec<u8>>,
    /// Bytes of the first waiting answer that are sent already.
    sent: usize,
}

impl Client {
    /// Greets a new client.
    pub(super) fn new(stream: UnixStream, generation: u64) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        let mut greeting = Vec::new();
        let talk = Conversation::start(&mut greeting);
        Ok(Self {
            stream,
            talk,
            generation,
            receiving: None,
            jobs: 0,
            promised: greeting.len(),
            readable: true,
            ending: false,
            broken: false,
            waiting: VecDeque::from([greeting]),
            sent: 0,
        })
    }

    /// Reads once. False when there is nothing now.
    pub(super) fn receive(&mut self) -> bool {
        match self.stream.read(self.talk.room()) {
            Ok(0) => self.ending = true,
            Ok(count) => {
                self.talk.received(count);
                return true;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return true,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.readable = false,
            Err(_) => self.broken = true,
        }
        false
    }

    /// Puts an answer in line; its bytes are promised already.
    pub(super) fn answer(&mut self, bytes: Vec<u8>) {
        self.waiting.push_back(bytes);
    }

    /// Sends what waits as far as the socket takes it. Sent buffers go to `recycle`.
    pub(super) fn send(&mut self, mut recycle: impl FnMut(Vec<u8>)) {
        while !self.waiting.is_empty() && !self.broken {
            let mut slices = [IoSlice::new(&[]); BATCH];
            let mut skip = self.sent;
            for (slice, bytes) in slices.iter_mut().zip(&self.waiting) {
                *slice = IoSlice::new(bytes.get(skip..).unwrap_or_default());
                skip = 0;
            }
            match self.stream.write_vectored(&slices[..self.waiting.len().min(BATCH)]) {
                Ok(count) => self.forget(count, &mut recycle),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => self.broken = true,
            }
        }
    }

    /// Enough is under way for this client.
    pub(super) fn busy(&self) -> bool {
        self.jobs >= MOST_JOBS || self.promised >= MOST_WAITING
    }

    /// Everything asked is answered and sent.
    pub(super) fn settled(&self) -> bool {
        self.jobs == 0 && self.waiting.is_empty()
    }

    fn forget(&mut self, count: usize, recycle: &mut impl FnMut(Vec<u8>)) {
        self.promised = self.promised.saturating_sub(count);
        self.sent += count;
        while self.waiting.front().is_some_and(|bytes| bytes.len() <= self.sent) {
            let Some(bytes) = self.waiting.pop_front() else { break };
            self.sent -= bytes.len();
            recycle(bytes);
        }
    }
}

impl AsFd for Client {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}
