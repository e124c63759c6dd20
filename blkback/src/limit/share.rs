//! What one of those who are throttled together has had, so that none gets more than the others while they wait.

use std::sync::{
    Arc, PoisonError, Weak,
    atomic::{
        AtomicU32, AtomicU64,
        Ordering::{AcqRel, Acquire, Relaxed},
    },
};

use super::{Fare, Kind, Throttle};

/// One party to a [`Throttle`]: a queue to its disk's, or a disk to its group's.
///
/// Start-time fair queueing without a queue: each party's `used` is the time of the throttle that it has used up. One that is ahead
/// of another who waits, by more than a quarter of a burst, waits too, but only while the other can be expected to come: half a
/// burst after the bucket has opened nobody is waited for. So what a party does, or does not do, costs others no rate.
#[derive(Debug)]
pub struct Share {
    throttle: Arc<Throttle>,
    own: Arc<Used>,
}

/// What the others see of a party.
#[derive(Debug, Default)]
pub(super) struct Used {
    /// Nanoseconds of the throttle's time.
    time: AtomicU64,
    /// How many requests of it are held for this throttle.
    waiting: AtomicU32,
}

impl Share {
    pub(super) fn new(throttle: Arc<Throttle>) -> Self {
        let own = Arc::new(Used::default());
        throttle.parties.write().unwrap_or_else(PoisonError::into_inner).push(Arc::downgrade(&own));
        Self { throttle, own }
    }

    /// What it is a share of.
    pub fn throttle(&self) -> &Arc<Throttle> {
        &self.throttle
    }

    /// Whether a request may go. Errors: not yet; the time to ask again.
    pub(super) fn ask(&self, kind: Kind, now: u64) -> Result<(), u64> {
        let burst = self.throttle.burst();
        if burst == 0 {
            return Ok(());
        }
        let opens = self.throttle.opens(kind);
        if opens > now {
            return Err(opens);
        }
        let lead = burst / 4;
        let ahead = self.least_of_others().is_some_and(|least| self.start() > least.saturating_add(lead));
        if ahead && now - opens < burst / 2 { Err(now + lead) } else { Ok(()) }
    }

    /// Notes that requests have gone.
    pub(super) fn take(&self, kind: Kind, fare: Fare, now: u64) {
        if !self.throttle.is_on() {
            return;
        }
        let price = self.throttle.take(kind, fare, now);
        let start = self.start();
        self.throttle.latest.fetch_max(start, Relaxed);
        self.own.time.fetch_max(start, Relaxed);
        self.own.time.fetch_add(price, Relaxed);
    }

    /// Notes that they have not, or needed less.
    pub(super) fn give_back(&self, kind: Kind, fare: Fare) {
        let price = self.throttle.refund(kind, fare);
        // Never refused: the change is always made.
        _ = self.own.time.fetch_update(Relaxed, Relaxed, |time| Some(time.saturating_sub(price)));
    }

    /// One of its requests begins to wait for this throttle, or waits no more.
    pub(super) fn wait(&self, waits: bool) {
        if waits {
            self.own.time.fetch_max(self.start(), Relaxed);
            self.own.waiting.fetch_add(1, AcqRel);
        } else {
            self.own.waiting.fetch_sub(1, AcqRel);
        }
    }

    /// Where it is in the throttle's time. Who has not waited has no claim from the past.
    fn start(&self) -> u64 {
        let time = self.own.time.load(Relaxed);
        if self.own.waiting.load(Acquire) > 0 {
            return time;
        }
        time.max(self.throttle.latest.load(Relaxed).saturating_sub(self.throttle.burst() / 4))
    }

    /// How far that of the others is who waits and has had least.
    fn least_of_others(&self) -> Option<u64> {
        // Nobody waits for a lock here: while parties come or go, none is waited for.
        let parties = self.throttle.parties.try_read().ok()?;
        let others = parties.iter().filter_map(Weak::upgrade).filter(|other| !Arc::ptr_eq(other, &self.own));
        let waiting = others.filter(|other| other.waiting.load(Acquire) > 0);
        waiting.map(|other| other.time.load(Relaxed)).min()
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut parties = self.throttle.parties.write().unwrap_or_else(PoisonError::into_inner);
        let own = Arc::downgrade(&self.own);
        parties.retain(|party| !party.ptr_eq(&own));
    }
}
