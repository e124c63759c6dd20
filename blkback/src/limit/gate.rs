//! What a queue's requests pass before they are worked on.

use std::{sync::Arc, time::Duration};

use super::{Kind, Rates, Share, Throttle, nanos};

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
        Gate { own: self.own.join(), group: self.group.clone(), waits: [false; 2] }
    }
}

/// A queue's gate: its share of the disk's throttle, and the disk's of the group's. Owned by the queue's worker.
#[derive(Debug)]
pub struct Gate {
    own: Share,
    group: Option<Arc<Share>>,
    /// For which of the two a request is held.
    waits: [bool; 2],
}

impl Gate {
    /// False when there is nothing to be asked.
    #[inline]
    pub fn is_on(&self) -> bool {
        self.own.throttle().is_on() || self.group.as_ref().is_some_and(|group| group.throttle().is_on())
    }

    /// Lets a request pass and notes that. Errors: it may not go yet; the time to ask again.
    pub fn pass(&mut self, kind: Kind, bytes: usize, now: Duration) -> Result<(), Duration> {
        let at = nanos(now);
        let verdict = self.own.ask(kind, at).map_err(|until| (0, until));
        let verdict = verdict.and_then(|()| match &self.group {
            Some(group) => group.ask(kind, at).map_err(|until| (1, until)),
            None => Ok(()),
        });
        match verdict {
            Ok(()) => {
                self.open(kind, bytes, now);
                Ok(())
            }
            Err((whose, until)) => {
                self.hold(Some(whose));
                Err(Duration::from_nanos(until))
            }
        }
    }

    /// Lets a request pass in any case, and notes that.
    pub fn open(&mut self, kind: Kind, bytes: usize, now: Duration) {
        let (bytes, at) = (bytes as u64, nanos(now));
        self.own.take(kind, bytes, at);
        if let Some(group) = &self.group {
            group.take(kind, bytes, at);
        }
        self.hold(None);
    }

    /// Gives back what was noted for more bytes than a request turned out to have.
    pub fn refund(&self, kind: Kind, bytes: usize) {
        self.own.throttle().refund(kind, bytes as u64);
        if let Some(group) = &self.group {
            group.throttle().refund(kind, bytes as u64);
        }
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
        self.hold(None);
    }
}
