//! Queues under load.

use alloc::{vec, vec::Vec};
use core::time::Duration;

use blkfront::{
    Completion, DeviceError, Io, IoError, Operation, Queue, QueueStats, RejectReason, SECTOR_SIZE,
};
use xen_platform::{Clock, FrontWorld, GrantError};

use crate::{Job, Stats, pattern::Pattern};

/// When to measure and when to end.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The end of the warm-up, by the world's clock.
    pub begin: Duration,
    /// The end of the measurement, by the world's clock.
    pub end: Duration,
    /// Measured I/Os after which it ends.
    pub count: Option<u64>,
}

impl Limits {
    /// Those of a job that begins now.
    pub fn new(job: &Job, now: Duration) -> Self {
        let begin = now.saturating_add(job.warmup);
        Self { begin, end: begin.saturating_add(job.runtime), count: job.count }
    }
}

/// Why there is nothing to report.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Failure {
    /// There is none for the buffers.
    #[error("memory for the benchmark")]
    Memory(#[source] GrantError),
    /// The connection broke.
    #[error("the queue")]
    Queue(#[from] DeviceError),
    /// The frontend did not take an I/O.
    #[error("submitting")]
    Rejected(#[source] RejectReason),
    /// An I/O failed.
    #[error("I/O at sector {sector}")]
    Io {
        /// Its first sector.
        sector: u64,
        /// How.
        #[source]
        error: IoError,
    },
    /// Nothing was answered for too long.
    #[error("the backend does not answer")]
    Silent,
}

/// A queue with its I/Os, each of which always has the same buffer and the same cookie: its place in `starts`.
pub struct Load<'q, W: FrontWorld> {
    queue: &'q mut Queue<W>,
    pattern: Pattern,
    idle: Vec<Io>,
    depth: usize,
    /// When each I/O was submitted.
    starts: Vec<Duration>,
    sectors: u64,
    poll: Duration,
    patience: Duration,
    /// When the backend last answered.
    answered: Duration,
    clock: W::Clock,
    before: QueueStats,
}

/// No block of any size looks like another's.
const NOISE: [u8; 251] = {
    let mut noise = [0; 251];
    let mut byte = 0;
    while byte < 251 {
        noise[byte as usize] = byte + 1;
        byte += 1;
    }
    noise
};

/// How long one wait may be before anything else is looked at again.
const LOOK: Duration = Duration::from_millis(100);

impl<'q, W: FrontWorld> Load<'q, W> {
    /// Makes the I/Os of a job on queue `index` of `queues`, as many as the queue takes. `blocks` is [`Job::blocks`]'s answer.
    /// Errors: no memory for them.
    pub fn new(
        queue: &'q mut Queue<W>,
        job: &Job,
        blocks: u64,
        index: u64,
        queues: u64,
    ) -> Result<Self, Failure> {
        let depth = usize::from(job.depth).min(queue.depth());
        let clock = queue.clock().clone();
        let now = clock.now();
        let mut load = Self {
            queue,
            pattern: job.pattern(blocks, index, queues),
            idle: Vec::with_capacity(depth),
            depth,
            starts: vec![now; depth],
            sectors: u64::from(job.block / SECTOR_SIZE),
            poll: job.poll,
            patience: job.patience,
            answered: now,
            clock,
            before: QueueStats::default(),
        };
        for cookie in 0..depth as u64 {
            let buffer = load.queue.alloc_buffer(job.block as usize).map_err(Failure::Memory)?;
            // Written data must not be zeroes, which storage may treat differently.
            for at in (0..buffer.len()).step_by(NOISE.len()) {
                buffer.write(at, &NOISE);
            }
            load.idle.push(Io::read(0, buffer).part(0, job.block).cookie(cookie));
        }
        Ok(load)
    }

    /// I/Os kept in flight.
    pub fn depth(&self) -> usize {
        self.depth
    }

    /// Submits all idle I/Os, then takes at least one completion if it comes in time. Answers the time, read once.
    #[inline]
    fn turn(&mut self, now: Duration, stats: &mut Stats) -> Result<Duration, Failure> {
        while let Some(mut io) = self.idle.pop() {
            let (block, read) = self.pattern.next_block();
            io.sector = block * self.sectors;
            io.op = if read { Operation::Read } else { Operation::Write };
            if let Some(start) = self.starts.get_mut(usize::try_from(io.cookie).unwrap_or(usize::MAX)) {
                *start = now;
            }
            if let Err(rejected) = self.queue.submit(io) {
                let reason = rejected.reason;
                self.idle.push(rejected.io);
                return Err(Failure::Rejected(reason));
            }
        }
        self.collect(Some(stats))
    }

    /// Takes completions, and counts them if they are measured. Errors: the first I/O that failed, or that the backend has been
    /// silent for too long.
    #[inline]
    fn collect(&mut self, mut stats: Option<&mut Stats>) -> Result<Duration, Failure> {
        // Publishes, too.
        self.queue.wait_polling(self.poll, Some(LOOK))?;
        let now = self.clock.now();
        let Self { queue, idle, starts, .. } = self;
        let mut failure = Ok(());
        let answers = queue.finish(&mut |completion: Completion| {
            let io = completion.io;
            if let Some(stats) = &mut stats {
                let start = starts.get(usize::try_from(io.cookie).unwrap_or(usize::MAX));
                let latency = now.saturating_sub(start.copied().unwrap_or(now));
                match io.op {
                    Operation::Read => stats.reads.record(latency),
                    _ => stats.writes.record(latency),
                }
            }
            if let (Err(error), Ok(())) = (completion.result, &failure) {
                failure = Err(Failure::Io { sector: io.sector, error });
            }
            idle.push(io);
        })?;
        failure?;
        if answers > 0 {
            self.answered = now;
        } else if now.saturating_sub(self.answered) > self.patience {
            return Err(Failure::Silent);
        }
        Ok(now)
    }
}

impl<W: FrontWorld> Drop for Load<'_, W> {
    /// Memory goes back before the queue is stopped.
    fn drop(&mut self) {
        for buffer in self.idle.drain(..).filter_map(|io| io.buffer) {
            self.queue.free_buffer(buffer);
        }
    }
}

