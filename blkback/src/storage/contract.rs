//! The suite that every [`Storage`] passes, for any image of at least [`LEAST_BYTES`].
//!
//! Clauses are plain functions that return what went wrong; [`check`] runs all that apply.

use std::{
    collections::BTreeSet,
    io::{Read as _, Write as _},
    os::{fd::AsFd, unix::net::UnixStream},
    sync::Arc,
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    sys::eventfd::{EfdFlags, EventFd},
};

use super::{Action, DiskId, Image, IoMemory, Op, Part, Storage};
use crate::data::buffer::Buffer;

/// The least an image for this suite holds, in bytes.
pub const LEAST_BYTES: u64 = 8 << 20;

/// The suite's memory: parts of equal length that do not touch each other, so that none can be merged.
#[derive(Default)]
pub struct Scattered {
    buffer: Buffer,
    parts: usize,
    part_bytes: usize,
    tag: usize,
}

impl IoMemory for Scattered {
    fn parts(&mut self, each: impl FnMut(Part<'_>)) {
        let (stride, len) = (self.part_bytes * 2, self.part_bytes);
        let all = self.buffer.bytes_mut(self.parts * stride);
        all.chunks_mut(stride.max(1)).map(|chunk| Part::Private(chunk.split_at_mut(len).0)).for_each(each);
    }
}

impl Scattered {
    fn new(parts: usize, part_bytes: usize, tag: usize) -> Self {
        let mut memory = Self { parts, part_bytes, tag, ..Self::default() };
        memory.buffer.reserve(parts * part_bytes * 2);
        memory
    }

    /// Fills all parts with a pattern that names `seed` and the place.
    fn fill(&mut self, seed: u64) {
        let mut at = 0u64;
        self.parts(|part| {
            if let Part::Private(bytes) = part {
                for byte in bytes {
                    *byte = pattern(seed, at);
                    at += 1;
                }
            }
        });
    }

    /// The first byte that is not as [`fill`](Self::fill) made it.
    fn wrong(&mut self, seed: u64) -> Option<u64> {
        let (mut at, mut wrong) = (0, None);
        self.parts(|part| {
            if let Part::Private(bytes) = part {
                for byte in bytes {
                    if *byte != pattern(seed, at) {
                        wrong = wrong.or(Some(at));
                    }
                    at += 1;
                }
            }
        });
        wrong
    }

    fn is_zero(&mut self) -> bool {
        let mut zero = true;
        self.parts(|part| {
            if let Part::Private(bytes) = part {
                zero &= bytes.iter().all(|byte| *byte == 0);
            }
        });
        zero
    }
}

#[expect(clippy::cast_possible_truncation, reason = "one byte of the sum is the pattern")]
fn pattern(seed: u64, at: u64) -> u8 {
    (seed.wrapping_mul(31) + at + (at >> 9)) as u8
}

type Outcome = Result<(), String>;

/// Runs every clause that applies to `image`. `keeps`: what is written can be read back, which is all but the null disk.
/// Errors: the name of the clause and what went wrong.
pub fn check<S: Storage<Scattered>>(storage: &mut S, image: &Arc<Image>, keeps: bool) -> Outcome {
    let disk = storage.attach(image).map_err(|error| format!("attach: {error}"))?;
    let mut suite = Suite { storage, disk, image };
    let named = |name: &str, outcome: Outcome| outcome.map_err(|text| format!("{name}: {text}"));
    named("idle storage makes no system call", suite.idle())?;
    named("a wait ends in time", suite.wait_ends())?;
    named("a descriptor ends a wait", suite.wakes())?;
    named("a followed descriptor is read and written", suite.follows())?;
    named("an unknown disk gives the operation back", suite.unknown_disk())?;
    if image.read_only() {
        named("a read-only disk refuses writes", suite.read_only())?;
    } else {
        named("every operation comes back once", suite.many(keeps))?;
        named("more parts than the kernel takes at once", suite.scattered(keeps))?;
        named("flush", suite.one(Action::Flush, Scattered::default()).map(drop))?;
        named("discard", suite.discard(keeps))?;
    }
    if keeps {
        named("the end of the medium is an error", suite.beyond_end())?;
    }
    suite.storage.detach(disk);
    named("a detached disk gives the operation back", suite.unknown_disk())
}

struct Suite<'a, S> {
    storage: &'a mut S,
    disk: DiskId,
    image: &'a Arc<Image>,
}

