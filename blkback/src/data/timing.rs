//! How long requests are in each stage; where nobody asks for that, the clock is not looked at. What the stages are says
//! [`Stages`].

use std::time::{Duration, Instant};

use tracing::warn;
use xen_platform::{BackWorld, Clock as _};

use super::{
    complaint::Complaints,
    inflight::InFlight,
    queue::{MappingOf, Queue},
    worker::Worker,
};
use crate::{
    stats::Stages,
    storage::{Image, Storage},
};

/// When a request came to the border of each stage, by the clock of the world; zero where it did not, or nobody asks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Times {
    /// It was known to be in the ring.
    pub seen: Duration,
    /// It was taken, and might go.
    pub taken: Duration,
    /// All of its batch was taken. Only while there is a trace.
    pub admitted: Duration,
    /// The storage got it.
    pub submitted: Duration,
    /// The storage gave it back.
    pub reaped: Duration,
}

/// What one queue has measured and not counted yet.
#[derive(Debug, Default)]
pub(super) struct Timing {
    /// Since when there may be requests in the ring that were not taken.
    pub(super) left: Option<Duration>,
    /// Since when the frontend has no room.
    full: Option<Duration>,
    /// Requests answered in this batch.
    answered: u64,
    /// Those of them that came last, all at the same times, and are not counted yet.
    run: Option<Run>,
    /// The slowest of those that are to be told of.
    slowest: Option<Slow>,
    told: Complaints,
}

/// Requests that came to the border of each stage together, as those of a batch do.
#[derive(Clone, Copy, Debug)]
struct Run {
    times: Times,
    copied: Duration,
    requests: u64,
}

impl Run {
    /// How long they were in the ring, on their way, and at the storage, if they came to it.
    fn stages(&self) -> (Duration, Duration, Option<Duration>) {
        let Times { seen, taken, submitted, reaped, .. } = self.times;
        let ring = taken.saturating_sub(seen);
        if reaped.is_zero() {
            return (ring, self.copied.saturating_sub(taken), None);
        }
        let moved = submitted.saturating_sub(taken) + self.copied.saturating_sub(reaped);
        (ring, moved, Some(reaped.saturating_sub(submitted)))
    }

    fn count(&self, stages: &Stages) {
        let (ring, moved, storage) = self.stages();
        stages.ring.record(ring, self.requests);
        if let Some(storage) = storage {
            stages.data.record(moved, self.requests);
            stages.storage.record(storage, self.requests);
        }
    }
}

/// A request that took long.
#[derive(Debug)]
struct Slow {
    op: blkif_proto::Op,
    sector: u64,
    bytes: usize,
    ring: Duration,
    data: Duration,
    storage: Duration,
}

impl<W: BackWorld, S: Storage<InFlight<MappingOf<W>>>> Worker<W, S> {
    /// What time it is, if anybody asks.
    #[inline]
    pub(super) fn look_at_clock(&self) -> Duration {
        if self.watch.timed { self.clock.now() } else { Duration::ZERO }
    }
}

impl<W: BackWorld> Queue<W> {
    /// Looks at what a batch has left in the ring.
    pub(super) fn note_rest(&mut self, now: Duration) {
        // A ring that is corrupt is found to be so when it is read.
        let rest = self.ring.available().unwrap_or(0);
        self.timing.left = (rest > 0).then_some(now);
        if self.ring.unanswered() + rest >= self.ring.layout().entries() {
            self.timing.full.get_or_insert(now);
        }
    }

    /// Counts a request whose data has come to its place at `copied`.
    pub(super) fn note_finished(
        &mut self,
        data: &InFlight<MappingOf<W>>,
        copied: Duration,
        slow: Option<Duration>,
    ) {
        self.timing.answered += 1;
        let run = match &mut self.timing.run {
            Some(run) if run.times == data.times && run.copied == copied => {
                run.requests += 1;
                *run
            }
            last => {
                let run = Run { times: data.times, copied, requests: 1 };
                if let Some(last) = last.replace(run) {
                    last.count(&self.stats.stages);
                }
                run
            }
        };
        if let Some(slow) = slow {
            let (ring, moved, storage) = run.stages();
            let storage = storage.unwrap_or_default();
            let all = ring + moved + storage;
            let worst = |known: &Slow| known.ring + known.data + known.storage;
            if all >= slow && self.timing.slowest.as_ref().is_none_or(|known| worst(known) < all) {
                let (op, sector, bytes) = (data.op, data.sector, data.bytes);
                self.timing.slowest = Some(Slow { op, sector, bytes, ring, data: moved, storage });
            }
        }
    }

    /// A batch has been published, after its data was in its place at `copied`.
    pub(super) fn note_published(&mut self, copied: Duration, now: Duration) {
        if let Some(run) = self.timing.run.take() {
            run.count(&self.stats.stages);
        }
        let respond = now.saturating_sub(copied);
        self.stats.stages.respond.record(respond, std::mem::take(&mut self.timing.answered));
        if let Some(full) = self.timing.full.take() {
            self.stats.ring_full.add_time(now.saturating_sub(full));
        }
        if let Some(slow) = self.timing.slowest.take()
            && let Some(untold) = self.timing.told.due(Instant::now())
        {
            slow.tell(self.dom.0, self.key.queue, &self.image, respond, untold);
        }
    }
}

impl Slow {
    fn tell(&self, guest: u16, queue: u32, image: &Image, respond: Duration, untold: u64) {
        let Self { op, sector, bytes, ring, data, storage } = self;
        let image = image.name().display();
        warn!(
            guest, %image, queue, ?op, sector, bytes, ?ring, ?data, ?storage, ?respond, untold,
            "slow: {:?}", *ring + *data + *storage + respond
        );
    }
}
