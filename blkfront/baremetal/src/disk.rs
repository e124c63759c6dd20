//! The guest's disk: found, connected, looked after, closed.

use alloc::{format, string::String, vec::Vec};
use core::{fmt, time::Duration};

use blkfront::{Config, Device, DeviceEvent, Frontend, Io, Queue};
use xen_platform::{
    Clock as _, FrontWorld, Store as _, StoreError,
    bare::{Control, Request},
};

use crate::{Failure, Guest};

/// How long one wait may be before the backend is looked at again.
const LOOK: Duration = Duration::from_millis(100);

/// A connected disk.
pub(crate) struct Disk<W: FrontWorld> {
    pub(crate) device: Device<W>,
    pub(crate) queues: Vec<Queue<W>>,
    pub(crate) clock: W::Clock,
    /// How long the backend may take to answer, or to come back.
    limit: Duration,
    /// Since when it is gone.
    lost: Option<Duration>,
    guest: W,
    control: Control<W::Store>,
    /// The tool stack wants the guest to end: nothing that could go on for long is to be begun.
    pub(crate) told_to_end: bool,
}

/// The directory of the disk with number `device`, or of the first one. Errors: there is none.
pub(crate) fn path<W: FrontWorld>(world: &W, device: Option<u32>) -> Result<String, Failure> {
    let mut store = world.store()?;
    // Relative to the guest's own directory, whose name changes when it is restored.
    let disks = "device/vbd";
    let names = match store.list(disks) {
        Err(StoreError::NoEntry(_) | StoreError::Denied(_)) => Vec::new(),
        names => names?,
    };
    let numbers = names.iter().filter_map(|name| name.parse::<u32>().ok());
    let found = numbers.filter(|number| device.is_none_or(|device| device == *number)).min();
    found.map(|number| format!("{disks}/{number}")).ok_or(Failure::NoDisk(disks))
}

/// Connects the disk of frontend directory `path`, lets `work` use it, and closes it again. What went wrong first is what is
/// answered.
pub(crate) fn with<W: Guest, O: fmt::Write>(
    world: &W,
    path: &str,
    config: Config,
    out: &mut O,
    work: impl FnOnce(&mut Disk<W>, &mut O) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let mut disk = Disk::connect(world, path, config)?;
    // Whoever reads `out` sees what is missing.
    let _ = writeln!(out, "connection {}", disk.device.negotiated());
    let done = work(&mut disk, out);
    done.and(disk.close(out))
}

impl<W: Guest> Disk<W> {
    fn connect(world: &W, path: &str, config: Config) -> Result<Self, Failure> {
        let limit = config.timeout;
        let frontend = Frontend::probe_within(world.clone(), path, limit)?;
        let (device, queues) = frontend.configure(config)?.set_up_queues()?.start()?;
        let (guest, control) = (world.clone(), Control::new(world.store()?)?);
        Ok(Self {
            device,
            queues,
            clock: world.clock(),
            limit,
            lost: None,
            guest,
            control,
            told_to_end: false,
        })
    }

    /// Closes it and leaves it for the next connection.
    fn close(self, out: &mut impl fmt::Write) -> Result<(), Failure> {
        let (mut failed, mut late) = (0, Vec::new());
        let mut end = |completion: blkfront::Completion| {
            failed += u32::from(completion.result.is_err());
            late.extend(completion.io.buffer);
        };
        let mut stopped = self.device.stop(self.queues, &mut end).map_err(|kept| kept.error)?;
        late.into_iter().for_each(|buffer| stopped.free_buffer(buffer));
        if failed > 0 {
            let _ = writeln!(out, "{failed} I/Os failed when the disk was closed");
        }
        let error = stopped.error().map(|error| Failure::NotClosed(format!("{error}")));
        stopped.unconfigure()?;
        error.map_or(Ok(()), Err)
    }
}

impl<W: Guest> Disk<W> {
    /// Waits until queue `number` has completions, or need not be waited for. Errors: the backend does not answer, or does not
    /// come back, in time; the tool stack wants the disk back.
    pub(crate) fn wait(&mut self, number: usize, out: &mut impl fmt::Write) -> Result<(), Failure> {
        let mut since = self.clock.now();
        loop {
            self.look_after(out)?;
            let Some(queue) = self.queues.get_mut(number) else { return Ok(()) };
            if queue.wait(Some(LOOK))? || queue.in_flight() == 0 {
                return Ok(());
            }
            let now = self.clock.now();
            if self.lost.is_some() {
                since = now;
            }
            if now.saturating_sub(since) >= self.limit {
                return Err(Failure::TimedOut { seconds: self.limit.as_secs() });
            }
        }
    }

    /// Does what the tool stack asks of the guest.
    fn obey(&mut self, out: &mut impl fmt::Write) -> Result<(), Failure> {
        match self.control.next_request()? {
            Some(Request::Suspend) => {
                let _ = writeln!(out, "suspended");
                let restored = self.guest.suspend()?;
                let _ = writeln!(out, "{}", if restored { "restored" } else { "goes on where it was" });
                Ok(())
            }
            Some(Request::PowerOff) => {
                let _ = writeln!(out, "told to end: what was begun is finished");
                self.told_to_end = true;
                Ok(())
            }
            Some(Request::Other(word)) => {
                let _ = writeln!(out, "the tool stack asks for {word}, which is not done");
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Does what a backend asks for that closes, goes, comes back or has another size. Sleeps only while it is gone.
    fn look_after(&mut self, out: &mut impl fmt::Write) -> Result<(), Failure> {
        self.obey(out)?;
        let event = match self.lost {
            None => self.device.poll_control()?,
            Some(_) => self.device.wait_control(Some(LOOK))?,
        };
        let now = self.clock.now();
        match event {
            Some(DeviceEvent::Closing) => return Err(Failure::TakenAway),
            Some(DeviceEvent::Resized { sectors }) => {
                let _ = writeln!(out, "the disk has {sectors} sectors now");
            }
            Some(DeviceEvent::Lost) => {
                let _ =
                    writeln!(out, "the backend is gone: waiting for it, {} s at most", self.limit.as_secs());
                self.lost.get_or_insert(now);
            }
            Some(DeviceEvent::Reconnected(links)) => {
                for link in links {
                    let number = usize::try_from(link.index()).unwrap_or(usize::MAX);
                    self.queues.get_mut(number).map_or(Ok(()), |queue| queue.reconnect(link))?;
                }
                let _ = writeln!(out, "the backend is back: {}", self.device.negotiated());
                self.lost = None;
            }
            _ => {}
        }
        match self.lost {
            Some(since) if now.saturating_sub(since) >= self.limit => Err(Failure::Gone),
            _ => Ok(()),
        }
    }

    /// Makes everything durable that was written, where the disk has such an operation. Nothing else is under way.
    pub(crate) fn flush(&mut self, out: &mut impl fmt::Write) -> Result<(), Failure> {
        if !self.device.capabilities().flush {
            return Ok(());
        }
        let Some(queue) = self.queues.first_mut() else { return Ok(()) };
        queue.submit(Io::flush()).map_err(|rejected| Failure::rejected(&rejected))?;
        let mut flushed = None;
        while flushed.is_none() {
            self.wait(0, out)?;
            let Some(queue) = self.queues.first_mut() else { break };
            queue.finish(&mut |completion| flushed = Some(completion.result))?;
        }
        flushed.unwrap_or(Ok(())).map_err(|error| Failure::Io { sector: 0, error })
    }
}
