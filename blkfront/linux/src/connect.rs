//! From the command line to a connected disk, and back: whatever a command does, the disk is closed properly after it.

use std::{os::fd::AsFd, time::Duration};

use anyhow::{Context as _, anyhow, bail};
use blkfront::{
    Capabilities, Config, Device, DeviceEvent, Frontend, Io, Negotiated, Operation, Queue, Stopped,
};
use tracing::{debug, info, warn};
use xen_platform::{FrontWorld, Store as _, StoreError};

use crate::{cli::Connection, exit::Usage, record::Recorded, signal::Stop};

/// A world in which this process can wait on descriptors and give queues to threads.
pub(crate) trait World: FrontWorld<Events: AsFd, Clock: Send> {}
impl<W: FrontWorld<Events: AsFd, Clock: Send>> World for W {}

/// A connected disk, lent to one command.
pub(crate) struct Disk<W: World> {
    /// The control side.
    pub(crate) device: Device<W>,
    /// All queues, at least one; each may be used on a thread of its own while the command runs.
    pub(crate) queues: Vec<Queue<W>>,
    /// When to give up.
    pub(crate) stop: Stop,
    /// How long to look for answers before sleeping.
    pub(crate) poll: Duration,
}

/// Connects the disk that `connection` names, lets `command` use it, and closes it again. A failure to close counts if the
/// command itself succeeded.
pub(crate) fn with_disk<W: World, T>(
    world: W,
    connection: &Connection,
    queues: u32,
    stop: Stop,
    command: impl FnOnce(&mut Disk<Recorded<W>>) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let path = match &connection.device {
        Some(device) => device.path(connection.domain),
        None => only_disk(&world, connection.domain)?,
    };
    let world = Recorded::new(world, &path, connection)?;
    let tracer = world.tracer();
    let config = connection.config(queues);
    let mut disk =
        open(world, &path, config, stop, connection.poll()).with_context(|| format!("connecting {path}"))?;
    let result = command(&mut disk);
    let closed = close(disk).with_context(|| format!("closing {path}"));
    let traced = tracer.map_or(Ok(()), |tracer| tracer.write()).context("writing the trace");
    let closed = closed.and(traced);
    match (result, closed) {
        (Ok(value), Ok(())) => Ok(value),
        (Ok(_), Err(error)) => Err(error),
        (Err(error), closed) => {
            if let Err(also) = closed {
                warn!("{also:#}");
            }
            Err(error)
        }
    }
}

impl<W: World> Disk<W> {
    /// What the disk can do.
    pub(crate) fn capabilities(&self) -> Capabilities {
        *self.device.capabilities()
    }

    /// What both ends agreed on.
    pub(crate) fn negotiated(&self) -> &Negotiated {
        self.device.negotiated()
    }
}

/// Looks after the device while a command waits. Errors: nothing more can be expected from this connection.
pub(crate) fn look_after<W: World>(device: &mut Device<W>) -> anyhow::Result<()> {
    while let Some(event) = device.poll_control().context("watching the backend")? {
        match event {
            DeviceEvent::Resized { sectors } => info!("the disk has {sectors} sectors now"),
            // I/O is served while the backend is only closing: the command may end in peace.
            DeviceEvent::Closing => warn!("the backend wants to close the disk"),
            _ => bail!("the backend is gone"),
        }
    }
    Ok(())
}

/// What makes every completed write durable on this disk; `None` where writes are durable when they complete.
pub(crate) fn flush(disk: &Capabilities) -> Option<Io> {
    match (disk.flush, disk.barrier) {
        (true, _) => Some(Io::flush()),
        (false, true) => Some(Io { op: Operation::WriteBarrier, ..Io::flush() }),
        (false, false) => None,
    }
}

fn open<W: World>(
    world: W,
    path: &str,
    config: Config,
    stop: Stop,
    poll: Duration,
) -> anyhow::Result<Disk<W>> {
    let frontend = Frontend::probe_within(world, path, config.timeout)?;
    let configured = frontend.configure(config)?;
    for reduction in &configured.negotiated().reductions {
        info!("{reduction}");
    }
    let (device, queues) = configured.set_up_queues()?.start()?;
    debug!("connected {path}: {}", device.negotiated());
    Ok(Disk { device, queues, stop, poll })
}

fn close<W: World>(disk: Disk<W>) -> anyhow::Result<()> {
    let Disk { device, queues, .. } = disk;
    let mut unanswered = 0;
    let stopped: Stopped<W> =
        device.stop(queues, &mut |_| unanswered += 1).map_err(|not_stopped| not_stopped.error)?;
    if unanswered > 0 {
        debug!("{unanswered} requests were still under way");
    }
    let not_followed = stopped.error().map(|error| anyhow!("{error}"));
    stopped.unconfigure()?;
    not_followed.map_or(Ok(()), Err)
}

/// The frontend directory of the guest's disk if it has just one.
fn only_disk<W: World>(world: &W, domain: u16) -> anyhow::Result<String> {
    let directory = format!("/local/domain/{domain}/device/vbd");
    let mut disks = match world.store().context("connecting to XenStore")?.list(&directory) {
        Ok(disks) => disks,
        Err(StoreError::NoEntry(_)) => Vec::new(),
        Err(error) => return Err(error).with_context(|| format!("listing {directory}")),
    };
    disks.sort();
    match &disks[..] {
        [disk] => Ok(format!("{directory}/{disk}")),
        [] => bail!("domain {domain} has no disk in {directory}"),
        _ => Err(Usage(format!(
            "domain {domain} has several disks: name one with --device: {}",
            disks.join(", ")
        ))
        .into()),
    }
}
