//! Stage four: what the storage has finished. Reads reach the guest here, and all pages are let go of, before any answer.

use std::time::Duration;

use xen_platform::BackWorld;

use super::{
    inflight::{Failure, InFlight, Place, Ticket},
    map::{self, Leg},
    queue::MappingOf,
    submit,
    worker::Worker,
};
use crate::{
    steps::{Step, reached},
    storage::Storage,
};

impl<W: BackWorld, S: Storage<InFlight<MappingOf<W>>>> Worker<W, S> {
    /// Takes finished operations in. Requests with another step go on, the others lie in `finished` afterwards, without
    /// pages. True when there were any.
    pub(super) fn reap(&mut self) -> bool {
        let mut reaped = false;
        let mut now = Duration::ZERO;
        while let Some(mut ticket) = self.storage.reap() {
            if !std::mem::replace(&mut reaped, true) {
                now = self.look_at_clock();
            }
            let outcome = ticket.outcome;
            let data = &mut ticket.data;
            data.times.reaped = now;
            match (outcome, submit::next(data.step, data.op)) {
                (Err(errno), _) => data.fail(Failure::Storage(errno)),
                (Ok(()), None) => {}
                (Ok(()), Some(step)) => {
                    data.step = step;
                    self.ready.push(ticket);
                    continue;
                }
            }
            self.finished.push(ticket);
        }
        if self.finished.is_empty() {
            return reaped;
        }
        reached(Step::Reaped);
        let mut finished = std::mem::take(&mut self.finished);
        if finished.iter().any(|ticket| ticket.data.is_copied() && ticket.data.is_read()) {
            map::copy(&mut self.mapper, &mut self.scratch, &mut finished, Leg::Out);
        }
        for ticket in &mut finished {
            self.let_go(ticket);
        }
        self.finished = finished;
        self.copied = self.look_at_clock();
        true
    }

    fn let_go(&mut self, ticket: &mut Ticket<MappingOf<W>>) {
        let data = &mut ticket.data;
        if data.place == Place::Buffer && !data.leases.is_empty() && data.is_read() && data.outcome.is_ok() {
            map::move_leased(data, false);
        }
        self.release(ticket);
    }
}
