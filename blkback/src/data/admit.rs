//! Stage one: requests out of the rings, copied once and through the gate.

use blkif_proto::{Op, Parsed, Request};
use xen_platform::{BackWorld, Clock as _, Mapper};

use super::{
    hold::{Held, fare},
    inflight::{Failure, InFlight, Step},
    queue::MappingOf,
    worker::Worker,
};
use crate::{limit::Gate, storage::Storage};

/// Requests taken from one queue before the others have their turn.
const SHARE: usize = 128;
/// Bytes after which no more are taken: large requests gain nothing from a larger batch, and a guest that is given answers
/// earlier prepares its next requests while the disk works.
const SHARE_BYTES: usize = 512 << 10;

impl<W: BackWorld, S: Storage<InFlight<MappingOf<W>>>> Worker<W, S> {
    /// Takes new requests from every active queue. True when there were any.
    pub(super) fn admit(&mut self) -> bool {
        let mut admitted = self.release_held();
        for turn in 0..self.active.len() {
            let Some(&queue) = self.active.get(turn) else { break };
            admitted |= self.admit_from(queue);
        }
        let queues = &self.queues;
        self.active.retain(|&queue| matches!(queues.get(queue), Some(Some(queue)) if queue.active));
        admitted
    }

    fn admit_from(&mut self, index: usize) -> bool {
        let Some(Some(queue)) = self.queues.get_mut(index) else { return false };
        // The disk may have grown or shrunk.
        queue.limits.sectors = queue.image.sectors();
        let (mut taken, mut bytes) = (0, 0);
        let limited = queue.gate.as_ref().is_some_and(Gate::is_on).then(|| self.clock.now());
        while taken < SHARE && bytes < SHARE_BYTES && queue.is_open() {
            let (head, place) = match queue.next_head(&mut self.entries[..]) {
                Ok(Some(next)) => next,
                Ok(None) => break,
                Err(corrupt) => {
                    queue.commit();
                    self.broken(index, &corrupt);
                    return taken > 0;
                }
            };
            taken += 1;
            queue.in_flight += 1;
            let mapper = &self.mapper;
            let mut ticket = self.pool.issue(&head, index, queue.dom, queue.disk, || mapper.mapping());
            let data = &mut ticket.data;
            data.logged = place;
            match Request::parse(&self.entries[..], &queue.limits) {
                Ok(Parsed::Whole(request)) => {
                    data.fill(&request);
                }
                Ok(Parsed::Indirect(indirect)) => {
                    data.op = indirect.op;
                    data.indirect = Some(indirect);
                }
                Err(error) => {
                    data.fail(Failure::Refused(error));
                    self.finished.push(ticket);
                    continue;
                }
            }
            if data.segments.is_empty() || data.op != Op::Flush && data.op != Op::WriteBarrier {
                data.step = Step::Last;
            } else {
                data.step = Step::FlushBefore;
            }
            let (kind, size) = fare(data);
            bytes += size;
            if let (Some(now), Some(gate)) = (limited, &mut queue.gate)
                && let Err(until) = gate.pass(kind, size, now)
            {
                queue.held = Some(Held::new(ticket, until, now));
                self.holding.push(index);
                break;
            }
            self.admitted.extend(queue.line_up(ticket));
        }
        if taken > 0 {
            queue.commit();
        }
        queue.stats.requests.add(taken as u64);
        // An answer that makes room activates it again.
        queue.active &= queue.is_open();
        taken > 0
    }
}
