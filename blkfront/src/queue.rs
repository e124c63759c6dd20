//! One queue: a ring, its event channel and the work in flight, owned by one thread at a time.
//!
//! ```text
//! submit ─▶ admit, split ─▶ backlog ─▶ issue: lend, in-flight slot, bytes ─▶ ring ─▶ publish
//!                                                                              │
//! Completion ◀── settle ◀── reap: id, generation, operation ◀──── response ◀───┘
//! ```

use alloc::{boxed::Box, collections::VecDeque, vec::Vec};
use core::{cell::Cell, marker::PhantomData, sync::atomic::Ordering};

use blkif_proto::{Entry, MAX_ENTRY_SIZE, Segment, indirect, segment_block::MAX_ENTRIES};
use xen_platform::{EventChannels, FrontWorld, GrantError, Port};

use crate::{
    Buffer, Completion, DeviceError, Io, Link, RejectReason, Rejected, Ticket, admit::admit, grants::Grants,
    inflight::Inflight, spin::Spinner,
};

mod issue;
mod reap;
mod sleep;

pub(crate) use issue::{Pending, Shadow};

/// One queue of a connected device.
///
/// It can move to another thread (`Send`) but belongs to one at a time (not `Sync`, not `Clone`, `&mut self` throughout): there
/// are no locks in it. A turn of its owner looks like this:
///
/// ```text
/// submit… ─▶ publish ─▶ finish ─▶ (nothing left to do?) wait ─▶ finish …
/// ```
///
/// ```compile_fail
/// fn share<T: Sync>() {}
/// share::<blkfront::Queue<xen_platform::fake::World>>();
/// ```
pub struct Queue<W: FrontWorld> {
    pub(crate) link: Link<W>,
    pub(crate) grants: Grants<W::Lender>,
    /// Accepted, not given back.
    pub(crate) ios: Inflight<Pending>,
    /// In the ring, not answered.
    pub(crate) requests: Inflight<Shadow>,
    /// What is not in the ring entirely, in order of submission.
    pub(crate) backlog: VecDeque<u64>,
    /// The last barrier that went into the ring.
    barrier: Option<u64>,
    /// Requests written since the last publish.
    pub(crate) fresh: Vec<u64>,
    /// Ended outside of `finish`, to be given back by the next.
    pub(crate) ended: VecDeque<Completion>,
    pub(crate) next: Ticket,
    /// The first ticket that the backend may not have seen.
    pub(crate) unpublished: Ticket,
    pub(crate) failed: Option<DeviceError>,
    pub(crate) stats: QueueStats,
    scratch: Scratch,
    /// Our port was delivered and must be unmasked before the next sleep.
    masked: Option<Port>,
    spinner: Spinner,
    callback: Option<Box<dyn FnMut(Completion) + Send>>,
    callback_enabled: bool,
    _one_owner: PhantomData<Cell<()>>,
}

/// Counters since the queue was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueStats {
    /// Accepted [`Io`]s.
    pub submitted: u64,
    /// [`Io`]s given back, in whatever way they ended.
    pub completed: u64,
    /// Ring requests made of them.
    pub requests: u64,
    /// Notifications sent to the backend.
    pub notifications: u64,
    /// Events received from the backend.
    pub events: u64,
    /// Events without a response behind them.
    pub spurious: u64,
    /// [`Io`]s given again to a backend that came back.
    pub requeued: u64,
    /// Pages kept out of use because the backend still maps them.
    pub quarantined: u64,
}

/// Room for one request on its way to or from the ring.
struct Scratch {
    entries: Box<[Entry; MAX_ENTRIES]>,
    segments: Vec<Segment>,
    descriptors: Box<[u8]>,
    response: Entry,
}

impl Scratch {
    fn new(max_segments: u16) -> Self {
        let segments = usize::from(max_segments);
        Self {
            entries: Box::new([[0; MAX_ENTRY_SIZE]; MAX_ENTRIES]),
            segments: Vec::with_capacity(segments),
            descriptors: alloc::vec![0; indirect::bytes_for(segments)].into_boxed_slice(),
            response: [0; MAX_ENTRY_SIZE],
        }
    }
}

impl<W: FrontWorld> Queue<W> {
    /// A queue on a connected link. `None` if the link was taken apart, which no caller can do.
    pub(crate) fn new(mut link: Link<W>) -> Option<Self> {
        let grants = Grants::new(link.parts.home.take()?, link.persistent);
        let depth = link.entries();
        let requests = link.max_requests();
        Some(Self {
            grants,
            ios: Inflight::new(depth),
            requests: Inflight::new(requests),
            backlog: VecDeque::with_capacity(depth),
            barrier: None,
            fresh: Vec::with_capacity(requests),
            ended: VecDeque::new(),
            next: Ticket(0),
            unpublished: Ticket(0),
            failed: None,
            stats: QueueStats::default(),
            scratch: Scratch::new(link.limits.max_segments),
            masked: None,
            spinner: Spinner::default(),
            callback: None,
            callback_enabled: false,
            _one_owner: PhantomData,
            link,
        })
    }

