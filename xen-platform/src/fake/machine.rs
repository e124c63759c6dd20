//! The hypervisor of the simulated worlds.

use core::time::Duration;
use std::{
    collections::BTreeMap,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use super::{
    Fault, Faults, World,
    bell::Bell,
    events::{ChannelId, End, Opened, Owner},
    faults::Delivery,
    model::Model,
    store::{Quota, SharedStore, XenStore},
};
use crate::{DomId, EventError, GrantError, Port};

/// The simulated hypervisor. Cloning gives another handle on the same machine. Domain 0 is always there and has no memory to
/// lend.
///
/// It enforces what Xen enforces, and is stricter where that finds bugs:
/// - only what was granted to a domain can be mapped by it, and a read-only page cannot be written: not by
///   [`copy`](crate::Mapper::copy), not by the processor (a fault), not by the kernel on the caller's behalf (`EFAULT`);
/// - what is mapped cannot be revoked;
/// - a mapping ends exactly once, when its holder is cleared or dropped, or when its process dies;
/// - neighbouring pages have grant references in no useful order;
/// - what is still held at the end is counted: [`leaks`](Self::leaks).
#[derive(Clone, Debug)]
pub struct Machine {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// Some end became pending.
    signalled: Condvar,
    store: SharedStore,
    nanoseconds: Arc<AtomicU64>,
}

/// What is behind the lock. Locked before the store, where both are.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) model: Model,
    store: SharedStore,
    /// How the owner of an end is woken.
    pub(crate) bells: BTreeMap<End, Arc<Bell>>,
}

/// What is still held, for tests that end with "nothing leaked".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Leaks {
    /// Mappings of granted pages, those of destroyed domains included.
    pub mapped: u64,
    /// Grant entries that are in force.
    pub granted: u64,
    /// Pages that lenders hold, for their own use or not, and pages of dead lenders that a peer still maps.
    pub pages: u64,
    /// Event-channel ports that are not closed.
    pub ports: u64,
}

impl Machine {
    /// A machine with domain 0 only. `seed` decides everything that is left to chance: faults and the order of grant
    /// references.
    pub fn new(seed: u64) -> Self {
        let store = SharedStore::new(XenStore::new(Quota::default()));
        let state = State { model: Model::new(seed), store: store.clone(), bells: BTreeMap::new() };
        let shared = Shared {
            state: Mutex::new(state),
            signalled: Condvar::new(),
            nanoseconds: store.clock().clone(),
            store,
        };
        Self { shared: Arc::new(shared) }
    }

    /// Makes a guest with `pages` pages of 4096 bytes (1 to 2^22), which cost nothing until they are touched, and introduces
    /// it to XenStore. Errors: [`GrantError::Exhausted`] for an impossible size or when no domain number is left,
    /// [`GrantError::System`].
    pub fn create_domain(&self, pages: u32) -> Result<DomId, GrantError> {
        let dom = self.lock().model.create_domain(pages)?;
        self.shared.store.introduce(dom);
        Ok(dom)
    }

    /// Destroys a guest: its ports close, XenStore forgets it, and nothing of it can be mapped any more; what is mapped stays
    /// reachable until it is unmapped. Errors: [`GrantError::NoDomain`], also for domain 0.
    pub fn destroy_domain(&self, dom: DomId) -> Result<(), GrantError> {
        self.lock().destroy_domain(dom)?;
        self.wake();
        Ok(())
    }

    /// XenStore, for the toolstack's part: `store().connect(DomId::DOM0)`.
    pub fn store(&self) -> &SharedStore {
        &self.shared.store
    }

    /// The domains that are alive, domain 0 first.
    pub fn domains(&self) -> Vec<DomId> {
        self.lock().model.domains()
    }

    /// A new process inside a domain. What it takes is given back when the last of its handles is dropped, or at once by
    /// [`World::crash`]. In a domain that does not exist, everything it does fails.
    pub fn world(&self, dom: DomId) -> World {
        World::new(self.clone(), dom)
    }

    /// From now on these faults strike.
    pub fn set_faults(&self, faults: Faults) {
        self.lock().model.luck.set(faults);
    }

    /// Every fault that struck so far, in order.
    pub fn faults_struck(&self) -> Vec<Fault> {
        self.lock().model.luck.struck().to_vec()
    }

    /// Time since the machine was made. It passes only by [`advance`](Self::advance) and where somebody waited in vain.
    pub fn now(&self) -> Duration {
        Duration::from_nanos(self.shared.nanoseconds.load(Relaxed))
    }

    /// Moves the machine's clock on.
    pub fn advance(&self, by: Duration) {
        self.shared.nanoseconds.fetch_add(nanoseconds(by), Relaxed);
    }

