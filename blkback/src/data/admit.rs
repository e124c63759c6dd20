//! Stage one: requests out of the rings, copied once and through the gate.

use std::time::Duration;

use blkif_proto::{Op, Parsed, Request};
use xen_platform::{BackWorld, Clock as _, Mapper};

use super::{
    hold::{Held, fare},
    inflight::{Failure, InFlight, Step},
    queue::MappingOf,
    timing::Times,
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
        let limited = queue.gate.as_ref().is_some_and(Gate::is_on);
        let (mut seen, mut now) = (Duration::ZERO, Duration::ZERO);
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
            if taken == 0 && (limited || self.watch.timed) {
                now = self.clock.now();
                seen = queue.timing.left.unwrap_or(now);
                if let Some(gate) = queue.gate.as_mut().filter(|_| limited) {
                    // This one, and those behind it.
                    let behind = queue.ring.available().unwrap_or(0) as usize;
                    gate.expect((1 + behind).min(SHARE));
                }
            }
            taken += 1;
            queue.in_flight += 1;
            let mapper = &self.mapper;
            let mut ticket = self.pool.issue(&head, index, queue.dom, queue.disk, || mapper.mapping());
            let data = &mut ticket.data;
            data.logged = place;
            data.times = Times { seen, taken: now, ..Times::default() };
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
            if limited
                && let Some(gate) = &mut queue.gate
                && let Err(until) = gate.pass(kind, size, now)
            {
                queue.stats.held.add(1);
                queue.held = Some(Held::new(ticket, until, now));
                self.holding.push(index);
                break;
            }
            self.admitted.extend(queue.line_up(ticket));
        }
        if let Some(gate) = queue.gate.as_mut().filter(|_| limited && taken > 0) {
            gate.settle();
        }
        if taken > 0 {
            queue.commit();
            queue.stats.requests.add(taken as u64);
            queue.stats.in_flight.set(queue.in_flight.into());
        }
        if self.watch.timed && (taken > 0 || queue.timing.left.is_some()) {
            if taken == 0 {
                now = self.clock.now();
            }
            queue.note_rest(now);
        }
        // An answer that makes room activates it again.
        queue.active &= queue.is_open();
        taken > 0
    }
}
