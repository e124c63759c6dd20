//! What a queue's requests pass before they are worked on.

use std::{sync::Arc, time::Duration};

use super::{Fare, Kind, Rates, Share, Throttle, nanos};

/// What all queues of a disk are throttled by. Clones are the same disk's.
#[derive(Clone, Debug)]
pub struct DiskThrottle {
    own: Arc<Throttle>,
    group: Option<Arc<Share>>,
}

impl DiskThrottle {
    /// Of a disk with `rates` of its own, in a group if there is one.
    pub fn new(rates: &Rates, group: Option<&Arc<Throttle>>) -> Self {
        Self { own: Arc::new(Throttle::new(rates)), group: group.map(|group| Arc::new(group.join())) }
    }

    /// The limits of the disk alone.
    pub fn own(&self) -> &Arc<Throttle> {
        &self.own
    }

    /// A gate for one of its queues.
    pub fn gate(&self) -> Gate {
        let (own, group) = (self.own.join(), self.group.clone());
        Gate { own, group, waits: [false; 2], expected: 0, paid: [Fare::default(); 2] }
    }
}

/// A queue's gate: its share of the disk's throttle, and the disk's of the group's. Owned by the queue's worker.
#[derive(Debug)]
pub struct Gate {
    own: Share,
    group: Option<Arc<Share>>,
    /// For which of the two a request is held.
    waits: [bool; 2],
    /// Requests that are still to come in this batch.
    expected: u64,
    /// What was paid for of each kind, and not used yet. Threads meet at the buckets once a batch that way, and not for each request.
    paid: [Fare; 2],
}

impl Gate {
    /// False when there is nothing to be asked.
    #[inline]
    pub fn is_on(&self) -> bool {
        self.own.throttle().is_on() || self.group.as_ref().is_some_and(|group| group.throttle().is_on())
    }

    /// So many requests are about to come, more or less.
    pub fn expect(&mut self, requests: usize) {
        self.expected = requests as u64;
    }

    /// No more come for now: what was paid for and not used is given back.
    pub fn settle(&mut self) {
        self.expected = 0;
        for kind in [Kind::Read, Kind::Write] {
            let rest = std::mem::take(&mut self.paid[kind as usize]);
            if rest != Fare::default() {
                self.give_back(kind, rest);
            }
        }
    }

    /// Lets a request pass and notes that. Errors: it may not go yet; the time to ask again.
    pub fn pass(&mut self, kind: Kind, bytes: usize, now: Duration) -> Result<(), Duration> {
        let paid = &mut self.paid[kind as usize];
        if let (Some(operations), Some(rest)) =
            (paid.operations.checked_sub(1), paid.bytes.checked_sub(bytes as u64))
        {
            *paid = Fare { operations, bytes: rest };
            self.expected = self.expected.saturating_sub(1);
            return Ok(());
        }
        let at = nanos(now);
        let mut verdict = self.ask(kind, at);
        // What was paid for and did not come may be just what is missing.
        if verdict.is_err() && self.paid != [Fare::default(); 2] {
            self.settle();
            verdict = self.ask(kind, at);
        }
        match verdict {
            Ok(()) => {
                self.open(kind, bytes, now);
                self.pay_ahead(kind, bytes as u64, at);
                Ok(())
            }
            Err((whose, until)) => {
                self.hold(Some(whose));
                Err(Duration::from_nanos(until))
            }
        }
    }

    /// Errors: for which of the two the request has to wait, and until when.
    fn ask(&self, kind: Kind, now: u64) -> Result<(), (usize, u64)> {
        self.own.ask(kind, now).map_err(|until| (0, until))?;
        self.group.as_ref().map_or(Ok(()), |group| group.ask(kind, now).map_err(|until| (1, until)))
    }

    /// Lets a request pass in any case, and notes that.
    pub fn open(&mut self, kind: Kind, bytes: usize, now: Duration) {
        self.take(kind, Fare { operations: 1, bytes: bytes as u64 }, nanos(now));
        self.hold(None);
    }

    /// Pays for what is to come in this batch, if it is like the request that has just passed, and would pass too.
    fn pay_ahead(&mut self, kind: Kind, bytes: u64, now: u64) {
        self.expected = self.expected.saturating_sub(1);
        let fare = Fare { operations: self.expected, bytes: bytes.saturating_mul(self.expected) };
        let group = self.group.as_ref();
        if fare.operations > 0
            && self.own.throttle().affords(kind, fare, now)
            && group.is_none_or(|group| group.throttle().affords(kind, fare, now))
        {
            self.take(kind, fare, now);
            let paid = &mut self.paid[kind as usize];
            *paid = Fare {
                operations: paid.operations.saturating_add(fare.operations),
                bytes: paid.bytes.saturating_add(fare.bytes),
            };
        }
    }

    fn take(&self, kind: Kind, fare: Fare, now: u64) {
        self.own.take(kind, fare, now);
        if let Some(group) = &self.group {
            group.take(kind, fare, now);
        }
    }

    fn give_back(&self, kind: Kind, fare: Fare) {
        self.own.give_back(kind, fare);
        if let Some(group) = &self.group {
            group.give_back(kind, fare);
        }
    }

    /// Gives back what was noted for more bytes than a request turned out to have.
    pub fn refund(&self, kind: Kind, bytes: usize) {
        self.give_back(kind, Fare { operations: 0, bytes: bytes as u64 });
    }

    /// Tells the others for which throttle a request is held.
    fn hold(&mut self, whose: Option<usize>) {
        let shares = [Some(&self.own), self.group.as_deref()];
        for (index, (share, waits)) in shares.into_iter().zip(&mut self.waits).enumerate() {
            let now = whose == Some(index);
            if let Some(share) = share
                && std::mem::replace(waits, now) != now
            {
                share.wait(now);
            }
        }
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.settle();
        self.hold(None);
    }
}
