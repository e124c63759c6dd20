//! One worker's side of the disks that have a [`Driver`].

use std::{collections::VecDeque, io, os::fd::OwnedFd, sync::Arc};

use nix::errno::Errno;

use super::{
    Action, DiskId, Image, IoMemory, Op, Part, Target,
    driver::{Driver, Finished, Home, Job, Place},
};
use crate::data::buffer::Buffer;

/// Pages of buffers kept for the next jobs at most: 8 MiB.
const SPARE_PAGES: usize = 2048;

/// Hands operations to drivers as jobs, and takes them back. No [`Storage`](super::Storage) of its own: it cannot wait, and the
/// [`Engine`](super::Engine) waits for its [`bell`](Self::bell) beside all else.
pub(super) struct Driven<T> {
    disks: Vec<Option<Disk>>,
    /// Disks with jobs that were started and not kicked.
    unkicked: Vec<u32>,
    slots: Vec<Option<Box<Op<T>>>>,
    free: Vec<u32>,
    spare: Vec<Buffer>,
    spare_pages: usize,
    home: Arc<Home>,
    back: Vec<Finished>,
    done: VecDeque<Box<Op<T>>>,
    under_way: usize,
}

struct Disk {
    image: Arc<Image>,
    driver: Arc<dyn Driver>,
    kicked: bool,
}

