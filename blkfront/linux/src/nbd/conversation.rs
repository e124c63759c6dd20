//! What one client says, without its socket: bytes in, checked requests out.

use super::{
    export::{Export, Job},
    handshake::{Handshake, HandshakeError, LONGEST_OPTION, Step},
    wire::{BadMagic, Command, Errno, Request},
};

/// Room for received bytes: a few small requests with their data, or one [`PIECE`] of a large one.
const ROOM: usize = 2 * PIECE;
/// Data of a write is taken in pieces of this many bytes.
pub(super) const PIECE: usize = 128 << 10;
const _: () = assert!(ROOM > LONGEST_OPTION as usize + 64 && ROOM > PIECE + Request::BYTES);

/// One client's side of the protocol.
#[derive(Debug)]
pub(super) struct Conversation {
    phase: Phase,
    inbox: Box<[u8]>,
    start: usize,
    end: usize,
}

#[derive(Debug)]
enum Phase {
    Handshake(Handshake),
    Requests,
    /// Data of an accepted write follows.
    Payload(u32),
    /// Data of a refused write follows: it has to be passed over to find the next request.
    Skip(u32),
    Over,
}

/// What the client said.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Said {
    /// Nothing that is there whole.
    Nothing,
    /// A request that makes sense. The data of a write follows by [`Conversation::payload`].
    Wants { cookie: u64, job: Job },
    /// A request to be answered with an error.
    Refused { cookie: u64, error: Errno },
    /// No more requests will come.
    Goodbye,
}

/// The client broke the protocol beyond repair.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum ProtocolError {
    #[error(transparent)]
    Handshake(#[from] HandshakeError),
    #[error(transparent)]
    Request(#[from] BadMagic),
}

impl Conversation {
    /// Greets a new client; `out` takes the bytes to send.
    pub(super) fn start(out: &mut Vec<u8>) -> Self {
        let phase = Phase::Handshake(Handshake::greet(out));
        Self { phase, inbox: vec![0; ROOM].into_boxed_slice(), start: 0, end: 0 }
    }

    /// Room for received bytes; never empty while [`next`](Self::next) and [`payload`](Self::payload) are kept up with.
    pub(super) fn room(&mut self) -> &mut [u8] {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        } else if self.inbox.len() - self.end < PIECE {
            self.inbox.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        &mut self.inbox[self.end..]
    }

    /// `bytes` were received into the [room](Self::room).
    pub(super) fn received(&mut self, bytes: usize) {
        self.end = self.inbox.len().min(self.end + bytes);
    }

    /// What the client said next; `out` takes the handshake's answers.
    pub(super) fn next(&mut self, export: &Export, out: &mut Vec<u8>) -> Result<Said, ProtocolError> {
        loop {
            match &mut self.phase {
                Phase::Handshake(handshake) => {
                    let (taken, step) = handshake.advance(&self.inbox[self.start..self.end], export, out)?;
                    self.start += taken;
                    match step {
                        Step::Continue if taken == 0 => return Ok(Said::Nothing),
                        Step::Continue => {}
                        Step::Transmission => self.phase = Phase::Requests,
                        Step::Goodbye => self.phase = Phase::Over,
                    }
                }
                Phase::Requests => {
                    let Some((header, _)) = self.inbox[self.start..self.end].split_first_chunk() else {
                        return Ok(Said::Nothing);
                    };
                    let request = Request::parse(header)?;
                    self.start += Request::BYTES;
                    return Ok(self.request(&request, export));
                }
                Phase::Payload(_) => return Ok(Said::Nothing),
                Phase::Skip(left) => {
                    let there = u32::try_from(self.end - self.start).unwrap_or(u32::MAX).min(*left);
                    self.start += there as usize;
                    *left -= there;
                    if *left > 0 {
                        return Ok(Said::Nothing);
                    }
                    self.phase = Phase::Requests;
                }
                Phase::Over => return Ok(Said::Goodbye),
            }
        }
    }

    /// How many bytes the next piece of an accepted write's data has, once all of them are there.
    pub(super) fn payload(&self) -> Option<usize> {
        let Phase::Payload(left) = self.phase else { return None };
        let piece = (left as usize).min(PIECE);
        (self.end - self.start >= piece).then_some(piece)
    }

    /// True while data of an accepted write is still to come.
    pub(super) fn in_payload(&self) -> bool {
        matches!(self.phase, Phase::Payload(_))
    }

    /// Takes the piece of data that [`payload`](Self::payload) announced.
    pub(super) fn take_payload(&mut self) -> &[u8] {
        let Some(piece) = self.payload() else { return &[] };
        if let Phase::Payload(left) = &mut self.phase {
            *left = left.saturating_sub(u32::try_from(piece).unwrap_or(u32::MAX));
            if *left == 0 {
                self.phase = Phase::Requests;
            }
        }
        let start = self.start;
        self.start += piece;
        &self.inbox[start..self.start]
    }

    fn request(&mut self, request: &Request, export: &Export) -> Said {
        let cookie = request.cookie;
        if request.command == Command::DISCONNECT {
            self.phase = Phase::Over;
            return Said::Goodbye;
        }
        let checked = export.check(request);
        if request.command == Command::WRITE {
            self.phase = match checked {
                Ok(_) => Phase::Payload(request.length),
                Err(_) => Phase::Skip(request.length),
            };
        }
        match checked {
            Ok(job) => Said::Wants { cookie, job },
            Err(error) => Said::Refused { cookie, error },
        }
    }
}

#[cfg(test)]
mod tests;
