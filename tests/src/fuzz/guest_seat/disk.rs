//! The disks of all guests of a worker, in memory. They believe nothing: what an operation asks for is checked as if nobody had.

use std::{
    collections::VecDeque,
    io,
    os::fd::OwnedFd,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use blkback::{
    data::inflight::{InFlight, Place},
    storage::{Action, DiskId, Image, IoMemory as _, Op, Part, Storage},
};
use nix::errno::Errno;
use xen_platform::fake;

type Request = Box<Op<InFlight<fake::Mapping>>>;

/// What is on the disks, by the name of their images' owners: they outlive a killed worker.
#[derive(Clone, Default)]
pub(crate) struct Platters(Arc<Mutex<Vec<(usize, Vec<u8>)>>>);

impl Platters {
    /// Works on the bytes of an image's disk.
    pub(crate) fn with<R>(&self, image: &Arc<Image>, work: impl FnOnce(&mut Vec<u8>) -> R) -> R {
        let index = self.index(image);
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        work(&mut all[index].1)
    }

    fn index(&self, image: &Arc<Image>) -> usize {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let name = Arc::as_ptr(image).addr();
        if let Some(index) = all.iter().position(|(known, _)| *known == name) {
            return index;
        }
        all.push((name, vec![0; image.sectors() as usize * 512]));
        all.len() - 1
    }
}

/// One worker's way to them.
pub(crate) struct Disk {
    platters: Platters,
    attached: Vec<usize>,
    /// Given to it, and not begun.
    pub(crate) waiting: VecDeque<Request>,
    done: Vec<Request>,
}

impl Disk {
    /// None is attached yet.
    pub(crate) fn new(platters: Platters) -> Self {
        Self { platters, attached: Vec::new(), waiting: VecDeque::new(), done: Vec::new() }
    }

    /// Ends one of those that wait; false if none does.
    pub(crate) fn finish(&mut self, choice: usize, fails: bool) -> bool {
        if self.waiting.is_empty() {
            return false;
        }
        let Some(mut op) = self.waiting.remove(choice % self.waiting.len()) else { return false };
        op.outcome = if fails { Err(Errno::EIO) } else { self.apply(&mut op) };
        self.done.push(op);
        true
    }

    /// True when there is something to reap.
    pub(crate) fn has_done(&self) -> bool {
        !self.done.is_empty()
    }

    fn apply(&mut self, op: &mut Request) -> Result<(), Errno> {
        let mut all = self.platters.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (action, data) = (op.action, &mut op.data);
        let bytes = &mut all[self.attached[op.disk.0 as usize]].1;
        check(action, data, bytes.len() as u64);
        let (offset, write) = match action {
            Action::Read { offset } => (offset, false),
            Action::Write { offset } => (offset, true),
            Action::Flush => return Ok(()),
            Action::Discard { offset, len, .. } => {
                bytes[offset as usize..][..len as usize].fill(0);
                return Ok(());
            }
        };
        let mut at = offset as usize;
        data.parts(|part| {
            let place = &mut bytes[at..at + part.len()];
            at += part.len();
            match (part, write) {
                (Part::Shared(page), false) => _ = page.write(place),
                (Part::Private(own), false) => own.copy_from_slice(place),
                (Part::Shared(page), true) => _ = page.read(place),
                (Part::Private(own), true) => place.copy_from_slice(own),
            }
        });
        Ok(())
    }
}

/// What the gate has let through, looked at once more.
fn check(action: Action, data: &mut InFlight<fake::Mapping>, disk: u64) {
    let (mut length, mut parts) = (0, 0);
    data.parts(|part| {
        parts += 1;
        length += part.len();
    });
    let (offset, wanted) = match action {
        Action::Flush => return,
        Action::Discard { offset, len, .. } => (offset, len),
        Action::Read { offset } | Action::Write { offset } => {
            assert_eq!(length, data.bytes, "{action:?} of {parts} parts");
            let segments: usize = data.segments.iter().map(|segment| segment.bytes()).sum();
            assert_eq!(length, segments, "{action:?}");
            assert!(length > 0 && data.place != Place::Nowhere, "{action:?} of nothing");
            assert!(
                data.segments.iter().all(|segment| segment.offset() + segment.bytes() <= 4096),
                "{action:?}"
            );
            (offset, length as u64)
        }
    };
    let end = offset.checked_add(wanted);
    assert!(end.is_some_and(|end| end <= disk), "{action:?} of {wanted} bytes, on a disk of {disk}");
}

impl Storage<InFlight<fake::Mapping>> for Disk {
    fn attach(&mut self, image: &Arc<Image>) -> io::Result<DiskId> {
        self.attached.push(self.platters.index(image));
        Ok(DiskId(self.attached.len() as u32 - 1))
    }

    fn detach(&mut self, _: DiskId) {}

    fn submit(&mut self, op: Request) -> Result<(), Request> {
        self.waiting.push_back(op);
        Ok(())
    }

    fn kick(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn reap(&mut self) -> Option<Request> {
        self.done.pop()
    }

    /// Only a worker that dies calls this: what is under way comes to an end.
    fn wait(&mut self, _: Option<Duration>) -> io::Result<bool> {
        while self.finish(0, false) {}
        Ok(true)
    }

    fn wake_on(&mut self, _: OwnedFd) {}

    fn in_flight(&self) -> usize {
        self.waiting.len() + self.done.len()
    }

    fn system_calls(&self) -> u64 {
        0
    }
}