impl<T: IoMemory> Driven<T> {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self {
            disks: Vec::new(),
            unkicked: Vec::new(),
            slots: Vec::new(),
            free: Vec::new(),
            spare: Vec::new(),
            spare_pages: 0,
            home: Arc::new(Home::new()?),
            back: Vec::new(),
            done: VecDeque::new(),
            under_way: 0,
        })
    }

    /// Readable when jobs have come back after it had [lain down](Self::lie_down).
    pub(super) fn bell(&self) -> io::Result<OwnedFd> {
        self.home.bell().share()
    }

    /// Before a sleep: has the bell rung for jobs that come back. False if there is something to [`reap`](Self::reap).
    pub(super) fn lie_down(&self) -> bool {
        self.home.bell().lie_down(|| !self.done.is_empty() || self.home.has_some())
    }

    /// After a sleep.
    pub(super) fn get_up(&self) {
        self.home.bell().get_up();
    }

    pub(super) fn attach(&mut self, image: &Arc<Image>) -> io::Result<DiskId> {
        let Target::Driven(driver) = image.target() else { return Err(io::ErrorKind::InvalidInput.into()) };
        let disk = Disk { image: Arc::clone(image), driver: Arc::clone(driver), kicked: true };
        let index = self.disks.iter().position(Option::is_none).unwrap_or(self.disks.len());
        match self.disks.get_mut(index) {
            Some(slot) => *slot = Some(disk),
            None => self.disks.push(Some(disk)),
        }
        u32::try_from(index).map(DiskId).map_err(io::Error::other)
    }

    pub(super) fn detach(&mut self, disk: DiskId) {
        self.kick();
        if let Some(slot) = self.disks.get_mut(disk.0 as usize) {
            *slot = None;
        }
    }

    pub(super) fn submit(&mut self, mut op: Box<Op<T>>) -> Result<(), Box<Op<T>>> {
        let Some(Some(disk)) = self.disks.get_mut(op.disk.0 as usize) else {
            op.outcome = Err(Errno::ENODEV);
            return Err(op);
        };
        let refused = match op.action {
            Action::Write { .. } | Action::Discard { .. } if disk.image.read_only() => {
                Some(Err(Errno::EBADF))
            }
            Action::Discard { len: 0, .. } => Some(Ok(())),
            _ => None,
        };
        let mut data = self.spare.pop().unwrap_or_default();
        self.spare_pages -= data.pages();
        let moves = matches!(op.action, Action::Read { .. } | Action::Write { .. });
        let len = if moves { length(&mut op.data) } else { 0 };
        let refused = refused.or_else(|| (!data.reserve(len)).then_some(Err(Errno::ENOMEM)));
        self.under_way += 1;
        if let Some(outcome) = refused {
            op.outcome = outcome;
            self.done.push_back(op);
            return Ok(());
        }
        if matches!(op.action, Action::Write { .. }) {
            collect(&mut op.data, data.bytes_mut(len));
        }
        if std::mem::take(&mut disk.kicked) {
            self.unkicked.push(op.disk.0);
        }
        let action = op.action;
        let driver = Arc::clone(&disk.driver);
        let slot = self.keep(op);
        driver.start(Job::new(action, data, len, slot, Arc::clone(&self.home)));
        Ok(())
    }

    /// Where the driver lets a worker do a read or write by itself.
    pub(super) fn place(&self, op: &mut Op<T>) -> Option<Place> {
        let disk = self.disks.get(op.disk.0 as usize)?.as_ref()?;
        let offset = match op.action {
            Action::Read { offset } => offset,
            Action::Write { offset } if !disk.image.read_only() => offset,
            _ => return None,
        };
        disk.driver.file()?;
        disk.driver.place(offset, length(&mut op.data) as u64)
    }

    pub(super) fn kick(&mut self) {
        for index in self.unkicked.drain(..) {
            if let Some(Some(disk)) = self.disks.get_mut(index as usize) {
                disk.kicked = true;
                disk.driver.kick();
            }
        }
    }

    pub(super) fn reap(&mut self) -> Option<Box<Op<T>>> {
        if self.under_way == 0 {
            return None;
        }
        if self.done.is_empty() {
            self.look();
        }
        let op = self.done.pop_front()?;
        self.under_way -= 1;
        Some(op)
    }

    /// Operations taken over and not given back.
    pub(super) fn in_flight(&self) -> usize {
        self.under_way
    }

    /// Takes in what has come back.
    fn look(&mut self) {
        let mut back = std::mem::take(&mut self.back);
        self.home.look(&mut back);
        for Finished { slot, mut data, outcome } in back.drain(..) {
            if let Some(mut op) = self.slots.get_mut(slot as usize).and_then(Option::take) {
                self.free.push(slot);
                if outcome.is_ok() && matches!(op.action, Action::Read { .. }) {
                    let len = length(&mut op.data);
                    deal_out(&mut op.data, data.bytes_mut(len));
                }
                op.outcome = outcome;
                self.done.push_back(op);
            }
            if self.spare_pages + data.pages() <= SPARE_PAGES {
                self.spare_pages += data.pages();
                self.spare.push(data);
            }
        }
        self.back = back;
    }

    fn keep(&mut self, op: Box<Op<T>>) -> u32 {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            u32::try_from(self.slots.len() - 1).unwrap_or(u32::MAX)
        });
        if let Some(place) = self.slots.get_mut(slot as usize) {
            *place = Some(op);
        }
        slot
    }
}

fn length(memory: &mut impl IoMemory) -> usize {
    let mut len = 0;
    memory.parts(|part| len += part.len());
    len
}

/// Copies all parts to `to`, which is as long as they are together.
fn collect(memory: &mut impl IoMemory, mut to: &mut [u8]) {
    memory.parts(|part| {
        let Some((place, rest)) = std::mem::take(&mut to).split_at_mut_checked(part.len()) else { return };
        match part {
            Part::Shared(mem) => _ = mem.read(place),
            Part::Private(bytes) => place.copy_from_slice(bytes),
        }
        to = rest;
    });
}

/// Copies `from`, which is as long as all parts are together, to them.
fn deal_out(memory: &mut impl IoMemory, mut from: &[u8]) {
    memory.parts(|part| {
        let Some((place, rest)) = from.split_at_checked(part.len()) else { return };
        match part {
            Part::Shared(mem) => _ = mem.write(place),
            Part::Private(bytes) => bytes.copy_from_slice(place),
        }
        from = rest;
    });
}

#[cfg(test)]
mod tests;
