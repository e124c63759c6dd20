//! The life cycle of a device. Each step consumes the last, so none can be skipped or done twice:
//!
//! ```text
//! Frontend::probe ─▶ Frontend ─ configure ─▶ Configured ─ set_up_queues ─▶ Prepared ─ start ─▶ Device + Queues
//!                      info()                  negotiated()                                   │
//!                                        W ◀─ unconfigure ─ Stopped ◀─ stop(queues) ──────────┘
//! ```
//!
//! A step that fails gives up the device: it takes back what it had lent and closes its end in XenStore.

use alloc::{format, vec::Vec};
use core::{fmt, time::Duration};

use blkif_proto::{
    Agreement, Limits,
    keys::{BackendDisk, BackendFeatures, DeviceType, RingDialect},
    xenbus::State,
};
use xen_platform::{Clock, FrontWorld};

use crate::{
    BackendInfo, Buffer, Capabilities, Completion, Config, Error, IoError, Link, Negotiated, Queue,
    connect::Action, driver::Control, link::Parts,
};

/// A device whose backend waits to be connected.
pub struct Frontend<W: FrontWorld> {
    control: Control<W>,
    info: BackendInfo,
}

impl<W: FrontWorld> Frontend<W> {
    /// Finds the device of frontend directory `path` (`/local/domain/<id>/device/vbd/<number>`; `device/vbd/<number>` stays true
    /// when the guest is restored or migrated), closes the connection of an
    /// earlier driver if there is one, and waits until the backend waits for us (`InitWait`), for at most 30 seconds a step.
    ///
    /// Errors: there is no such device; the backend does not get there in time; its keys make no sense.
    pub fn probe(world: W, path: &str) -> Result<Self, Error> {
        Self::probe_within(world, path, Config::default().timeout)
    }

    /// [`probe`](Self::probe) with a time limit of your own for each step.
    pub fn probe_within(world: W, path: &str, limit: Duration) -> Result<Self, Error> {
        let mut control = Control::open(world, path, limit)?;
        control.until(Action::SetUp)?;
        let features = control.features()?;
        let info = info(&control, features);
        Ok(Self { control, info })
    }

    /// Both ends, and what the backend offers.
    pub fn info(&self) -> &BackendInfo {
        &self.info
    }

    /// Settles every parameter of the connection; nothing is written yet. Errors: the backend's keys make no sense.
    pub fn configure(self, config: Config) -> Result<Configured<W>, Error> {
        let Self { mut control, .. } = self;
        // Some publish their features a moment after they say that they wait (QEMU).
        let features = control.features()?;
        control.set_limit(config.timeout);
        let plan = Plan::new(&control, features, config);
        Ok(Configured { control, plan })
    }
}

/// A device whose parameters are settled.
pub struct Configured<W: FrontWorld> {
    control: Control<W>,
    plan: Plan,
}

impl<W: FrontWorld> Configured<W> {
    /// What was settled, and which wishes were cut down.
    pub fn negotiated(&self) -> &Negotiated {
        &self.plan.negotiated
    }

    /// Makes rings and event channels, lends them, removes what an earlier driver left in our directory, and tells the backend
    /// (`Initialised`). Errors: no memory, grants or ports left; XenStore.
    pub fn set_up_queues(self) -> Result<Prepared<W>, Error> {
        let Self { mut control, plan } = self;
        let published = control.publish(&plan.offered(), plan.dialect());
        let parts = published.inspect_err(|_| control.abandon())?;
        Ok(Prepared { control, plan, parts })
    }
}

/// A device that has offered its rings to the backend.
pub struct Prepared<W: FrontWorld> {
    control: Control<W>,
    plan: Plan,
    parts: Vec<Parts<W>>,
}

impl<W: FrontWorld> Prepared<W> {
    /// What was settled, and which wishes were cut down.
    pub fn negotiated(&self) -> &Negotiated {
        &self.plan.negotiated
    }

