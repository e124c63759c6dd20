//! What one process inside one domain sees of the machine.

use core::time::Duration;
use std::{
    os::fd::{AsFd, BorrowedFd},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
};

use super::{
    Lender, Machine, Mapper, StoreHandle,
    bell::Bell,
    events::{End, Opened, Owner},
    guest::Guest,
    hypervisor::Hypervisor,
    machine::State,
    runs::Run,
};
use crate::{BackWorld, Clock, DomId, EventChannels, EventError, FrontWorld, GrantError, Port, StoreError};

/// One process inside one domain of a [`Machine`]. Cloning gives another handle of the same process.
#[derive(Clone, Debug)]
pub struct World {
    process: Arc<Process>,
}

/// Lives as long as anything that was made from it.
#[derive(Debug)]
struct Process {
    machine: Machine,
    owner: Owner,
    dom: DomId,
    crashed: AtomicBool,
}

impl World {
    pub(super) fn new(machine: Machine, dom: DomId) -> Self {
        let owner = machine.lock().model.start_process(dom);
        Self { process: Arc::new(Process { machine, owner, dom, crashed: AtomicBool::new(false) }) }
    }

    /// The domain this process runs in.
    pub fn dom(&self) -> DomId {
        self.process.dom
    }

    /// Kills the process, as SIGKILL does: its mappings and ports go at once, what it lent is revoked as soon as the peer
    /// lets go, and every lender, mapper and event channel made from it fails from now on. Its connections to XenStore end
    /// when they are dropped.
    pub fn crash(&self) {
        self.process.crashed.store(true, SeqCst);
        self.process.machine.lock().end_process(self.process.owner);
        self.process.machine.wake();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.machine.lock().end_process(self.owner);
        self.machine.wake();
    }
}

impl Hypervisor for Process {
    fn dom(&self) -> DomId {
        self.dom
    }

    fn guest(&self, dom: DomId) -> Result<Arc<Guest>, GrantError> {
        self.machine.lock().model.guest(dom)
    }

    fn guest_to_map(&self, dom: DomId) -> Result<(Arc<Guest>, u32), GrantError> {
        self.machine.lock().model.guest_to_map(self.owner, dom)
    }

    fn reserve(&self, pages: u32) -> Result<Run, GrantError> {
        self.machine.lock().model.reserve(self.owner, pages)
    }

    fn unreserve(&self, pages: Run) {
        self.machine.lock().model.unreserve(self.owner, pages);
    }

    fn is_crashed(&self) -> bool {
        self.crashed.load(SeqCst)
    }

    fn refuses(&self, from: DomId) -> bool {
        let mut state = self.machine.lock();
        state.step();
        state.model.luck.refuses(from)
    }
}

impl FrontWorld for World {
    type Lender = Lender;
    type Events = Events;
    type Store = StoreHandle;
    type Clock = FakeClock;

    fn lender(&self, to: DomId) -> Result<Lender, GrantError> {
        Lender::new(self.process.clone(), to)
    }

    fn events(&self) -> Result<Events, EventError> {
        Events::new(self.process.clone())
    }

    fn store(&self) -> Result<StoreHandle, StoreError> {
        self.process.machine.store().connect(self.process.dom)
    }

    fn clock(&self) -> FakeClock {
        FakeClock(self.process.machine.clone())
    }
}

impl BackWorld for World {
    type Mapper = Mapper;
    type Events = Events;
    type Time = FakeClock;

    fn mapper(&self) -> Result<Mapper, GrantError> {
        Ok(Mapper::new(self.process.clone()))
    }

    fn events(&self) -> Result<Events, EventError> {
        Events::new(self.process.clone())
    }

    fn time(&self) -> FakeClock {
        FakeClock(self.process.machine.clone())
    }
}

/// The machine's clock; see [`Machine::now`].
#[derive(Clone, Debug)]
pub struct FakeClock(Machine);

impl Clock for FakeClock {
    fn now(&self) -> Duration {
        self.0.now()
    }
}

/// A process's handle on event channels. Its descriptor is readable while an unmasked port is pending.
#[derive(Debug)]
pub struct Events {
    process: Arc<Process>,
    ports: Vec<Port>,
    /// Where the next search for a pending port begins, so that a busy port cannot starve the others.
    next: usize,
    bell: Arc<Bell>,
}

impl Events {
    fn new(process: Arc<Process>) -> Result<Self, EventError> {
        let bell = Bell::new().map_err(|errno| EventError::System(errno as i32))?;
        Ok(Self { process, ports: Vec::new(), next: 0, bell: Arc::new(bell) })
    }

    /// Makes a port and remembers that it is ours.
    fn open(
        &mut self,
        make: impl FnOnce(&mut State, Owner) -> Result<Opened, EventError>,
    ) -> Result<Port, EventError> {
        let mut state = self.process.machine.lock();
        let port = make(&mut state, self.process.owner)?.port;
        let end = (self.process.dom, port);
        state.bells.insert(end, self.bell.clone());
        state.ring(end);
        drop(state);
        self.ports.push(port);
        Ok(port)
    }

    fn own(&self, port: Port) -> Result<End, EventError> {
        let end = (self.process.dom, port);
        let known = self.ports.contains(&port) && !self.process.is_crashed();
        if known { Ok(end) } else { Err(EventError::NotBound(port)) }
    }
}

impl EventChannels for Events {
    fn alloc_unbound(&mut self, remote: DomId) -> Result<Port, EventError> {
        self.open(|state, owner| state.alloc_unbound(owner, remote))
    }

    fn bind_interdomain(&mut self, remote: DomId, port: Port) -> Result<Port, EventError> {
        self.open(|state, owner| state.bind(owner, remote, port))
    }

    fn unbind(&mut self, port: Port) -> Result<(), EventError> {
        self.own(port)?;
        self.ports.retain(|other| *other != port);
        self.process.machine.lock().close(self.process.owner, port);
        Ok(())
    }

    fn notify(&mut self, port: Port) -> Result<(), EventError> {
        let end = self.own(port)?;
        self.process.machine.notify(end);
        Ok(())
    }

    fn take_pending(&mut self) -> Option<Port> {
        if self.process.is_crashed() {
            return None;
        }
        let mut state = self.process.machine.lock();
        let (before, after) = self.ports.split_at(self.next.min(self.ports.len()));
        let taken = after.iter().chain(before).copied().find(|port| {
            let end = (self.process.dom, *port);
            state.model.events.take(end)
        });
        match taken {
            Some(taken) => {
                let at = self.ports.iter().position(|port| *port == taken).unwrap_or(0);
                self.next = at + 1;
            }
            None => self.bell.quiet(),
        }
        taken
    }

    fn unmask(&mut self, port: Port) -> Result<(), EventError> {
        let end = self.own(port)?;
        let mut state = self.process.machine.lock();
        state.model.events.unmask(end).ok_or(EventError::NotBound(port))?;
        state.ring(end);
        Ok(())
    }

    fn wait(&mut self, timeout: Option<Duration>) -> Result<bool, EventError> {
        let Self { process, ports, .. } = self;
        let deliverable =
            |state: &State| ports.iter().any(|port| state.model.events.is_deliverable((process.dom, *port)));
        let ready = |state: &State| process.is_crashed() || deliverable(state);
        Ok(process.machine.wait(ready, timeout) && !process.is_crashed())
    }
}

impl AsFd for Events {
    fn as_fd(&self) -> BorrowedFd<'_> {
        Bell::as_fd(&self.bell)
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        for port in core::mem::take(&mut self.ports) {
            self.process.machine.lock().close(self.process.owner, port);
        }
    }
}
