//! One queue of one device: a ring, its event channel, its pages and its disk, owned by one worker.

use std::{collections::VecDeque, sync::Arc};

use blkif_proto::{Entry, GrantRef, Head, Limits};
use ringbuf::{BackRing, Corrupt, LayoutError, Mapped, Tap, Tapped};
use xen_platform::{BackWorld, DomId, EventChannels, EventError, GrantError, Mapper, Port};

use super::{
    cache::GrantCache,
    complaint::Complaints,
    hold::Held,
    inflight::Ticket,
    resume::{self, LogSpec},
    timing::Timing,
};
use crate::{
    config::Strategy,
    limit::{DiskThrottle, Gate},
    log::{Log, recover::RecoverError},
    stats::QueueStats,
    steps::{Step, reached},
    storage::{DiskId, Image},
};

/// How a worker maps pages in world `W`.
pub type MappingOf<W> = <<W as BackWorld>::Mapper as Mapper>::Mapping;
type RingOf<W> = BackRing<Tapped<Mapped<<<W as BackWorld>::Mapper as Mapper>::RingPages>>>;

/// Names a queue: the device's number within the daemon, and the queue's within the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct QueueKey {
    /// The connection; a device that connects again gets a new number.
    pub connection: u64,
    /// From 0.
    pub queue: u32,
}

/// Everything a worker needs to serve a queue.
#[derive(Clone, Debug)]
pub struct QueueSpec {
    /// Its name.
    pub key: QueueKey,
    /// The guest.
    pub dom: DomId,
    /// The ring's pages.
    pub ring_refs: Vec<GrantRef>,
    /// The guest's event channel.
    pub port: Port,
    /// What was negotiated.
    pub limits: Limits,
    /// How data reaches the guest.
    pub strategy: Strategy,
    /// Persistent grants were negotiated.
    pub persistent: bool,
    /// Pages to keep mapped at most.
    pub cache_pages: usize,
    /// An earlier daemon may have served the ring: requests may be in it that it took, and only its log tells which.
    pub used: bool,
    /// What is under way is noted here; none: a killed daemon's requests are lost.
    pub log: Option<LogSpec>,
    /// The disk.
    pub image: Arc<Image>,
    /// What its requests may do in a second; none: whatever they like, for ever.
    pub throttle: Option<DiskThrottle>,
    /// Where to count.
    pub stats: Arc<QueueStats>,
    /// Who is told what passes the ring.
    pub tap: Option<Arc<dyn Tap>>,
}

/// Why a queue could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The ring's pages cannot be mapped.
    #[error("cannot map the ring: {0}")]
    Ring(#[from] GrantError),
    /// The pages make no ring.
    #[error("cannot use the ring: {0}")]
    Layout(#[from] LayoutError),
    /// The indices are impossible.
    #[error("the ring is corrupt: {0}")]
    Corrupt(#[from] Corrupt),
    /// The event channel cannot be bound.
    #[error("cannot bind event channel {port}: {source}")]
    Bind {
        /// The guest's port.
        port: Port,
        /// Why not.
        source: EventError,
    },
    /// Requests of an earlier daemon are in the ring.
    #[error(
        "{entries} requests are in the ring, and which of them an earlier daemon has done cannot be known: {cause}"
    )]
    Used {
        /// Ring entries without an answer.
        entries: u32,
        /// What is wrong with the log.
        cause: Box<RecoverError>,
    },
    /// The storage does not take the disk.
    #[error("cannot use the disk: {0}")]
    Disk(#[from] std::io::Error),
    /// The worker is gone.
    #[error("no worker to serve the queue")]
    NoWorker,
}

impl StartError {
    /// True when it may work later: a killed predecessor still owns the event channel.
    pub fn may_pass(&self) -> bool {
        matches!(self, Self::Bind { source: EventError::NotUnbound, .. })
    }
}

/// How data reaches the guest's pages on this connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reach {
    /// Grant copies to and from private pages.
    Copy,
    /// `memcpy` between private pages and pages that stay mapped.
    Persistent,
    /// The disk works on pages that stay mapped.
    DirectPersistent,
    /// The disk works on pages mapped for each request.
    Direct,
}

impl Reach {
    fn of(strategy: Strategy, persistent: bool, image: &Image) -> Self {
        match (strategy, persistent) {
            (Strategy::Copy, _) | (Strategy::Persistent, false) => Reach::Copy,
            // Only direct I/O could still be at the guest's pages when this process is gone: the page cache copies to and from
            // them at once.
            (Strategy::Persistent, true) if image.geometry().direct_io => Reach::Persistent,
            (Strategy::Persistent | Strategy::Direct, true) => Reach::DirectPersistent,
            (Strategy::Direct, false) => Reach::Direct,
        }
    }

    pub(super) fn keeps_pages(self) -> bool {
        matches!(self, Reach::Persistent | Reach::DirectPersistent)
    }
}

/// How a queue takes part in the loop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Requests are admitted.
    Open,
    /// Nothing more is admitted; what was is being finished.
    Draining,
    /// The same, because the guest broke the ring's rules; the control plane will order the drain.
    Broken,
}

/// Whether a queue that could admit requests is kept from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Quiet {
    /// It is not.
    No,
    /// It is, and what was admitted is being finished.
    Awaited,
    /// It is, and the control plane knows that nothing is under way.
    Told,
}

