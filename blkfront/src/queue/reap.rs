//! From responses in the ring to completions.

use blkif_proto::{Opcode, Response, Status};
use ringbuf::Corrupt;
use xen_platform::{FrontWorld, GrantError};

use super::{Pending, Queue, Shadow};
use crate::{Completion, DeviceError, IoError};

impl<W: FrontWorld> Queue<W> {
    /// Takes every response that is there and gives the completed [`Io`](crate::Io)s to `out`; returns how many. Work that waited
    /// for room in the ring moves up and is published. Never blocks.
    ///
    /// Errors: the peer broke the protocol. Everything unanswered then has gone to `out` with that error.
    #[inline]
    pub fn finish(&mut self, out: &mut impl FnMut(Completion)) -> Result<usize, DeviceError> {
        let before = self.stats.completed;
        while let Some(ended) = self.ended.pop_front() {
            self.stats.completed += 1;
            out(ended);
        }
        if self.failed.is_none() {
            if let Err(error) = self.reap(out) {
                self.fail(error);
            }
            if !self.backlog.is_empty() {
                self.feed();
            }
            // What failed to be published is seen below.
            let _ = self.publish_backlog();
        }
        if let Some(error) = self.failed {
            self.cancel(IoError::Device(error), out);
            return Err(error);
        }
        #[expect(clippy::cast_possible_truncation, reason = "at most the depth of the queue")]
        Ok((self.stats.completed - before) as usize)
    }

    /// The connection is unusable from now on.
    #[cold]
    pub(crate) fn fail(&mut self, error: DeviceError) -> DeviceError {
        *self.failed.get_or_insert(error)
    }

    /// Ends one I/O of which nothing is in the ring.
    pub(crate) fn give_up(&mut self, id: u64, error: IoError) {
        if let Some(Pending { ticket, io, .. }) = self.ios.take(id) {
            self.ended.push_back(Completion { ticket, io, result: Err(error) });
        }
    }

    #[inline]
    fn reap(&mut self, out: &mut impl FnMut(Completion)) -> Result<(), DeviceError> {
        loop {
            let size = self.link.limits.abi.response_size();
            let Some(ring) = &mut self.link.parts.ring else { return Ok(()) };
            if !ring.peek(&mut self.scratch.response[..size]).map_err(corrupt)? {
                return Ok(());
            }
            let response = Response::parse(&self.scratch.response);
            // The stride is in our shadow only, so a response to nothing ends the connection.
            let shadow =
                self.requests.take(response.id).ok_or(DeviceError::ForeignResponse { id: response.id })?;
            ring.consume(shadow.entries).map_err(corrupt)?;
            if !answers(&shadow, response.op) {
                return Err(DeviceError::WrongOperation { sent: shadow.op.0, answered: response.op.0 });
            }
            self.answer(shadow.io, response.status, out)?;
        }
    }

    /// One request of an I/O is answered.
    #[inline]
    fn answer(
        &mut self,
        id: u64,
        status: Status,
        out: &mut impl FnMut(Completion),
    ) -> Result<(), DeviceError> {
        let Some(pending) = self.ios.get_mut(id) else { return Ok(()) };
        pending.outstanding = pending.outstanding.saturating_sub(1);
        if status != Status::OKAY && pending.result.is_ok() {
            pending.result = Err(match status {
                Status::ERROR => IoError::Failed,
                Status::NOT_SUPPORTED => IoError::NotSupported,
                Status(other) => IoError::UnknownStatus(other),
            });
        }
        if pending.outstanding > 0 || !pending.issued {
            return Ok(());
        }
        let Some(Pending { ticket, mut io, mut result, .. }) = self.ios.take(id) else { return Ok(()) };
        let mut settled = Ok(());
        if let Some(buffer) = &mut io.buffer
            && let Err(error) = self.grants.settle(buffer)
        {
            let error = still_mapped(error);
            if let Some(buffer) = io.buffer.take() {
                self.grants.quarantine(buffer);
            }
            result = Err(IoError::Device(error));
            settled = Err(error);
        }
        self.stats.completed += 1;
        out(Completion { ticket, io, result });
        if let Some(tap) = self.link.parts.tap() {
            tap.came_to("end", id);
        }
        settled
    }

    /// Publishes what `feed` moved up; what was submitted and not published stays so.
    #[inline]
    fn publish_backlog(&mut self) -> Result<(), DeviceError> {
        if self.unpublished == self.next && !self.fresh.is_empty() { self.publish() } else { Ok(()) }
    }
}

/// A page that could not be taken back, as a verdict on the backend.
pub(crate) fn still_mapped(error: GrantError) -> DeviceError {
    match error {
        GrantError::Busy(gref) => DeviceError::StillMapped(gref),
        other => DeviceError::Grant(other),
    }
}

pub(crate) fn corrupt(_: Corrupt) -> DeviceError {
    DeviceError::CorruptRing
}

/// An indirect request is answered with the operation inside (Linux); 6 is accepted too (PROTOCOL.md 8.1, quirk 2).
#[inline]
fn answers(shadow: &Shadow, answered: Opcode) -> bool {
    answered == shadow.op || shadow.indirect && answered == Opcode::INDIRECT
}
