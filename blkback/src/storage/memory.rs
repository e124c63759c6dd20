//! A disk in memory, for tests.

use std::{collections::VecDeque, io, os::fd::OwnedFd, sync::Arc, time::Duration};

use nix::errno::Errno;

use super::{Action, DiskId, Image, IoMemory, Op, Part, Storage, wake::Wakers};

/// Keeps every attached image's sectors in memory, zeroed at first, whatever the image names.
pub struct Memory<T> {
    disks: Vec<Option<Disk>>,
    done: VecDeque<Box<Op<T>>>,
    wakers: Wakers,
    waits: u64,
}

struct Disk {
    bytes: Vec<u8>,
    read_only: bool,
}

impl<T> Default for Memory<T> {
    fn default() -> Self {
        Self { disks: Vec::new(), done: VecDeque::new(), wakers: Wakers::default(), waits: 0 }
    }
}

impl<T: IoMemory> Storage<T> for Memory<T> {
    fn attach(&mut self, image: &Arc<Image>) -> io::Result<DiskId> {
        let bytes = usize::try_from(image.sectors() * 512).map_err(io::Error::other)?;
        let id = u32::try_from(self.disks.len()).map_err(io::Error::other)?;
        self.disks.push(Some(Disk { bytes: vec![0; bytes], read_only: image.read_only() }));
        Ok(DiskId(id))
    }

    fn detach(&mut self, disk: DiskId) {
        if let Some(slot) = self.disks.get_mut(disk.0 as usize) {
            *slot = None;
        }
    }

    fn submit(&mut self, mut op: Box<Op<T>>) -> Result<(), Box<Op<T>>> {
        let Some(Some(disk)) = self.disks.get_mut(op.disk.0 as usize) else {
            op.outcome = Err(Errno::ENODEV);
            return Err(op);
        };
        op.outcome = match op.action {
            Action::Read { offset } => disk.transfer(offset, &mut op.data, false),
            Action::Write { .. } | Action::Discard { .. } if disk.read_only => Err(Errno::EBADF),
            Action::Write { offset } => disk.transfer(offset, &mut op.data, true),
            Action::Flush => Ok(()),
            Action::Discard { secure: true, .. } => Err(Errno::EOPNOTSUPP),
            Action::Discard { offset, len, .. } => disk.range(offset, len).map(|range| range.fill(0)),
        };
        self.done.push_back(op);
        Ok(())
    }

    fn kick(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn reap(&mut self) -> Option<Box<Op<T>>> {
        self.done.pop_front()
    }

    fn wait(&mut self, timeout: Option<Duration>) -> io::Result<bool> {
        if !self.done.is_empty() {
            return Ok(true);
        }
        self.waits += 1;
        self.wakers.wait(timeout)
    }

    fn wake_on(&mut self, fd: OwnedFd) {
        self.wakers.add(fd);
    }

    fn in_flight(&self) -> usize {
        self.done.len()
    }

    fn system_calls(&self) -> u64 {
        self.waits
    }
}

impl Disk {
    fn range(&mut self, offset: u64, len: u64) -> Result<&mut [u8], Errno> {
        let start = usize::try_from(offset).map_err(|_| Errno::EIO)?;
        let len = usize::try_from(len).map_err(|_| Errno::EIO)?;
        let end = start.checked_add(len).ok_or(Errno::EIO)?;
        self.bytes.get_mut(start..end).ok_or(Errno::EIO)
    }

    fn transfer(&mut self, offset: u64, memory: &mut impl IoMemory, write: bool) -> Result<(), Errno> {
        let mut at = offset;
        let mut result = Ok(());
        memory.parts(|part| {
            let Ok(range) = self.range(at, part.len() as u64) else {
                result = Err(Errno::EIO);
                return;
            };
            at += part.len() as u64;
            match (part, write) {
                (Part::Shared(mem), false) => _ = mem.write(range),
                (Part::Shared(mem), true) => _ = mem.read(range),
                (Part::Private(bytes), false) => bytes.copy_from_slice(range),
                (Part::Private(bytes), true) => range.copy_from_slice(bytes),
            }
        });
        result
    }
}