    /// Waits for the backend to connect, reads the disk's properties, and connects (`Connected`). Each queue may then go to a
    /// thread of its own. Errors: the backend refuses, takes too long, or its disk makes no sense.
    pub fn start(self) -> Result<(Device<W>, Vec<Queue<W>>), Error> {
        let Self { mut control, mut plan, parts } = self;
        let connected = control.until(Action::Connect).and_then(|()| control.connect());
        let (disk, features) = connected.inspect_err(|_| control.abandon())?;
        let limits = plan.settle(&disk, features);
        let links = control.links(parts, &plan.agreement, limits);
        let info = info(&control, features);
        let queues = links.into_iter().filter_map(Queue::new).collect();
        let device =
            Device { control, info, plan, capabilities: Capabilities::new(&disk, &limits), rings: None };
        Ok((device, queues))
    }
}

/// A connected device: its control side. The data side is the queues, which know nothing of this one.
///
/// Dropping it instead of [stopping](Self::stop) it leaves the backend as it is, as a crash would.
pub struct Device<W: FrontWorld> {
    control: Control<W>,
    info: BackendInfo,
    plan: Plan,
    capabilities: Capabilities,
    /// New rings, offered to a backend that came back and has not connected yet.
    rings: Option<Vec<Parts<W>>>,
}

impl<W: FrontWorld> Device<W> {
    /// The disk.
    pub fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    /// The connection.
    pub fn negotiated(&self) -> &Negotiated {
        &self.plan.negotiated
    }

    /// Both ends.
    pub fn info(&self) -> &BackendInfo {
        &self.info
    }

    /// Handles what has happened in XenStore. Blocks for XenStore's own round trips at most, and for none of them while nothing
    /// happens: cheap enough to be called at every turn. Errors: XenStore; a backend that came back and makes no sense.
    pub fn poll_control(&mut self) -> Result<Option<DeviceEvent<W>>, Error> {
        if self.control.is_connected() && !self.control.has_events()? {
            return Ok(None);
        }
        match self.control.step()? {
            Action::Reread => self.reread(),
            Action::AskedToClose => Ok(Some(DeviceEvent::Closing)),
            Action::Lost => {
                self.rings = None;
                Ok(Some(DeviceEvent::Lost))
            }
            Action::SetUp => self.set_up_again().map(|()| None),
            Action::Connect => self.connect_again().map(|links| Some(DeviceEvent::Reconnected(links))),
            _ => Ok(None),
        }
    }

    /// Like [`poll_control`](Self::poll_control), but waits up to `timeout` (`None`: for ever) for something to tell.
    pub fn wait_control(&mut self, timeout: Option<Duration>) -> Result<Option<DeviceEvent<W>>, Error> {
        let end = timeout.map(|timeout| self.control.clock().now().saturating_add(timeout));
        loop {
            if let Some(event) = self.poll_control()? {
                return Ok(Some(event));
            }
            let over = |end| self.control.clock().now() >= end;
            if end.is_some_and(over) {
                return Ok(None);
            }
            self.control.sleep(end)?;
        }
    }

    /// Brings all unanswered work to its end, closes both ends (`Closing`, `Closed`) and takes all memory back. `queues` are all
    /// queues of the device, in any order; `out` takes the last completions. Work that the backend leaves unanswered for
    /// [`Config::timeout`] ends with [`IoError::Cancelled`]. Buffers that the application still holds, and those of the last
    /// completions, are not taken back: [free](Stopped::free_buffer) them afterwards.
    ///
    /// Errors: a queue is missing, then everything comes back. What goes wrong later is told by [`Stopped::error`].
    #[expect(clippy::result_large_err, reason = "a device that was not stopped comes back whole")]
    pub fn stop(
        mut self,
        mut queues: Vec<Queue<W>>,
        out: &mut impl FnMut(Completion),
    ) -> Result<Stopped<W>, NotStopped<W>> {
        let (given, owned) = (self.own_queues(&queues), self.plan.negotiated.queues as usize);
        if given != owned || given != queues.len() {
            return Err(NotStopped { error: Error::Queues { given, owned }, device: self, queues });
        }
        let end = self.control.clock().now().saturating_add(self.plan.config.timeout);
        for queue in &mut queues {
            self.drain(queue, end, out);
        }
        if let Some(failed) = queues.iter().find_map(|queue| queue.failed) {
            self.control.tell(&format!("{failed}"));
        }
        let closed = self.control.close();
        // The backend has let go of all pages now, if it ever will.
        for queue in &mut queues {
            queue.cancel(IoError::Cancelled, out);
            queue.grants.close();
        }
        Ok(Stopped { control: self.control, error: closed.err(), queues })
    }

