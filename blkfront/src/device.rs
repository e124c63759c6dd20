//! The life cycle of a device. Each step consumes the last, so none can be skipped or done twice:
//!
//! ```text
//! Frontend::probe ─▶ Frontend ─ configure ─▶ Configured ─ set_up_queues ─▶ Prepared ─ start ─▶ Device + Queues
//!                      info()                  negotiated()                                   │
//!                                        W ◀─ unconfigure ─ Stopped ◀─ stop(queues) ──────────┘
//! ```
//!
//! A step that fails gives up the device: it takes back what it had lent and closes its end in XenStore.

use alloc::vec::Vec;
use core::time::Duration;

use xen_platform::FrontWorld;

use crate::{BackendInfo, Capabilities, Completion, Config, DeviceError, Error, Link, Negotiated, Queue};

/// A device whose backend waits to be connected.
pub struct Frontend<W: FrontWorld> {
    world: W,
    info: BackendInfo,
}

impl<W: FrontWorld> Frontend<W> {
    /// Finds the device of frontend directory `path` (`/local/domain/<id>/device/vbd/<number>`), removes what an earlier driver
    /// left there, closes its connection if there is one, and waits until the backend waits for us (`InitWait`), at most 30
    /// seconds.
    pub fn probe(world: W, path: &str) -> Result<Self, Error> {
        Self::probe_within(world, path, Config::default().timeout)
    }

    /// [`probe`](Self::probe) with a time limit of your own.
    pub fn probe_within(world: W, path: &str, limit: Duration) -> Result<Self, Error> {
        todo!("{path} {limit:?} {}", core::mem::size_of_val(&world))
    }

    /// Both ends, and what the backend offers.
    pub fn info(&self) -> &BackendInfo {
        &self.info
    }

    /// Settles every parameter of the connection; nothing is written yet. Errors: the backend's keys make no sense.
    pub fn configure(self, config: Config) -> Result<Configured<W>, Error> {
        todo!("{config:?}")
    }
}

/// A device whose parameters are settled.
pub struct Configured<W: FrontWorld> {
    world: W,
    negotiated: Negotiated,
}

impl<W: FrontWorld> Configured<W> {
    /// What was settled, and which wishes were cut down.
    pub fn negotiated(&self) -> &Negotiated {
        &self.negotiated
    }

    /// Makes rings and event channels, lends them, and tells the backend (`Initialised`). Errors: no memory, grants or ports
    /// left; XenStore.
    pub fn set_up_queues(self) -> Result<Prepared<W>, Error> {
        todo!()
    }
}

/// A device that has offered its rings to the backend.
pub struct Prepared<W: FrontWorld> {
    world: W,
    negotiated: Negotiated,
}

impl<W: FrontWorld> Prepared<W> {
    /// What was settled, and which wishes were cut down.
    pub fn negotiated(&self) -> &Negotiated {
        &self.negotiated
    }

    /// Waits for the backend to connect, reads the disk's properties, and connects (`Connected`). Each queue may then go to a
    /// thread of its own. Errors: the backend refuses, takes too long, or its disk makes no sense.
    pub fn start(self) -> Result<(Device<W>, Vec<Queue<W>>), Error> {
        todo!()
    }
}

/// A connected device: its control side. The data side is the queues, which know nothing of this one.
pub struct Device<W: FrontWorld> {
    world: W,
    info: BackendInfo,
    negotiated: Negotiated,
    capabilities: Capabilities,
}

impl<W: FrontWorld> Device<W> {
    /// The disk.
    pub fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    /// The connection.
    pub fn negotiated(&self) -> &Negotiated {
        &self.negotiated
    }

    /// Both ends.
    pub fn info(&self) -> &BackendInfo {
        &self.info
    }

    /// Handles what has happened in XenStore. Never blocks, apart from XenStore's own round trips. Call it whenever the store
    /// connection has something, or every few seconds.
    pub fn poll_control(&mut self) -> Result<Option<DeviceEvent<W>>, Error> {
        todo!()
    }

    /// Like [`poll_control`](Self::poll_control), but waits up to `timeout` (`None`: for ever) for something to happen.
    pub fn wait_control(&mut self, timeout: Option<Duration>) -> Result<Option<DeviceEvent<W>>, Error> {
        todo!("{timeout:?}")
    }

    /// Brings all unanswered work to its end, closes both ends (`Closing`, `Closed`) and takes all memory back. `queues` are all
    /// queues of the device, in any order; `out` takes the last completions. Work that the backend leaves unanswered for
    /// [`Config::timeout`] ends with [`IoError::Cancelled`](crate::IoError::Cancelled). Buffers that the application still holds
    /// are not taken back: [free](Queue::free_buffer) them before.
    pub fn stop(
        self,
        queues: Vec<Queue<W>>,
        out: &mut impl FnMut(Completion),
    ) -> Result<Stopped<W>, NotStopped<W>> {
        let _ = (queues, out);
        todo!()
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
    /// The backend is gone. Queues keep what they hold and what is submitted, and wait for a new link.
    Lost,
    /// The backend is back: give each queue the link with its [index](Link::index) ([`Queue::reconnect`]). All unanswered work
    /// is then done again, in order.
    Reconnected(Vec<Link<W>>),
    /// A queue met a protocol violation; the device is good for [`stop`](Device::stop) only.
    Failed(DeviceError),
}

/// A device whose two ends are closed.
pub struct Stopped<W: FrontWorld> {
    world: W,
}

impl<W: FrontWorld> Stopped<W> {
    /// Removes this end's keys from XenStore and leaves the device ready for the next driver (`Initialising`).
    pub fn unconfigure(self) -> Result<W, Error> {
        todo!("{}", core::mem::size_of_val(&self.world))
    }
}
