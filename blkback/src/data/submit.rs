//! Stage three: requests become storage operations, one each at a time.

use blkif_proto::{Op, sector_bytes};
use xen_platform::BackWorld;

use super::{
    inflight::{Failure, InFlight, Step},
    queue::MappingOf,
    worker::Worker,
};
use crate::storage::{Action, Storage};

impl<W: BackWorld, S: Storage<InFlight<MappingOf<W>>>> Worker<W, S> {
    /// Hands every ready request over to the storage.
    pub(super) fn submit(&mut self) {
        if self.ready.is_empty() {
            return;
        }
        let now = self.look_at_clock();
        self.given = Some(now);
        for mut ticket in self.ready.drain(..) {
            if ticket.data.times.submitted.is_zero() {
                ticket.data.times.submitted = now;
            }
            ticket.action = action(&ticket.data);
            if let Err(mut refused) = self.storage.submit(ticket) {
                if let Err(errno) = refused.outcome {
                    refused.data.fail(Failure::Storage(errno));
                }
                self.finished.push(refused);
            }
        }
    }
}

/// What the storage does in this step.
fn action<M>(data: &InFlight<M>) -> Action {
    // The gate has checked that the range lies on a disk of less than 2^63 bytes.
    let offset = sector_bytes(data.sector).unwrap_or(u64::MAX);
    match (data.step, data.op) {
        (Step::FlushBefore, _) => Action::Flush,
        (Step::WriteBeforeFlush, _) | (Step::Last, Op::Write) => Action::Write { offset },
        (Step::Last, Op::Read) => Action::Read { offset },
        (Step::Last, Op::Flush) if !data.segments.is_empty() => Action::Write { offset },
        (Step::Last, Op::Flush | Op::WriteBarrier) => Action::Flush,
        (Step::Last, Op::Discard { sectors, secure }) => {
            Action::Discard { offset, len: sector_bytes(sectors).unwrap_or(u64::MAX), secure }
        }
    }
}

/// The step after a step that went well; none after the last.
pub(super) fn next(step: Step, op: Op) -> Option<Step> {
    match step {
        // A barrier is durable when it is answered: Linux guests rely on it where flush is not offered.
        Step::FlushBefore if op == Op::WriteBarrier => Some(Step::WriteBeforeFlush),
        Step::FlushBefore | Step::WriteBeforeFlush => Some(Step::Last),
        Step::Last => None,
    }
}
