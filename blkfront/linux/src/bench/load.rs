//! One queue under load, on its own thread.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use anyhow::Context as _;
use blkfront::{Completion, Io, IoError, Operation, Queue, SECTOR_SIZE};

use super::{pattern::Pattern, stats::Stats};
use crate::connect::World;

/// When to measure and when to end.
#[derive(Clone, Copy)]
pub(super) struct Limits<'a> {
    /// The end of the warm-up.
    pub(super) begin: Instant,
    /// The end of the measurement.
    pub(super) end: Instant,
    /// Measured I/Os after which this queue ends.
    pub(super) count: Option<u64>,
    /// Set from outside: end now.
    pub(super) ended: &'a AtomicBool,
}

/// A queue with its I/Os, each of which always has the same buffer and the same cookie: its place in `starts`.
pub(super) struct Load<'q, W: World> {
    queue: &'q mut Queue<W>,
    pattern: Pattern,
    idle: Vec<Io>,
    depth: usize,
    /// When each I/O was submitted.
    starts: Vec<Instant>,
    sectors: u64,
    poll: Duration,
    stats: Stats,
    failure: Option<(IoError, u64)>,
}

/// How long one wait may be before signals and the clock are looked at again.
const LOOK: Duration = Duration::from_millis(100);

impl<'q, W: World> Load<'q, W> {
    /// Makes `depth` I/Os of `block` bytes, or as many as the queue takes. Errors: no memory for them.
    pub(super) fn new(
        queue: &'q mut Queue<W>,
        pattern: Pattern,
        block: u32,
        depth: u16,
        poll: Duration,
    ) -> anyhow::Result<Self> {
        let depth = usize::from(depth).min(queue.depth());
        let mut load = Self {
            queue,
            pattern,
            idle: Vec::with_capacity(depth),
            depth,
            starts: vec![Instant::now(); depth],
            sectors: u64::from(block / SECTOR_SIZE),
            poll,
            stats: Stats::new()?,
            failure: None,
        };
        for cookie in 0..depth as u64 {
            let buffer = load.queue.alloc_buffer(block as usize).context("memory for the benchmark")?;
            // Written data must not be zeroes, which storage may treat differently.
            let noise: Vec<u8> = (1..=251).cycle().take(buffer.len()).collect();
            buffer.write(0, &noise);
            load.idle.push(Io::read(0, buffer).part(0, block).cookie(cookie));
        }
        Ok(load)
    }

    /// I/Os kept in flight.
    pub(super) fn depth(&self) -> usize {
        self.depth
    }

    /// Runs until a limit is reached; everything has been answered then. Errors: the first failed I/O.
    pub(super) fn run(mut self, limits: Limits<'_>) -> anyhow::Result<Stats> {
        let mut now = Instant::now();
        while now < limits.begin && !self.over(limits.ended) {
            now = self.turn(now)?;
        }
        self.stats.reads.clear();
        self.stats.writes.clear();
        let (begin, before) = (now, self.queue.stats());
        let count = limits.count.unwrap_or(u64::MAX);
        while now < limits.end && self.stats.count() < count && !self.over(limits.ended) {
            now = self.turn(now)?;
        }
        self.stats.time = now - begin;
        self.stats.counted(before, self.queue.stats());
        let measured = self.stats.clone();
        self.drain()?;
        match self.failure {
            None => Ok(measured),
            Some((error, sector)) => Err(error).with_context(|| format!("I/O at sector {sector}")),
        }
    }

    fn over(&self, ended: &AtomicBool) -> bool {
        self.failure.is_some() || ended.load(Ordering::Relaxed)
    }

    /// Submits all idle I/Os, then takes at least one completion if it comes in time. Answers the time, read once.
    fn turn(&mut self, now: Instant) -> anyhow::Result<Instant> {
        while let Some(mut io) = self.idle.pop() {
            let (block, read) = self.pattern.next();
            io.sector = block * self.sectors;
            io.op = if read { Operation::Read } else { Operation::Write };
            if let Some(start) = self.starts.get_mut(usize::try_from(io.cookie).unwrap_or(usize::MAX)) {
                *start = now;
            }
            if let Err(rejected) = self.queue.submit(io) {
                let reason = rejected.reason;
                self.idle.push(rejected.io);
                return Err(reason).context("submitting");
            }
        }
        // Publishes, too.
        self.queue.wait_polling(self.poll, Some(LOOK))?;
        let now = Instant::now();
        self.finish(now)?;
        Ok(now)
    }

    fn finish(&mut self, now: Instant) -> anyhow::Result<()> {
        let Self { queue, idle, starts, stats, failure, .. } = self;
        queue.finish(&mut |completion: Completion| {
            let io = completion.io;
            let start = starts.get(usize::try_from(io.cookie).unwrap_or(usize::MAX));
            let latency = now.saturating_duration_since(start.copied().unwrap_or(now));
            match io.op {
                Operation::Read => stats.reads.record(latency),
                _ => stats.writes.record(latency),
            }
            if let Err(error) = completion.result {
                failure.get_or_insert((error, io.sector));
            }
            idle.push(io);
        })?;
        Ok(())
    }

    /// Waits for what is in flight.
    fn drain(&mut self) -> anyhow::Result<()> {
        let deadline = Instant::now() + Duration::from_secs(20);
        while self.queue.in_flight() > 0 && Instant::now() < deadline {
            self.queue.wait_polling(self.poll, Some(LOOK))?;
            self.finish(Instant::now())?;
        }
        Ok(())
    }
}

impl<W: World> Drop for Load<'_, W> {
    /// Memory goes back before the queue is stopped.
    fn drop(&mut self) {
        for buffer in self.idle.drain(..).filter_map(|io| io.buffer) {
            self.queue.free_buffer(buffer);
        }
    }
}