impl<S: Storage<Scattered>> Suite<'_, S> {
    fn submit(&mut self, action: Action, data: Scattered) -> Outcome {
        let op = Box::new(Op { disk: self.disk, action, outcome: Err(Errno::EINPROGRESS), data });
        self.storage.submit(op).map_err(|op| format!("{action:?} given back: {:?}", op.outcome))
    }

    /// The next finished operation, within a time that no disk of a test needs.
    fn next(&mut self) -> Result<Box<Op<Scattered>>, String> {
        let start = Instant::now();
        loop {
            self.storage.kick().map_err(|error| format!("kick: {error}"))?;
            if let Some(op) = self.storage.reap() {
                return Ok(op);
            }
            if start.elapsed() > Duration::from_secs(20) {
                return Err("nothing came back in 20 s".into());
            }
            let step = Some(Duration::from_millis(100));
            self.storage.wait(step).map_err(|error| format!("wait: {error}"))?;
        }
    }

    fn one(&mut self, action: Action, data: Scattered) -> Result<Scattered, String> {
        self.submit(action, data)?;
        ensure(self.storage.in_flight() == 1, || "in_flight is not 1".into())?;
        let op = self.next()?;
        ensure(self.storage.in_flight() == 0, || "in_flight is not 0 again".into())?;
        op.outcome.map_err(|errno| format!("{action:?}: {errno}"))?;
        Ok(op.data)
    }

    fn idle(&mut self) -> Outcome {
        let before = self.storage.system_calls();
        ensure(self.storage.reap().is_none(), || "an operation out of nothing".into())?;
        self.storage.kick().map_err(|error| error.to_string())?;
        ensure(self.storage.system_calls() == before, || "a system call for nothing".into())
    }

    fn wait_ends(&mut self) -> Outcome {
        let start = Instant::now();
        self.storage.wait(Some(Duration::from_millis(20))).map_err(|error| error.to_string())?;
        ensure(start.elapsed() < Duration::from_secs(5), || "far too late".into())
    }

    fn wakes(&mut self) -> Outcome {
        let event = EventFd::from_flags(EfdFlags::EFD_NONBLOCK).map_err(|errno| errno.to_string())?;
        self.storage.wake_on(event.as_fd().try_clone_to_owned().map_err(|error| error.to_string())?);
        for _ in 0..3 {
            event.write(1).map_err(|errno| errno.to_string())?;
            let start = Instant::now();
            self.storage.wait(Some(Duration::from_secs(10))).map_err(|error| error.to_string())?;
            ensure(start.elapsed() < Duration::from_secs(5), || "not woken".into())?;
            event.read().map_err(|errno| errno.to_string())?;
        }
        Ok(())
    }

    /// Of a storage that can.
    fn follows(&mut self) -> Outcome {
        let (ours, mut peer) = UnixStream::pair().map_err(|error| error.to_string())?;
        ours.set_nonblocking(true).map_err(|error| error.to_string())?;
        peer.set_read_timeout(Some(Duration::from_secs(5))).map_err(|error| error.to_string())?;
        if self.storage.follow(ours.into()).is_err() {
            return Ok(());
        }
        ensure(self.storage.received().is_none(), || "received out of nothing".into())?;
        for round in 0..3u8 {
            ensure(self.storage.send(&[round; 4]) && self.storage.send(&[7; 4]), || "no room".into())?;
            // Sending alone does not end a wait.
            let start = Instant::now();
            let woken =
                self.storage.wait(Some(Duration::from_millis(30))).map_err(|error| error.to_string())?;
            ensure(!woken && start.elapsed() >= Duration::from_millis(20), || "woken for nothing".into())?;
            let mut sent = [0; 8];
            peer.read_exact(&mut sent).map_err(|error| error.to_string())?;
            ensure(sent[..4] == [round; 4] && sent[4..] == [7; 4], || format!("sent {sent:?}"))?;
            peer.write_all(&[9, round]).map_err(|error| error.to_string())?;
            // Until it is taken, no wait blocks.
            for _ in 0..2 {
                let start = Instant::now();
                let woken =
                    self.storage.wait(Some(Duration::from_secs(10))).map_err(|error| error.to_string())?;
                ensure(woken && start.elapsed() < Duration::from_secs(5), || "not woken".into())?;
            }
            let got = self.storage.received();
            ensure(got == Some(Ok(&[9, round])), || "not what the peer wrote".into())?;
        }
        Ok(())
    }

    fn unknown_disk(&mut self) -> Outcome {
        // The null disk knows no disks apart.
        if matches!(self.image.target(), super::Target::Null) {
            return Ok(());
        }
        let disk = DiskId(self.disk.0 + 1000);
        let op = Op { disk, action: Action::Flush, outcome: Ok(()), data: Scattered::default() };
        match self.storage.submit(Box::new(op)) {
            Ok(()) => Err("accepted".into()),
            Err(op) => ensure(op.outcome.is_err(), || "given back without an error".into()),
        }
    }

    /// 64 writes and then 64 reads in one batch each.
    fn many(&mut self, keeps: bool) -> Outcome {
        const OPS: usize = 64;
        let place = |tag: usize| tag as u64 * 24 * 1024 + 512;
        for write in [true, false] {
            for tag in 0..OPS {
                let mut data = Scattered::new(3, 4096, tag);
                if write {
                    data.fill(tag as u64);
                }
                let offset = place(tag);
                self.submit(if write { Action::Write { offset } } else { Action::Read { offset } }, data)?;
            }
            let calls = self.storage.system_calls();
            self.storage.kick().map_err(|error| format!("kick: {error}"))?;
            let calls = self.storage.system_calls() - calls;
            ensure(calls <= 1, || format!("{calls} system calls to start one batch"))?;
            let mut seen = BTreeSet::new();
            for _ in 0..OPS {
                let mut op = self.next()?;
                op.outcome.map_err(|errno| format!("{:?}: {errno}", op.action))?;
                let tag = op.data.tag;
                ensure(seen.insert(tag), || format!("operation {tag} came back twice"))?;
                if keeps {
                    let wrong = op.data.wrong(tag as u64);
                    ensure(wrong.is_none(), || format!("operation {tag}: byte {wrong:?} (write: {write})"))?;
                }
            }
            ensure(self.storage.reap().is_none(), || "more operations than were submitted".into())?;
        }
        Ok(())
    }

    fn scattered(&mut self, keeps: bool) -> Outcome {
        let mut data = Scattered::new(2500, 512, 0);
        data.fill(7);
        self.one(Action::Write { offset: 4096 }, data)?;
        let mut back = self.one(Action::Read { offset: 4096 }, Scattered::new(2500, 512, 0))?;
        let wrong = back.wrong(7).filter(|_| keeps);
        ensure(wrong.is_none(), || format!("byte {wrong:?}"))
    }

    fn discard(&mut self, keeps: bool) -> Outcome {
        let nothing = Action::Discard { offset: 0, len: 0, secure: false };
        self.one(nothing, Scattered::default())?;
        let Some(limits) = self.image.geometry().discard else { return Ok(()) };
        let len = limits.granularity.max(64 * 1024);
        let memory = || Scattered::new(1, len as usize, 0);
        let mut data = memory();
        data.fill(3);
        self.one(Action::Write { offset: 0 }, data)?;
        let whole = Action::Discard { offset: 0, len: u64::from(len), secure: false };
        self.one(whole, Scattered::default())?;
        let mut back = self.one(Action::Read { offset: 0 }, memory())?;
        ensure(!keeps || back.is_zero(), || "the old contents are still there".into())
    }

    fn read_only(&mut self) -> Outcome {
        let before = self.one(Action::Read { offset: 0 }, Scattered::new(1, 4096, 0))?;
        let mut data = Scattered::new(1, 4096, 0);
        data.fill(9);
        self.submit(Action::Write { offset: 0 }, data)?;
        ensure(self.next()?.outcome.is_err(), || "written".into())?;
        let after = self.one(Action::Read { offset: 0 }, Scattered::new(1, 4096, 0))?;
        ensure(before.buffer.bytes(4096) == after.buffer.bytes(4096), || "changed all the same".into())
    }

    fn beyond_end(&mut self) -> Outcome {
        let offset = self.image.sectors() * 512 - 4096;
        self.submit(Action::Read { offset }, Scattered::new(2, 4096, 0))?;
        let outcome = self.next()?.outcome;
        ensure(outcome == Err(Errno::EIO), || format!("{outcome:?} instead of EIO"))
    }
}

fn ensure(holds: bool, text: impl FnOnce() -> String) -> Outcome {
    if holds { Ok(()) } else { Err(text()) }
}

#[cfg(test)]
mod tests;