    /// How many different queues of this device there are in `queues`.
    fn own_queues(&self, queues: &[Queue<W>]) -> usize {
        let ours = |queue: &&Queue<W>| alloc::sync::Arc::ptr_eq(&queue.link.shared, &self.control.shared);
        let mut numbers: Vec<_> = queues.iter().filter(ours).map(Queue::index).collect();
        numbers.sort_unstable();
        numbers.dedup();
        numbers.len()
    }

    fn drain(&self, queue: &mut Queue<W>, end: Duration, out: &mut impl FnMut(Completion)) {
        // Errors end all work of the queue, which is what is wanted here.
        while queue.publish().and_then(|()| queue.finish(out)).is_ok() && queue.in_flight() > 0 {
            let left = end.saturating_sub(self.control.clock().now());
            if left.is_zero() || queue.is_stale() || queue.wait(Some(left)).is_err() {
                break;
            }
        }
        if queue.failed.is_some() {
            let _ = queue.finish(out);
        }
    }

    fn reread(&mut self) -> Result<Option<DeviceEvent<W>>, Error> {
        let sectors = self.control.disk()?.sectors;
        if sectors == self.capabilities.sectors {
            return Ok(None);
        }
        self.capabilities.sectors = sectors;
        self.control.resize(sectors);
        Ok(Some(DeviceEvent::Resized { sectors }))
    }

    fn set_up_again(&mut self) -> Result<(), Error> {
        let features = self.control.features()?;
        // As many queues as before: their owners are waiting.
        let config = Config { queues: self.plan.negotiated.queues, ..self.plan.config.clone() };
        let plan = Plan::new(&self.control, features, config);
        let (offered, owned) = (plan.agreement.queues as usize, self.plan.agreement.queues as usize);
        if offered != owned {
            return Err(Error::FewerQueues { offered, owned });
        }
        self.rings = Some(self.control.publish(&plan.offered(), plan.dialect())?);
        self.plan = plan;
        Ok(())
    }

    fn connect_again(&mut self) -> Result<Vec<Link<W>>, Error> {
        let (disk, features) = self.control.connect()?;
        let limits = self.plan.settle(&disk, features);
        self.capabilities = Capabilities::new(&disk, &limits);
        self.info = info(&self.control, features);
        Ok(self.control.links(self.rings.take().unwrap_or_default(), &self.plan.agreement, limits))
    }
}

/// [`Device::stop`] could not even begin, and gives everything back.
pub struct NotStopped<W: FrontWorld> {
    /// Why.
    pub error: Error,
    /// The device, still connected.
    pub device: Device<W>,
    /// The queues that were given.
    pub queues: Vec<Queue<W>>,
}

/// What [`Device::poll_control`] found. The queues of several threads learn of it through whoever polls.
#[non_exhaustive]
pub enum DeviceEvent<W: FrontWorld> {
    /// The disk's size changed, in 512-byte sectors; the queues check against the new one already.
    Resized {
        /// The new size.
        sectors: u64,
    },
    /// The backend asks to close (the disk is being detached). I/O is still served: [stop](Device::stop) when convenient.
    Closing,
    /// The backend is gone. Queues keep what they hold and what is submitted, and wait for a new link; keep polling, for as long
    /// as it is worth waiting.
    Lost,
    /// The backend is back: give each queue the link with its [index](Link::index) ([`Queue::reconnect`]). All unanswered work
    /// is then done again, in order.
    Reconnected(Vec<Link<W>>),
}

