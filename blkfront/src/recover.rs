//! Work that the backend will not answer: taken back before it was shown, ended without an answer, or given again to a backend
//! that came back.
//!
//! Reads, writes, flushes and discards that were not answered may be done again: whoever waits for them has not been told
//! anything yet. Their order is that of submission, and a barrier keeps its place in it.

use alloc::vec::Vec;
use core::sync::atomic::Ordering;

use xen_platform::{FrontWorld, GrantError};

use crate::{
    Completion, DeviceError, Io, IoError, Link, Queue, Ticket, admit::admit, inflight::Inflight,
    queue::Pending,
};

impl<W: FrontWorld> Queue<W> {
    /// Takes back what was submitted since the last [`publish`](Self::publish), in order.
    pub fn abort(&mut self, out: &mut impl FnMut(Io)) {
        while let Some(request) = self.fresh.pop() {
            let Some(shadow) = self.requests.take(request) else { continue };
            if let Some(pending) = self.ios.get_mut(shadow.io) {
                pending.outstanding = pending.outstanding.saturating_sub(1);
                pending.cursor = pending.cursor.min(shadow.start);
                pending.issued = false;
            }
        }
        if let Some(ring) = &mut self.link.parts.ring {
            ring.abort();
        }
        let unpublished = self.unpublished;
        for (_, id) in self.by_ticket(|pending| pending.ticket >= unpublished) {
            let Some(mut pending) = self.ios.take(id) else { continue };
            // The backend never learnt of these grants, so it cannot have mapped the pages.
            if let Some(buffer) = &mut pending.io.buffer {
                let _ = self.grants.settle(buffer);
            }
            self.stats.submitted -= 1;
            out(pending.io);
        }
        self.refill_backlog();
    }

    /// Ends the link, and all unanswered work with `error`, without waiting for the backend. Its memory is taken back; what the
    /// backend still maps is kept out of use and missing from the completion.
    pub(crate) fn cancel(&mut self, error: IoError, out: &mut impl FnMut(Completion)) {
        self.link.parts.close(self.grants.lender());
        self.backlog.clear();
        self.requests.clear();
        self.fresh.clear();
        while let Some(ended) = self.ended.pop_front() {
            self.stats.completed += 1;
            out(ended);
        }
        for (ticket, id) in self.by_ticket(|_| true) {
            let Some(Pending { mut io, .. }) = self.ios.take(id) else { continue };
            if let Some(buffer) = &mut io.buffer
                && matches!(self.grants.reclaim(buffer), Err(GrantError::Busy(_)))
                && let Some(buffer) = io.buffer.take()
            {
                self.grants.quarantine(buffer);
            }
            self.stats.completed += 1;
            out(Completion { ticket, io, result: Err(error) });
        }
    }

    /// Moves to the link of a reconnected backend and gives it everything unanswered, in order. Buffers move too, to pages that
    /// this backend has never seen. What the disk cannot take any more (it has shrunk, say) ends as [`IoError::Refused`] at the next
    /// [`finish`](Self::finish).
    ///
    /// Errors: the event channel failed.
    pub fn reconnect(&mut self, mut link: Link<W>) -> Result<(), DeviceError> {
        let Some(home) = link.parts.home.take() else { return Ok(()) };
        self.link.parts.close(self.grants.lender());
        self.grants.replace(home, link.persistent);
        self.requests = Inflight::new(link.max_requests());
        self.fresh = Vec::with_capacity(link.max_requests());
        self.link = link;
        self.failed = None;
        self.renew();

        let capacity = self.link.shared.sectors.load(Ordering::Relaxed);
        for (_, id) in self.by_ticket(|_| true) {
            let Some(pending) = self.ios.get_mut(id) else { continue };
            let admitted = admit(&pending.io, &self.link.limits, capacity);
            pending.rewind();
            self.stats.requeued += 1;
            match admitted {
                Ok(split) => pending.split = split,
                Err(reason) => self.give_up(id, IoError::Refused(reason)),
            }
        }
        self.refill_backlog();
        self.feed();
        self.publish()
    }

    /// What waits is whatever is not in the ring entirely.
    fn refill_backlog(&mut self) {
        self.backlog.clear();
        let waiting = self.by_ticket(|pending| !pending.issued);
        self.backlog.extend(waiting.into_iter().map(|(_, id)| id));
    }

    /// The work in flight that `which` chooses, in order of submission.
    fn by_ticket(&mut self, which: impl Fn(&Pending) -> bool) -> Vec<(Ticket, u64)> {
        let chosen = self.ios.iter_mut().filter(|(_, pending)| which(pending));
        let mut chosen: Vec<_> = chosen.map(|(id, pending)| (pending.ticket, id)).collect();
        chosen.sort_unstable();
        chosen
    }
}
