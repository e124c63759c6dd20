//! The daemon's storage: files and block devices through io_uring, disks with drivers and null disks beside it.

use std::{io, os::fd::OwnedFd, sync::Arc, time::Duration};

use foldhash::HashMap;
use nix::errno::Errno;

use super::{
    Action, DiskId, Image, IoMemory, Null, Op, Storage, Target, Uring, driven::Driven, driver::Place,
};

/// Routes each disk to what serves it, by the top bits of its [`DiskId`].
pub struct Engine<T: IoMemory> {
    uring: Uring<T>,
    driven: Driven<T>,
    null: Null<T>,
    /// Of each disk with a driver its file's number in the io_uring, and of each of those numbers the disk.
    files: Vec<Option<DiskId>>,
    disks: Vec<Option<DiskId>>,
    /// Operations on such files, by their address, as they were submitted.
    placed: HashMap<usize, (Action, Place)>,
}

const NULL: u32 = 1 << 31;
const DRIVEN: u32 = 1 << 30;

impl<T: IoMemory> Engine<T> {
    /// Sets the io_uring up. Call on the thread that will use it. Errors: the kernel refuses (disabled, or before 5.11).
    pub fn new() -> io::Result<Self> {
        let (mut uring, driven) = (Uring::new()?, Driven::new()?);
        uring.wait_for(driven.bell()?);
        let (files, disks, placed) = (Vec::new(), Vec::new(), HashMap::default());
        Ok(Self { uring, driven, null: Null::default(), files, disks, placed })
    }
}

impl<T: IoMemory> Engine<T> {
    /// Has the io_uring do at its place what the driver lets us do by ourselves.
    fn submit_placed(&mut self, mut op: Box<Op<T>>, file: DiskId, place: Place) -> Result<(), Box<Op<T>>> {
        let action = op.action;
        op.disk = file;
        op.action = match action {
            Action::Write { .. } => Action::Write { offset: place.offset },
            _ => Action::Read { offset: place.offset },
        };
        self.placed.insert(address(&op), (action, place));
        self.uring.submit(op).inspect_err(|op| _ = self.placed.remove(&address(op)))
    }
}

/// What an operation can be told by for as long as it is somewhere.
fn address<T>(op: &Op<T>) -> usize {
    std::ptr::from_ref(op).addr()
}

fn get(list: &[Option<DiskId>], place: DiskId) -> Option<DiskId> {
    list.get(place.0 as usize).copied().flatten()
}

fn set(list: &mut Vec<Option<DiskId>>, place: DiskId, value: Option<DiskId>) {
    let place = place.0 as usize;
    if list.len() <= place {
        list.resize(place + 1, None);
    }
    list[place] = value;
}

impl<T: IoMemory> Storage<T> for Engine<T> {
    fn attach(&mut self, image: &Arc<Image>) -> io::Result<DiskId> {
        match image.target() {
            Target::Null => self.null.attach(image).map(|DiskId(id)| DiskId(id | NULL)),
            Target::Driven(driver) => {
                let disk = self.driven.attach(image)?;
                let file = driver.file().map(|file| self.uring.attach(file)).transpose();
                let file = file.inspect_err(|_| self.driven.detach(disk))?;
                set(&mut self.files, disk, file);
                if let Some(file) = file {
                    set(&mut self.disks, file, Some(disk));
                }
                Ok(DiskId(disk.0 | DRIVEN))
            }
            Target::File(_) | Target::Block(_) => self.uring.attach(image),
        }
    }

    fn detach(&mut self, disk: DiskId) {
        match disk.0 & (NULL | DRIVEN) {
            0 => self.uring.detach(disk),
            DRIVEN => {
                let disk = DiskId(disk.0 & !DRIVEN);
                if let Some(file) = get(&self.files, disk) {
                    self.uring.detach(file);
                    set(&mut self.disks, file, None);
                }
                self.driven.detach(disk);
            }
            _ => {}
        }
    }

    fn submit(&mut self, mut op: Box<Op<T>>) -> Result<(), Box<Op<T>>> {
        match op.disk.0 & (NULL | DRIVEN) {
            0 => self.uring.submit(op),
            DRIVEN => {
                op.disk.0 &= !DRIVEN;
                match get(&self.files, op.disk).and_then(|file| Some((file, self.driven.place(&mut op)?))) {
                    Some((file, place)) => self.submit_placed(op, file, place),
                    None => self.driven.submit(op),
                }
            }
            _ => self.null.submit(op),
        }
    }

    fn kick(&mut self) -> io::Result<()> {
        self.driven.kick();
        self.uring.kick()
    }

    fn reap(&mut self) -> Option<Box<Op<T>>> {
        let placed = |mut op: Box<Op<T>>| {
            // Raw disks have no other one behind them.
            if let Some(disk) = get(&self.disks, op.disk) {
                op.disk = DiskId(disk.0 | DRIVEN);
                if let Some((action, _)) = self.placed.remove(&address(&op)) {
                    op.action = action;
                }
            }
            op
        };
        self.null.reap().or_else(|| self.uring.reap().map(placed)).or_else(|| {
            let mut op = self.driven.reap()?;
            op.disk.0 |= DRIVEN;
            Some(op)
        })
    }

    fn wait(&mut self, timeout: Option<Duration>) -> io::Result<bool> {
        if self.null.in_flight() > 0 {
            return Ok(true);
        }
        if self.driven.in_flight() == 0 {
            return self.uring.wait(timeout);
        }
        if !self.driven.lie_down() {
            return Ok(false);
        }
        let woken = self.uring.wait(timeout);
        self.driven.get_up();
        woken
    }

    fn wake_on(&mut self, fd: OwnedFd) {
        self.uring.wake_on(fd);
    }

    fn follow(&mut self, fd: OwnedFd) -> Result<(), OwnedFd> {
        self.uring.follow(fd)
    }

    fn received(&mut self) -> Option<Result<&[u8], Errno>> {
        self.uring.received()
    }

    fn send(&mut self, bytes: &[u8]) -> bool {
        self.uring.send(bytes)
    }

    fn in_flight(&self) -> usize {
        self.null.in_flight() + self.driven.in_flight() + self.uring.in_flight()
    }

    fn system_calls(&self) -> u64 {
        self.uring.system_calls()
    }
}
