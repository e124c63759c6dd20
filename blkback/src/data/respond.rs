//! Stage five: answers, one publish and at most one notification for each queue and batch.

use std::time::Duration;

use blkif_proto::{Op, Status, sector_bytes};
use nix::errno::Errno;
use tracing::error;
use xen_platform::{BackWorld, Clock as _, EventChannels};

use super::{
    inflight::{Failure, InFlight},
    queue::{Barrier, MappingOf},
    worker::Worker,
};
use crate::{
    stats::QueueStats,
    steps::{Step, reached},
    storage::Storage,
};

impl<W: BackWorld, S: Storage<InFlight<MappingOf<W>>>> Worker<W, S> {
    /// Answers every finished request.
    pub(super) fn respond(&mut self) {
        if self.finished.is_empty() {
            return;
        }
        let mut finished = std::mem::take(&mut self.finished);
        for mut ticket in finished.drain(..) {
            let data = &mut ticket.data;
            let index = data.queue;
            let status = status_of(data.op, data.outcome);
            let (Some(owed), Some(Some(queue))) = (data.take_owed(), self.queues.get_mut(index)) else {
                continue;
            };
            let (response, entries) = owed.pay(status);
            // Before the slot is written, which may be that of a request.
            if let (Some(log), Some(place)) = (&mut queue.log, data.logged.take()) {
                log.answer(place, status, queue.ring.responded());
            }
            reached(Step::Answered);
            if queue.ring.respond(&response.emit(), entries).is_err() {
                error!(id = response.id, "more answers than requests");
            }
            reached(Step::Written);
            if let Err(failure) = data.outcome {
                queue.complaints.tell(&queue.image, response.id, data, failure);
                if let Some(tap) = queue.ring.mem().tap() {
                    tap.failed(response.id, failure.kind(), &failure);
                }
            }
            count(&queue.stats, data);
            if self.watch.timed {
                queue.note_finished(data, self.copied, self.watch.slow);
            }
            if let Some(tracing) = &mut self.tracing {
                tracing.note(queue.key, response.id, status, data, self.copied);
            }
            queue.in_flight -= 1;
            if !queue.unpublished {
                queue.unpublished = true;
                self.dirty.push(index);
            }
            self.pool.retire(ticket);
        }
        self.finished = finished;
        while let Some(index) = self.dirty.pop() {
            self.publish(index);
        }
    }

    /// Shows the guest its answers, and does what waited for them.
    pub(super) fn publish(&mut self, index: usize) {
        let Some(Some(queue)) = self.queues.get_mut(index) else { return };
        queue.unpublished = false;
        queue.stats.in_flight.set(queue.in_flight.into());
        queue.stats.batches.add(1);
        let notify = queue.ring.publish();
        reached(Step::Published);
        if let Some(log) = &mut queue.log {
            log.published();
        }
        reached(Step::Forgotten);
        if notify.is_needed() {
            queue.stats.notifications.add(1);
            if let Err(error) = self.events.notify(queue.port) {
                error!(%error, key = ?queue.key, "cannot notify the guest");
            }
            reached(Step::Notified);
        }
        let mut now = Duration::ZERO;
        if self.watch.timed {
            now = self.clock.now();
            queue.note_published(self.copied, now);
            if let Some(tracing) = &mut self.tracing {
                tracing.published(queue.key, now);
            }
        }
        match std::mem::replace(&mut queue.barrier, Barrier::Open) {
            Barrier::Active if queue.in_flight > 0 => queue.barrier = Barrier::Active,
            Barrier::Waiting(mut ticket) if queue.in_flight == 1 => {
                ticket.data.times.taken = now;
                queue.barrier = Barrier::Active;
                self.admitted.push(ticket);
            }
            barrier @ Barrier::Waiting(_) => queue.barrier = barrier,
            Barrier::Open | Barrier::Active => {}
        }
        if queue.is_drained() {
            self.remove(index);
        } else if queue.is_open() {
            self.activate(index);
        } else {
            self.tell_quiet(index);
        }
    }
}

/// Counts a request that is answered.
fn count<M>(stats: &QueueStats, data: &InFlight<M>) {
    let QueueStats { done, failed, .. } = stats;
    let bytes = data.bytes as u64;
    let (requests, volume, bytes) = match (data.outcome, data.op) {
        (Ok(()), Op::Read) => (&done.reads, &stats.bytes_read, bytes),
        (Ok(()), Op::Discard { sectors, .. }) => {
            (&done.discards, &stats.bytes_discarded, sector_bytes(sectors).unwrap_or(0))
        }
        (Ok(()), Op::WriteBarrier | Op::Flush) if bytes == 0 => (&done.flushes, &stats.bytes_written, 0),
        (Ok(()), Op::Write | Op::WriteBarrier | Op::Flush) => (&done.writes, &stats.bytes_written, bytes),
        (Err(failure), _) => {
            let cause = match failure {
                Failure::Refused(_) => &failed.refused,
                Failure::Grant(_) => &failed.grants,
                Failure::Memory(_) => &failed.memory,
                Failure::Storage(_) => &failed.storage,
            };
            return cause.add(1);
        }
    };
    requests.add(1);
    volume.add(bytes);
}

/// What the guest is told. The one place where errors become statuses.
pub(super) fn status_of(op: Op, outcome: Result<(), Failure>) -> Status {
    match outcome {
        Ok(()) => Status::OKAY,
        Err(Failure::Refused(error)) => error.status(),
        // Guests stop discarding then; for anything else "not supported" would make them stop using what works.
        Err(Failure::Storage(Errno::EOPNOTSUPP | Errno::ENOTTY | Errno::ENOSYS))
            if matches!(op, Op::Discard { .. }) =>
        {
            Status::NOT_SUPPORTED
        }
        Err(Failure::Storage(_) | Failure::Grant(_) | Failure::Memory(_)) => Status::ERROR,
    }
}