    /// What is held at this moment.
    pub fn leaks(&self) -> Leaks {
        self.lock().model.leaks()
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Signals the other end of a channel, as far as chance lets it.
    pub(crate) fn notify(&self, end: End) {
        let mut state = self.lock();
        state.step();
        if let Some(peer) = state.model.events.peer(end)
            && state.model.luck.delivery(peer) == Delivery::Now
        {
            state.signal(peer);
        }
        let open = state.model.events.len();
        if let Some(end) = state.model.luck.spurious(open).and_then(|index| state.model.events.nth(index)) {
            state.model.luck.fired(end);
            state.signal(end);
        }
        state.deliver_late(false);
        drop(state);
        self.shared.signalled.notify_all();
    }

    /// Blocks until somebody is `ready`, or `timeout` has passed.
    pub(crate) fn wait(&self, ready: impl Fn(&State) -> bool, timeout: Option<Duration>) -> bool {
        let until = timeout.map(|timeout| (std::time::Instant::now() + timeout, self.now() + timeout));
        let mut state = self.lock();
        // Whoever waits lets time pass, and with it what was late arrives.
        if state.deliver_late(true) {
            self.shared.signalled.notify_all();
        }
        while !ready(&state) {
            let left = until.map(|(end, _)| end.saturating_duration_since(std::time::Instant::now()));
            if left.is_some_and(|left| left.is_zero()) {
                if let Some((_, virtual_end)) = until {
                    self.shared.nanoseconds.fetch_max(nanoseconds(virtual_end), Relaxed);
                }
                return false;
            }
            // Without a timeout, look up now and then: a lost wake-up must not hang a test for ever.
            let left = left.unwrap_or(Duration::from_secs(1));
            state = match self.shared.signalled.wait_timeout(state, left) {
                Ok((state, _)) => state,
                Err(poisoned) => poisoned.into_inner().0,
            };
        }
        true
    }

    /// Wakes all who wait, to look again.
    pub(crate) fn wake(&self) {
        self.shared.signalled.notify_all();
    }
}

impl State {
    /// Counts an operation, which may be somebody's last.
    pub(crate) fn step(&mut self) {
        if let Some(dom) = self.model.luck.step() {
            // A schedule may name a domain that is gone already; then there is nothing left to kill.
            let _ = self.destroy_domain(dom);
        }
    }

    /// Ends a guest; names the channels of which nothing is left.
    pub(crate) fn destroy_domain(&mut self, dom: DomId) -> Result<Vec<ChannelId>, GrantError> {
        let closed = self.model.destroy_domain(dom)?;
        self.bells.retain(|end, _| end.0 != dom);
        self.store.release(dom);
        Ok(closed)
    }

    /// Ends a process and all it had; names the channels of which nothing is left.
    pub(crate) fn end_process(&mut self, owner: Owner) -> Vec<ChannelId> {
        let closed = self.model.end_process(owner);
        let events = &self.model.events;
        self.bells.retain(|end, _| events.owner(*end).is_some());
        closed
    }

    /// A port of a process's domain that `remote` may bind.
    pub(crate) fn alloc_unbound(&mut self, owner: Owner, remote: DomId) -> Result<Opened, EventError> {
        let dom = self.model.admit(owner, remote)?;
        self.model.events.alloc_unbound(dom, remote, owner)
    }

    /// A port of a process's domain, bound to `remote`'s `port`.
    pub(crate) fn bind(&mut self, owner: Owner, remote: DomId, port: Port) -> Result<Opened, EventError> {
        let dom = self.model.admit(owner, remote)?;
        self.model.events.bind(dom, remote, port, owner)
    }

    /// Closes a port of a process; names the channel if nothing of it is left.
    pub(crate) fn close(&mut self, owner: Owner, port: Port) -> Option<ChannelId> {
        let ends = self.model.events.ends_where(None, Some(owner));
        let end = ends.into_iter().find(|end| end.1 == port)?;
        self.bells.remove(&end);
        self.model.events.close(end)
    }

    /// Makes an end pending and wakes its owner.
    pub(crate) fn signal(&mut self, end: End) {
        self.model.events.set_pending(end);
        self.ring(end);
    }

    /// Wakes the owner of an end if there is something to deliver.
    pub(crate) fn ring(&self, end: End) {
        if self.model.events.is_deliverable(end)
            && let Some(bell) = self.bells.get(&end)
        {
            bell.ring();
        }
    }

    fn deliver_late(&mut self, waiting: bool) -> bool {
        let due = self.model.luck.due(waiting);
        due.iter().for_each(|end| self.signal(*end));
        !due.is_empty()
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