    /// Takes memory of `bytes`, rounded up to pages, at least one. It comes from the queue's pool of idle buffers if there is one of
    /// this size: that allocates nothing, and with persistent grants it costs no grant operation. Else it comes from the lender, for
    /// which idle buffers of other sizes make room if they must. Errors: no memory or grants left.
    pub fn alloc_buffer(&mut self, bytes: usize) -> Result<Buffer, GrantError> {
        self.grants.alloc(bytes)
    }

    /// Gives memory back to the pool. Memory of another queue is lost until the world ends.
    pub fn free_buffer(&mut self, buffer: Buffer) {
        self.grants.free(buffer);
    }

    /// Accepts an [`Io`]. The backend sees nothing before [`publish`](Self::publish). Never blocks, allocates no memory. What the
    /// ring has no room for waits in the queue. While the backend is gone everything does.
    ///
    /// Errors: see [`RejectReason`]; the most usual is [`Full`](RejectReason::Full).
    #[inline]
    #[expect(clippy::result_large_err, reason = "a rejected I/O comes back whole, buffer included")]
    pub fn submit(&mut self, io: Io) -> Result<Ticket, Rejected> {
        if let Some(error) = self.failed {
            return Err(Rejected { io, reason: RejectReason::Device(error) });
        }
        let capacity = self.link.shared.sectors.load(Ordering::Relaxed);
        let split = match admit(&io, &self.link.limits, capacity) {
            Ok(_) if io.buffer.as_ref().is_some_and(|buffer| !self.grants.owns(buffer)) => {
                return Err(Rejected { io, reason: RejectReason::ForeignBuffer });
            }
            Ok(split) => split,
            Err(reason) => return Err(Rejected { io, reason }),
        };
        let ticket = self.next;
        match self.ios.insert(Pending::new(ticket, io, split)) {
            Ok(id) => {
                self.backlog.push_back(id);
                if let Some(tap) = self.link.parts.tap() {
                    tap.came_to("submit", id);
                }
            }
            Err(pending) => return Err(Rejected { io: pending.io, reason: RejectReason::Full }),
        }
        self.next.0 += 1;
        self.stats.submitted += 1;
        self.feed();
        Ok(ticket)
    }

    /// Shows everything submitted to the backend, with one notification if it asks for one. Errors: the event channel failed.
    #[inline]
    pub fn publish(&mut self) -> Result<(), DeviceError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        self.unpublished = self.next;
        self.fresh.clear();
        if let Some(ring) = &mut self.link.parts.ring
            && ring.publish().is_needed()
        {
            self.stats.notifications += 1;
            let notified = self.link.parts.events.notify(self.link.parts.port);
            return notified.map_err(|error| self.fail(DeviceError::Event(error)));
        }
        Ok(())
    }

    /// Fits what depends on the link to a new one.
    pub(crate) fn renew(&mut self) {
        self.scratch = Scratch::new(self.link.limits.max_segments);
        self.masked = None;
    }

    /// Number of this queue, from 0.
    pub fn index(&self) -> u32 {
        self.link.index()
    }

    /// How many [`Io`]s the queue takes at once, whatever their size: the entries of its ring.
    pub fn depth(&self) -> usize {
        self.ios.capacity()
    }

    /// How many accepted [`Io`]s have not been given back yet.
    pub fn in_flight(&self) -> usize {
        self.ios.len() + self.ended.len()
    }

    /// True when the backend of this link is gone and a new one is awaited ([`reconnect`](Self::reconnect)).
    pub fn is_stale(&self) -> bool {
        self.link.is_stale()
    }

    /// Counters.
    pub fn stats(&self) -> QueueStats {
        QueueStats { quarantined: self.grants.quarantined() as u64, ..self.stats }
    }

    /// The queue's event channels, for a descriptor to poll.
    pub fn events(&self) -> &W::Events {
        &self.link.parts.events
    }

    /// The world's clock.
    pub fn clock(&self) -> &W::Clock {
        &self.link.clock
    }
}

impl<W: FrontWorld> Drop for Queue<W> {
    /// Takes back all memory that was lent; work in flight is lost.
    fn drop(&mut self) {
        let Self { link, grants, ios, .. } = self;
        link.parts.close(grants.lender());
        let in_flight = ios.iter_mut().filter_map(|(_, pending)| pending.io.buffer.take());
        let ended = self.ended.iter_mut().filter_map(|completion| completion.io.buffer.take());
        in_flight.chain(ended).for_each(|buffer| grants.free(buffer));
    }
}

#[cfg(test)]
mod tests;
