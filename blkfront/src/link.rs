//! What one queue shares with one incarnation of its backend: ring, event channel, descriptor pages.

use alloc::{sync::Arc, vec::Vec};
use core::{
    sync::atomic::{AtomicU32, AtomicU64, Ordering},
    time::Duration,
};

use blkif_proto::{Agreement, GrantRef, Limits, SegmentMode, indirect, keys::QueueRecord};
use ringbuf::{FrontRing, Mapped, Tap, Tapped};
use xen_platform::{Access, DomId, EventChannels, FrontWorld, GrantError, Lender, Pages, Port};

use crate::{Error, grants::Home};

/// One queue's half of a connection. Made by the device, moved into a queue; what it shares is taken back when it is dropped.
pub struct Link<W: FrontWorld> {
    pub(crate) parts: Parts<W>,
    /// What requests may be.
    pub(crate) limits: Limits,
    pub(crate) persistent: bool,
    /// Which of the device's connections it belongs to.
    pub(crate) epoch: u32,
    pub(crate) shared: Arc<Shared>,
    pub(crate) clock: W::Clock,
    /// How long a backend may say nothing to somebody who can do nothing but wait.
    pub(crate) patience: Duration,
}

impl<W: FrontWorld> Link<W> {
    /// Number of the queue it is for, from 0.
    pub fn index(&self) -> u32 {
        self.parts.index
    }

    /// Entries of the ring.
    pub(crate) fn entries(&self) -> usize {
        self.parts.ring.as_ref().map_or(0, |ring| ring.layout().entries() as usize)
    }

    /// Requests that may be in flight.
    pub(crate) fn max_requests(&self) -> usize {
        self.entries().min(self.limits.max_requests as usize)
    }

    /// True when the backend at the other end is gone.
    #[inline]
    pub(crate) fn is_stale(&self) -> bool {
        self.shared.epoch.load(Ordering::Relaxed) != self.epoch
    }
}

/// What the device and the threads of its queues tell each other. None of it guards memory: relaxed loads and stores do.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    /// The number of the present connection; moves on when the backend goes away.
    pub(crate) epoch: AtomicU32,
    /// The disk's size in 512-byte sectors.
    pub(crate) sectors: AtomicU64,
}

/// Ring, event channel and descriptor pages, lent but not necessarily in use.
pub(crate) struct Parts<W: FrontWorld> {
    pub(crate) index: u32,
    /// `None` once taken apart.
    pub(crate) ring: Option<FrontRing<Tapped<Mapped<Pages>>>>,
    pub(crate) events: W::Events,
    pub(crate) port: Port,
    /// For indirect requests: one run of pages for each request in flight.
    pub(crate) descriptors: Vec<Pages>,
    /// The lender of all that, and of the queue's buffers from now on; `None` once moved to the queue.
    pub(crate) home: Option<Home<W::Lender>>,
}

impl<W: FrontWorld> Parts<W> {
    /// Makes and lends everything for queue `index`. Errors: no memory, grants or ports left.
    pub(crate) fn new(world: &W, to: DomId, index: u32, agreement: &Agreement) -> Result<Self, Error> {
        let mut home = Home::new(world.lender(to)?);
        let mut events = world.events()?;
        let port = events.alloc_unbound(to)?;
        let mut parts = Self { index, ring: None, events, port, descriptors: Vec::new(), home: None };
        let made = parts.lend(home.lender(), agreement, world.tap(index));
        // From here on dropping the parts takes back what has been lent so far.
        parts.home = Some(home);
        made?;
        Ok(parts)
    }

    /// Who is told what passes the ring.
    #[inline]
    pub(crate) fn tap(&self) -> Option<&dyn Tap> {
        self.ring.as_ref().and_then(|ring| ring.mem().tap())
    }

    /// What the backend has to know.
    pub(crate) fn record(&self) -> QueueRecord {
        let pages = self.ring.as_ref().map(|ring| ring.mem().pages().grants());
        QueueRecord {
            ring_refs: pages.map(<[GrantRef]>::to_vec).unwrap_or_default(),
            event_channel: self.port.0,
        }
    }

    /// Takes everything back into `lender`, which lent it.
    pub(crate) fn close(&mut self, lender: &mut W::Lender) {
        // An event for a port that is gone says nothing; neither does closing it fail in a way that matters.
        let _ = self.events.unbind(self.port);
        if let Some(ring) = self.ring.take() {
            lender.release(ring.into_mem().into_inner().into_pages());
        }
        self.descriptors.drain(..).for_each(|pages| lender.release(pages));
    }

    fn lend(
        &mut self,
        lender: &mut W::Lender,
        agreement: &Agreement,
        tap: Option<Arc<dyn Tap>>,
    ) -> Result<(), GrantError> {
        let mut pages = lender.alloc(agreement.ring_pages as usize)?;
        // Lent before the ring is initialised, told to nobody before it is.
        if let Err(error) = lender.lend(&mut pages, Access::ReadWrite) {
            lender.release(pages);
            return Err(error);
        }
        let mapped = Mapped::new(pages, agreement.abi.entry_size()).map_err(|_| GrantError::Exhausted)?;
        let ring = FrontRing::init(Tapped::new(mapped, tap));
        let requests = ring.layout().entries().min(agreement.max_requests);
        self.ring = Some(ring);
        if agreement.mode == SegmentMode::Indirect {
            let count = indirect::pages_for(agreement.max_segments.into());
            let access = if agreement.persistent { Access::ReadWrite } else { Access::Read };
            for _ in 0..requests {
                let mut pages = lender.alloc(count)?;
                let lent = lender.lend(&mut pages, access);
                self.descriptors.push(pages);
                lent?;
            }
        }
        Ok(())
    }
}

impl<W: FrontWorld> Drop for Parts<W> {
    fn drop(&mut self) {
        if let Some(mut home) = self.home.take() {
            self.close(home.lender());
        }
    }
}