/// Requests that must have the queue to themselves.
pub(super) enum Barrier<M> {
    /// None is there.
    Open,
    /// One waits for those before it to finish.
    Waiting(Ticket<M>),
    /// One is under way; those after it wait in the ring.
    Active,
}

/// A queue that is being served.
pub(super) struct Queue<W: BackWorld> {
    pub(super) key: QueueKey,
    pub(super) dom: DomId,
    pub(super) limits: Limits,
    pub(super) image: Arc<Image>,
    pub(super) disk: DiskId,
    pub(super) reach: Reach,
    pub(super) phase: Phase,
    pub(super) quiet: Quiet,
    pub(super) barrier: Barrier<MappingOf<W>>,
    pub(super) gate: Option<Gate>,
    /// The request that waits for its time; those behind it are in the ring.
    pub(super) held: Option<Held<MappingOf<W>>>,
    /// Requests admitted and not answered.
    pub(super) in_flight: u32,
    /// Its ring is being looked at; else it is armed, or waits for an answer that makes room.
    pub(super) active: bool,
    /// Its event was taken and not allowed again.
    pub(super) masked: bool,
    /// Answers were written and not published.
    pub(super) unpublished: bool,
    pub(super) log: Option<Log>,
    /// Places in the log of an earlier daemon's requests, to be done before any in the ring.
    pub(super) again: VecDeque<u32>,
    pub(super) stats: Arc<QueueStats>,
    pub(super) complaints: Complaints,
    pub(super) timing: Timing,
    pub(super) port: Port,
    // Dropped in this order: what guests granted last is let go of first.
    pub(super) cache: GrantCache<MappingOf<W>>,
    pub(super) ring: RingOf<W>,
}

impl<W: BackWorld> Queue<W> {
    /// Maps the ring and binds the event channel. The caller has attached the disk, and lets it go on an error.
    pub(super) fn start(
        spec: QueueSpec,
        disk: DiskId,
        mapper: &mut W::Mapper,
        events: &mut W::Events,
    ) -> Result<Self, StartError> {
        let pages = mapper.map_ring(spec.dom, &spec.ring_refs)?;
        let memory = Mapped::new(pages, spec.limits.abi.entry_size())?;
        let mut ring = BackRing::attach(Tapped::new(memory, spec.tap.clone()))?;
        let taken_over = if spec.used { resume::take_over(&spec, &mut ring)? } else { None };
        let port = events
            .bind_interdomain(spec.dom, spec.port)
            .map_err(|source| StartError::Bind { port: spec.port, source })?;
        reached(Step::Bound);
        let (log, again) = match taken_over {
            Some(mut left) => {
                resume::tell(&mut left, &mut ring, &spec.limits);
                (Some(left.log), left.unfinished.into())
            }
            None => (spec.log.as_ref().and_then(|log| resume::begin(log, &ring)), VecDeque::new()),
        };
        let reach = Reach::of(spec.strategy, spec.persistent, &spec.image);
        Ok(Self {
            key: spec.key,
            dom: spec.dom,
            limits: spec.limits,
            image: spec.image,
            disk,
            reach,
            phase: Phase::Open,
            quiet: Quiet::No,
            barrier: Barrier::Open,
            gate: spec.throttle.as_ref().map(DiskThrottle::gate),
            held: None,
            in_flight: 0,
            active: false,
            masked: false,
            unpublished: false,
            log,
            again,
            stats: spec.stats,
            complaints: Complaints::default(),
            timing: Timing::default(),
            port,
            cache: GrantCache::new(if reach.keeps_pages() { spec.cache_pages } else { 0 }),
            ring,
        })
    }

    /// True when nothing keeps the next request from being admitted, if there is one.
    pub(super) fn is_open(&self) -> bool {
        self.phase == Phase::Open
            && self.quiet == Quiet::No
            && matches!(self.barrier, Barrier::Open)
            && self.held.is_none()
            && self.in_flight < self.limits.max_requests
    }

    /// True when nothing is left to be answered.
    pub(super) fn is_drained(&self) -> bool {
        self.phase == Phase::Draining && self.in_flight == 0
    }

    /// Copies the next request's entries, once, and moves past them: an earlier daemon's out of its log, then those in the ring.
    /// Returns its head, and its place in the log; none if there is no request.
    pub(super) fn next_head(
        &mut self,
        entries: &mut [Entry],
    ) -> Result<Option<(Head, Option<u32>)>, Corrupt> {
        if let (Some(place), Some(log)) = (self.again.pop_front(), &mut self.log) {
            log.read(place, entries);
            let head = entries.first().map(|first| Head::parse(first, &self.limits));
            return Ok(head.map(|head| (head, Some(place))));
        }
        if self.ring.available()? == 0 {
            return Ok(None);
        }
        let Some((first, blocks)) = entries.split_first_mut() else { return Ok(None) };
        self.ring.read(0, first)?;
        let head = Head::parse(first, &self.limits);
        for (ahead, block) in (1..head.entries).zip(blocks) {
            self.ring.read(ahead, block)?;
        }
        let index = self.ring.consumed();
        self.ring.consume(head.entries)?;
        let noted = entries.get(..head.entries as usize).unwrap_or_default();
        let place = self.log.as_mut().and_then(|log| log.take(index, noted));
        reached(Step::Noted);
        Ok(Some((head, place)))
    }

    /// What was admitted is the log's from now on.
    pub(super) fn commit(&mut self) {
        if let Some(log) = &mut self.log {
            log.commit(self.ring.consumed());
        }
        reached(Step::Committed);
    }
}

#[cfg(test)]
mod tests;