/// Drives all of `loads`, turn by turn, until a limit is reached or `go_on` says no; everything has been answered then. Errors:
/// the first failed I/O, and what `go_on` says.
pub fn measure<W: FrontWorld, E: From<Failure>>(
    loads: &mut [Load<'_, W>],
    limits: &Limits,
    mut go_on: impl FnMut() -> Result<bool, E>,
) -> Result<Stats, E> {
    let mut stats = Stats::default();
    let Some(mut now) = loads.first().map(|load| load.clock.now()) else { return Ok(stats) };
    while now < limits.begin && go_on()? {
        now = turn(loads, now, &mut stats)?;
    }
    stats.reads.clear();
    stats.writes.clear();
    loads.iter_mut().for_each(|load| load.before = load.queue.stats());
    let (begin, count) = (now, limits.count.unwrap_or(u64::MAX));
    while now < limits.end && stats.count() < count && go_on()? {
        now = turn(loads, now, &mut stats)?;
    }
    stats.time = now.saturating_sub(begin);
    loads.iter().for_each(|load| stats.counted(load.before, load.queue.stats()));
    // What is still in flight is not measured any more.
    for load in loads {
        while load.queue.in_flight() > 0 && go_on()? {
            load.collect(None)?;
        }
    }
    Ok(stats)
}

fn turn<W: FrontWorld>(
    loads: &mut [Load<'_, W>],
    mut now: Duration,
    stats: &mut Stats,
) -> Result<Duration, Failure> {
    for load in loads {
        now = load.turn(now, stats)?;
    }
    Ok(now)
}

#[cfg(test)]
mod tests;
