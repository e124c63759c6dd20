//! Between the ring and stage two: a request whose time has not come is held, and what is behind it stays in the ring, where the guest
//! sees that it is not taken.

use std::time::Duration;

use blkif_proto::{Op, PAGE_SIZE};
use xen_platform::{BackWorld, Clock as _};

use super::{
    inflight::{InFlight, Ticket},
    queue::{Barrier, MappingOf, Phase, Queue, Quiet},
    worker::Worker,
};
use crate::{limit::Kind, storage::Storage};

/// Limits are changed without a word to those who wait: they look again after this time at the latest.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// A request that may not go yet, and when it is to be asked for again.
pub(super) struct Held<M> {
    pub(super) ticket: Ticket<M>,
    pub(super) until: Duration,
}

impl<M> Held<M> {
    pub(super) fn new(ticket: Ticket<M>, until: Duration, now: Duration) -> Self {
        Self { ticket, until: until.min(now + LOOK_AGAIN) }
    }
}

impl<W: BackWorld, S: Storage<InFlight<MappingOf<W>>>> Worker<W, S> {
    /// When the first of the held requests is to be asked for again, in the time of the worker's world; none if none is held.
    pub fn wakes_at(&self) -> Option<Duration> {
        let held = |index: &usize| self.queues.get(*index)?.as_ref()?.held.as_ref();
        self.holding.iter().filter_map(held).map(|held| held.until).min()
    }

    /// Lets held requests go whose time has come. True when there were any.
    pub(super) fn release_held(&mut self) -> bool {
        if self.holding.is_empty() {
            return false;
        }
        let now = self.clock.now();
        let before = self.holding.len();
        let mut holding = std::mem::take(&mut self.holding);
        holding.retain(|index| !self.release_one(*index, now));
        self.holding = holding;
        self.holding.len() < before
    }

    /// True when a queue holds nothing any more.
    fn release_one(&mut self, index: usize, now: Duration) -> bool {
        let Some(Some(queue)) = self.queues.get_mut(index) else { return true };
        let (Some(mut held), Some(gate)) = (queue.held.take(), &mut queue.gate) else { return true };
        let (kind, bytes) = fare(&held.ticket.data);
        // What was taken is finished, whoever waits for that.
        if queue.phase != Phase::Open || queue.quiet != Quiet::No || self.paused {
            gate.open(kind, bytes, now);
        } else if now < held.until {
            queue.held = Some(held);
            return false;
        } else if let Err(until) = gate.pass(kind, bytes, now) {
            queue.held = Some(Held::new(held.ticket, until, now));
            return false;
        }
        held.ticket.data.times.taken = now;
        self.admitted.extend(queue.line_up(held.ticket));
        self.activate(index);
        true
    }
}

impl<W: BackWorld> Queue<W> {
    /// A request that may go, unless it is a barrier that has to wait for those before it.
    pub(super) fn line_up(&mut self, ticket: Ticket<MappingOf<W>>) -> Option<Ticket<MappingOf<W>>> {
        if ticket.data.op == Op::WriteBarrier {
            if self.in_flight > 1 {
                self.barrier = Barrier::Waiting(ticket);
                return None;
            }
            self.barrier = Barrier::Active;
        }
        Some(ticket)
    }
}

/// What a request takes of a limit. What an indirect one moves is not known before its descriptors are: at most whole pages.
pub(super) fn fare<M>(data: &InFlight<M>) -> (Kind, usize) {
    let kind = if data.op == Op::Read { Kind::Read } else { Kind::Write };
    let bytes =
        data.indirect.as_ref().map_or(data.bytes, |indirect| usize::from(indirect.segments) * PAGE_SIZE);
    (kind, bytes)
}
