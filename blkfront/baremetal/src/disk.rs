//! The guest's disk: found, connected, closed.

use alloc::{format, string::String, vec::Vec};

use blkfront::{Config, Device, Frontend, Queue};
use xen_platform::{FrontWorld, Store as _, StoreError};

use crate::Failure;

/// A connected disk.
pub(crate) struct Disk<W: FrontWorld> {
    pub(crate) device: Device<W>,
    pub(crate) queues: Vec<Queue<W>>,
}

/// The directory of the disk with number `device`, or of the first one. Errors: there is none.
pub(crate) fn path<W: FrontWorld>(world: &W, device: Option<u32>) -> Result<String, Failure> {
    let mut store = world.store()?;
    let id = store.read("domid")?;
    let disks = format!("/local/domain/{}/device/vbd", String::from_utf8_lossy(&id));
    let names = match store.list(&disks) {
        Err(StoreError::NoEntry(_) | StoreError::Denied(_)) => Vec::new(),
        names => names?,
    };
    let numbers = names.iter().filter_map(|name| name.parse::<u32>().ok());
    let found = numbers.filter(|number| device.is_none_or(|device| device == *number)).min();
    found.map(|number| format!("{disks}/{number}")).ok_or(Failure::NoDisk(disks))
}

impl<W: FrontWorld + Clone> Disk<W> {
    /// Connects the disk of frontend directory `path`.
    pub(crate) fn connect(world: &W, path: &str, config: Config) -> Result<Self, Failure> {
        let frontend = Frontend::probe_within(world.clone(), path, config.timeout)?;
        let (device, queues) = frontend.configure(config)?.set_up_queues()?.start()?;
        Ok(Self { device, queues })
    }

    /// Closes it and leaves it for the next connection.
    pub(crate) fn close(self) -> Result<(), Failure> {
        let stopped = self.device.stop(self.queues, &mut |_| ()).map_err(|kept| kept.error)?;
        stopped.unconfigure()?;
        Ok(())
    }
}
