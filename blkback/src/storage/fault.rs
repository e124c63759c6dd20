//! A storage that misbehaves on demand.

use std::{
    collections::VecDeque,
    io,
    os::fd::OwnedFd,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use nix::errno::Errno;

use super::{Action, DiskId, Image, IoMemory, Op, Storage};

/// What goes wrong. Shared with the test that decides.
#[derive(Debug, Default)]
pub struct Faults {
    reads: AtomicI32,
    writes: AtomicI32,
    flushes: AtomicI32,
    discards: AtomicI32,
    hold: AtomicBool,
    passes: AtomicU64,
    delay_us: AtomicU64,
    trace: Mutex<Option<Vec<Action>>>,
}

impl Faults {
    /// Reads fail with this errno from now on; `None` ends it.
    pub fn fail_reads(&self, error: Option<Errno>) {
        self.reads.store(error.map_or(0, |e| e as i32), Relaxed);
    }

    /// Writes fail, without touching the disk.
    pub fn fail_writes(&self, error: Option<Errno>) {
        self.writes.store(error.map_or(0, |e| e as i32), Relaxed);
    }

    /// Flushes fail.
    pub fn fail_flushes(&self, error: Option<Errno>) {
        self.flushes.store(error.map_or(0, |e| e as i32), Relaxed);
    }

    /// Discards fail.
    pub fn fail_discards(&self, error: Option<Errno>) {
        self.discards.store(error.map_or(0, |e| e as i32), Relaxed);
    }

    /// While set, operations are done but not given back.
    pub fn hold(&self, hold: bool) {
        self.hold.store(hold, Relaxed);
    }

    /// Gives back this many operations in spite of a [`hold`](Self::hold).
    pub fn pass(&self, operations: u64) {
        self.passes.store(operations, Relaxed);
    }

    /// Notes every operation from now on.
    pub fn trace(&self) {
        *self.noted() = Some(Vec::new());
    }

    /// The operations noted so far, in the order in which they were submitted.
    pub fn traced(&self) -> Vec<Action> {
        self.noted().clone().unwrap_or_default()
    }

    fn noted(&self) -> MutexGuard<'_, Option<Vec<Action>>> {
        self.trace.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// True when the next operation must not be given back yet.
    fn holds(&self) -> bool {
        let pass = |left: u64| left.checked_sub(1);
        self.hold.load(Relaxed) && self.passes.fetch_update(Relaxed, Relaxed, pass).is_err()
    }

    /// Operations are given back no sooner than this after they were done.
    pub fn delay(&self, delay: Duration) {
        self.delay_us.store(u64::try_from(delay.as_micros()).unwrap_or(u64::MAX), Relaxed);
    }

    fn errno(&self, action: Action) -> Option<Errno> {
        let cell = match action {
            Action::Read { .. } => &self.reads,
            Action::Write { .. } => &self.writes,
            Action::Flush => &self.flushes,
            Action::Discard { .. } => &self.discards,
        };
        match cell.load(Relaxed) {
            0 => None,
            errno => Some(Errno::from_raw(errno)),
        }
    }
}

/// Decorates a storage with [`Faults`].
pub struct Fault<S, T> {
    inner: S,
    faults: Arc<Faults>,
    late: VecDeque<(Instant, Box<Op<T>>)>,
}

impl<S, T> Fault<S, T> {
    /// Decorates `inner`.
    pub fn new(inner: S, faults: Arc<Faults>) -> Self {
        Self { inner, faults, late: VecDeque::new() }
    }

    fn due(&self) -> Option<Instant> {
        let delay = Duration::from_micros(self.faults.delay_us.load(Relaxed));
        self.late.front().map(|(at, _)| *at + delay)
    }
}

impl<S: Storage<T>, T: IoMemory> Storage<T> for Fault<S, T> {
    fn attach(&mut self, image: &Arc<Image>) -> io::Result<DiskId> {
        self.inner.attach(image)
    }

    fn detach(&mut self, disk: DiskId) {
        self.inner.detach(disk);
    }

    fn submit(&mut self, mut op: Box<Op<T>>) -> Result<(), Box<Op<T>>> {
        if let Some(trace) = &mut *self.faults.noted() {
            trace.push(op.action);
        }
        match self.faults.errno(op.action) {
            None => self.inner.submit(op),
            Some(errno) => {
                op.outcome = Err(errno);
                self.late.push_back((Instant::now(), op));
                Ok(())
            }
        }
    }

    fn kick(&mut self) -> io::Result<()> {
        self.inner.kick()
    }

    fn reap(&mut self) -> Option<Box<Op<T>>> {
        while let Some(op) = self.inner.reap() {
            self.late.push_back((Instant::now(), op));
        }
        if self.due()? > Instant::now() || self.faults.holds() {
            return None;
        }
        self.late.pop_front().map(|(_, op)| op)
    }

    fn wait(&mut self, timeout: Option<Duration>) -> io::Result<bool> {
        if self.late.is_empty() {
            return self.inner.wait(timeout);
        }
        // Nothing wakes us when the test ends a hold: look again soon.
        let soon = Duration::from_millis(1);
        self.inner.wait(Some(timeout.map_or(soon, |t| t.min(soon))))
    }

    fn wake_on(&mut self, fd: OwnedFd) {
        self.inner.wake_on(fd);
    }

    fn follow(&mut self, fd: OwnedFd) -> Result<(), OwnedFd> {
        self.inner.follow(fd)
    }

    fn received(&mut self) -> Option<Result<&[u8], Errno>> {
        self.inner.received()
    }

    fn send(&mut self, bytes: &[u8]) -> bool {
        self.inner.send(bytes)
    }

    fn in_flight(&self) -> usize {
        self.inner.in_flight() + self.late.len()
    }

    fn system_calls(&self) -> u64 {
        self.inner.system_calls()
    }
}
