//! Requests with the times at which they came to each stage, gathered while somebody asks for them: in memory that is there
//! before, by the thread that serves them. While nobody asks, that costs a branch for each batch and one for each answer.

use std::time::Duration;

use blkif_proto::{Op, Status};
use nix::time::{ClockId, clock_gettime};
use tokio::sync::mpsc::UnboundedSender;
use xen_platform::{BackWorld, Clock as _};

use super::{
    inflight::InFlight,
    queue::{MappingOf, QueueKey},
    timing::Times,
    worker::Worker,
};
use crate::storage::Storage;

/// What a worker is to trace. Its requests are sent when there are so many, or when it is told to end.
#[derive(Debug)]
pub struct TraceSpec {
    /// Most requests, of each worker.
    pub requests: usize,
    /// Of this connection only; else of all.
    pub connection: Option<u64>,
    /// Where they go, once.
    pub done: UnboundedSender<Vec<Traced>>,
}

/// A request that was answered. Times are those of the system's monotonic clock.
#[derive(Clone, Copy, Debug)]
pub struct Traced {
    /// Where it came from.
    pub key: QueueKey,
    /// The guest's mark.
    pub id: u64,
    /// What it did.
    pub op: Op,
    /// First 512-byte sector.
    pub sector: u64,
    /// Length of its data in bytes.
    pub bytes: usize,
    /// What the guest was told.
    pub status: Status,
    /// When it came to each stage.
    pub times: Times,
    /// All of its batch had been handed to the storage.
    pub kicked: Duration,
    /// Its data was in its place.
    pub copied: Duration,
    /// Its answer could be seen.
    pub published: Duration,
}

/// A trace under way.
pub(super) struct Tracing {
    spec: TraceSpec,
    /// The system's clock less the worker's.
    offset: Duration,
    requests: Vec<Traced>,
    /// The first of them that is not published.
    open: usize,
    /// Whether the clock is looked at without a trace.
    timed: bool,
    /// Batches given to the storage: when that began, and when it was done.
    batches: Vec<(Duration, Duration)>,
}

impl Tracing {
    pub(super) fn is_full(&self) -> bool {
        self.open >= self.spec.requests
    }

    /// Takes an answered request in, if it has been traced from its beginning.
    pub(super) fn note<M>(
        &mut self,
        key: QueueKey,
        id: u64,
        status: Status,
        data: &InFlight<M>,
        copied: Duration,
    ) {
        let wanted = self.spec.connection.is_none_or(|connection| connection == key.connection);
        if !wanted || data.times.admitted.is_zero() && data.outcome.is_ok() || data.times.taken.is_zero() {
            return;
        }
        if self.requests.len() < self.spec.requests {
            let InFlight { op, sector, bytes, times, .. } = *data;
            let batch = self.batches.iter().rev().find(|(begin, _)| *begin == times.submitted);
            let kicked = batch.map_or(times.submitted, |(_, end)| *end);
            let published = Duration::ZERO;
            self.requests.push(Traced {
                key,
                id,
                op,
                sector,
                bytes,
                status,
                times,
                kicked,
                copied,
                published,
            });
        }
    }

    /// The answers of a queue can be seen.
    pub(super) fn published(&mut self, key: QueueKey, now: Duration) {
        let open = self.requests.get_mut(self.open..).unwrap_or_default();
        open.iter_mut().filter(|request| request.key == key).for_each(|request| request.published = now);
        self.open += open.iter().take_while(|request| !request.published.is_zero()).count();
    }

    /// All of a batch is with the storage.
    fn kicked(&mut self, begin: Duration, now: Duration) {
        if self.batches.len() == BATCHES {
            self.batches.drain(..BATCHES / 2);
        }
        self.batches.push((begin, now));
    }

    fn end(mut self) {
        let offset = self.offset;
        self.requests.truncate(self.open);
        for Traced { times, kicked, copied, published, .. } in &mut self.requests {
            let Times { seen, taken, admitted, submitted, reaped } = times;
            for time in [seen, taken, admitted, submitted, kicked, reaped, copied, published] {
                if !time.is_zero() {
                    *time += offset;
                }
            }
        }
        // One who does not wait any more does not mind.
        _ = self.spec.done.send(self.requests);
    }
}

/// Batches that are remembered: more than are under way.
const BATCHES: usize = 1024;

impl<W: BackWorld, S: Storage<InFlight<MappingOf<W>>>> Worker<W, S> {
    /// Begins a trace; one that is under way ends.
    pub(super) fn begin_trace(&mut self, spec: TraceSpec) {
        self.end_trace();
        let system = clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(Duration::ZERO, Duration::from);
        self.tracing = Some(Box::new(Tracing {
            offset: system.saturating_sub(self.clock.now()),
            requests: Vec::with_capacity(spec.requests),
            spec,
            open: 0,
            timed: std::mem::replace(&mut self.watch.timed, true),
            batches: Vec::with_capacity(BATCHES),
        }));
    }

    /// Ends a trace, and sends what it has.
    pub(super) fn end_trace(&mut self) {
        if let Some(tracing) = self.tracing.take() {
            self.watch.timed = tracing.timed;
            tracing.end();
        }
    }

    /// The storage has what was given to it in this turn.
    pub(super) fn trace_batch(&mut self) {
        if self.tracing.as_ref().is_some_and(|tracing| tracing.is_full()) {
            self.end_trace();
        }
        if let Some(tracing) = &mut self.tracing
            && let Some(begin) = self.given.take()
        {
            tracing.kicked(begin, self.clock.now());
        }
    }
}
