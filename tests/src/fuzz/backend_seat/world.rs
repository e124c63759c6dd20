//! The frontend's world: the fake one, in which whoever waits lets the backend act.

use core::time::Duration;
use std::sync::{Arc, Mutex, PoisonError};

use xen_platform::{
    Change, DomId, EventChannels, EventError, FrontWorld, GrantError, Port, Store, StoreError, WatchEvent,
    fake::{self, Machine},
};

/// Whoever acts while a frontend waits.
pub(crate) trait Peer: Send {
    /// Does the next thing; false when there is none.
    fn act(&mut self) -> bool;
}

/// The frontend's handle on everything.
pub(crate) struct Seat {
    world: fake::World,
    others: Others,
}

/// Those who act while somebody waits.
#[derive(Clone)]
struct Others {
    machine: Machine,
    hand: Arc<Mutex<dyn Peer>>,
}

impl Others {
    /// Lets the backend act until something is `ready`; when it is through, all the time passes.
    fn wait<E>(
        &self,
        timeout: Option<Duration>,
        mut ready: impl FnMut() -> Result<bool, E>,
    ) -> Result<bool, E> {
        loop {
            if ready()? {
                return Ok(true);
            }
            if !self.hand.lock().unwrap_or_else(PoisonError::into_inner).act() {
                let second = Duration::from_secs(1);
                self.machine.advance(timeout.unwrap_or(second).max(Duration::from_micros(1)));
                return Ok(false);
            }
        }
    }
}

impl Seat {
    pub(crate) fn new(world: fake::World, machine: &Machine, hand: Arc<Mutex<dyn Peer>>) -> Self {
        Self { world, others: Others { machine: machine.clone(), hand } }
    }

    pub(crate) fn guest(&self) -> DomId {
        self.world.dom()
    }
}

impl FrontWorld for Seat {
    type Lender = fake::Lender;
    type Events = Events;
    type Store = Nodes;
    type Clock = fake::FakeClock;

    fn lender(&self, to: DomId) -> Result<fake::Lender, GrantError> {
        self.world.lender(to)
    }

    fn events(&self) -> Result<Events, EventError> {
        Ok(Events { inner: self.world.events()?, others: self.others.clone() })
    }

    fn store(&self) -> Result<Nodes, StoreError> {
        Ok(Nodes { inner: self.world.store()?, others: self.others.clone() })
    }

    fn clock(&self) -> fake::FakeClock {
        self.world.clock()
    }
}

/// Event channels.
pub(crate) struct Events {
    inner: fake::Events,
    others: Others,
}

impl EventChannels for Events {
    fn alloc_unbound(&mut self, remote: DomId) -> Result<Port, EventError> {
        self.inner.alloc_unbound(remote)
    }

    fn bind_interdomain(&mut self, remote: DomId, port: Port) -> Result<Port, EventError> {
        self.inner.bind_interdomain(remote, port)
    }

    fn unbind(&mut self, port: Port) -> Result<(), EventError> {
        self.inner.unbind(port)
    }

    fn notify(&mut self, port: Port) -> Result<(), EventError> {
        self.inner.notify(port)
    }

    fn take_pending(&mut self) -> Option<Port> {
        self.inner.take_pending()
    }

    fn unmask(&mut self, port: Port) -> Result<(), EventError> {
        self.inner.unmask(port)
    }

    fn wait(&mut self, timeout: Option<Duration>) -> Result<bool, EventError> {
        let Self { inner, others } = self;
        others.wait(timeout, || inner.wait(Some(Duration::ZERO)))
    }
}

/// XenStore.
pub(crate) struct Nodes {
    inner: fake::StoreHandle,
    others: Others,
}

impl Store for Nodes {
    fn read(&mut self, path: &str) -> Result<Vec<u8>, StoreError> {
        self.inner.read(path)
    }

    fn list(&mut self, path: &str) -> Result<Vec<String>, StoreError> {
        self.inner.list(path)
    }

    fn apply(&mut self, changes: &[Change<'_>]) -> Result<(), StoreError> {
        self.inner.apply(changes)
    }

    fn watch(&mut self, path: &str, token: &str) -> Result<(), StoreError> {
        self.inner.watch(path, token)
    }

    fn unwatch(&mut self, path: &str, token: &str) -> Result<(), StoreError> {
        self.inner.unwatch(path, token)
    }

    fn next_event(&mut self) -> Result<Option<WatchEvent>, StoreError> {
        self.inner.next_event()
    }

    fn wait(&mut self, timeout: Option<Duration>) -> Result<bool, StoreError> {
        let Self { inner, others } = self;
        others.wait(timeout, || inner.wait(Some(Duration::ZERO)))
    }
}