impl<W: FrontWorld> fmt::Debug for DeviceEvent<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Resized { sectors } => write!(f, "Resized({sectors} sectors)"),
            Self::Closing => f.write_str("Closing"),
            Self::Lost => f.write_str("Lost"),
            Self::Reconnected(links) => write!(f, "Reconnected({} links)", links.len()),
        }
    }
}

/// A device whose two ends are closed.
pub struct Stopped<W: FrontWorld> {
    control: Control<W>,
    error: Option<Error>,
    /// For the memory that is still out.
    queues: Vec<Queue<W>>,
}

impl<W: FrontWorld> Stopped<W> {
    /// Gives memory back that was a queue's of this device. Memory of another device is lost until the world ends.
    pub fn free_buffer(&mut self, buffer: Buffer) {
        if let Some(queue) = self.queues.iter_mut().find(|queue| queue.grants.owns(&buffer)) {
            queue.free_buffer(buffer);
        }
    }

    /// What went wrong while closing: usually a backend that did not follow. Our end is closed nevertheless.
    pub fn error(&self) -> Option<&Error> {
        self.error.as_ref()
    }

    /// Removes this end's keys from XenStore and leaves the device ready for the next driver (`Initialising`). Errors: XenStore.
    pub fn unconfigure(self) -> Result<W, Error> {
        let Self { mut control, .. } = self;
        control.remove_keys(State::Initialising)?;
        Ok(control.into_world())
    }
}

/// What was settled for a connection, and out of what.
struct Plan {
    config: Config,
    trusted: bool,
    features: BackendFeatures,
    agreement: Agreement,
    negotiated: Negotiated,
}

impl Plan {
    fn new<W: FrontWorld>(control: &Control<W>, features: BackendFeatures, config: Config) -> Self {
        let trusted = control.ends().trusted;
        let (agreement, negotiated) = Self::agree(&features, &config, trusted);
        Self { config, trusted, features, agreement, negotiated }
    }

    /// What this end tells the backend. It offers persistent grants before it knows whether the backend does: Linux says so only
    /// when it connects.
    fn offered(&self) -> Agreement {
        let mut offered = self.agreement;
        offered.persistent = self.config.capacity(self.trusted).persistent;
        offered
    }

    /// The words in which ring pages are announced.
    fn dialect(&self) -> RingDialect {
        self.config.dialect.unwrap_or(self.features.dialect)
    }

    /// Takes in what a backend may say as late as when it connects: persistent grants and operations. What the rings were made
    /// for stays.
    fn settle(&mut self, disk: &BackendDisk, late: BackendFeatures) -> Limits {
        self.features.persistent = late.persistent;
        self.features.operations = late.operations;
        (self.agreement, self.negotiated) = Self::agree(&self.features, &self.config, self.trusted);
        self.agreement.limits(disk, late.operations)
    }

    fn agree(features: &BackendFeatures, config: &Config, trusted: bool) -> (Agreement, Negotiated) {
        let (own, peer) = (config.capacity(trusted), features.capacity());
        let agreement = Agreement::between(&own, &peer, config.abi);
        let negotiated = Negotiated::new(&agreement, &own, &peer);
        (agreement, negotiated)
    }
}

fn info<W: FrontWorld>(control: &Control<W>, features: BackendFeatures) -> BackendInfo {
    let ends = control.ends();
    BackendInfo {
        frontend: control.frontend().into(),
        backend: ends.backend.clone(),
        domain: control.domain(),
        state: control.backend_state(),
        virtual_device: Some(ends.virtual_device),
        cdrom: ends.device_type == DeviceType::Cdrom,
        trusted: ends.trusted,
        features,
    }
}

#[cfg(test)]
mod tests;
