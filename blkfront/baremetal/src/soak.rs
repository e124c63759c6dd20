//! `soak`: random operations of every kind and size on the end of the disk, against a model of what should be there.
//!
//! ```text
//! fill ─▶ random operations … ─▶ read all ─▶ fill …
//! ```
//!
//! A backend that closes the disk and offers it again finds us back, with what we know of its contents.
//!
//! What is done, and in which order, depends on the seed and the disk only. It ends when the time is up, so many were done or the tool
//! stack says so; when the disk's size changes all is read, and the new end of the disk is filled. No two operations of which one
//! writes have a sector in common at the same time, so that it is always known what should be there.

mod model;

use alloc::vec::Vec;
use core::{fmt, time::Duration};

use blkfront::{Capabilities, Completion, Io, Operation, Queue, RejectReason};
use blkfront_bench::Random;
use xen_platform::{Clock as _, PAGE_SIZE};

use self::model::Model;
use crate::{
    Failure, Guest,
    buffers::Buffers,
    command::Order,
    disk::{self, Disk},
    extent::Extent,
    pattern::{self, SECTOR},
};

/// Sectors to work on if the order does not say, and at most.
const SPAN: u64 = 4096;
const LARGEST_SPAN: u64 = 32_768;

pub(crate) fn run<W: Guest>(
    world: &W,
    path: &str,
    order: &Order,
    out: &mut impl fmt::Write,
) -> Result<(), Failure> {
    let now = world.clock().now();
    let number = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
    let mut soak = Soak::new(order, number, now);
    // Whoever reads `out` sees what is missing.
    let _ = writeln!(out, "seed {}", soak.seed);
    loop {
        let done = disk::with(world, path, order.config.clone(), out, |disk, out| soak.connected(disk, out));
        if !matches!(done, Err(Failure::TakenAway)) || !soak.goes_on(world.clock().now()) {
            let _ = writeln!(out, "soaked {}", soak.counts);
            return done;
        }
        let _ = writeln!(out, "the backend closes the disk: waiting for it to offer it again");
    }
}

/// Operations that have succeeded, and rounds whose end was read and found right.
#[derive(Default)]
struct Counts {
    rounds: u64,
    reads: u64,
    writes: u64,
    flushes: u64,
    discards: u64,
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { rounds, reads, writes, flushes, discards } = self;
        write!(f, "{rounds} rounds: {reads} reads, {writes} writes, {flushes} flushes, {discards} discards")
    }
}

struct Soak {
    seed: u64,
    random: Random,
    model: Model,
    /// Sectors to work on.
    span: u64,
    end: Duration,
    /// Operations to do.
    left: u64,
    /// By cookie.
    under_way: Vec<Option<Work>>,
    buffers: Buffers,
    /// The last that wrote.
    pass: u64,
    counts: Counts,
}

/// An operation, of which queue, and for writes what it writes.
#[derive(Clone, Copy, Debug)]
struct Work {
    op: Operation,
    extent: Extent,
    number: usize,
    pass: u64,
}

impl Work {
    /// Both may be under way at the same time.
    fn goes_with(&self, other: &Self) -> bool {
        let both = |op| self.op == op && other.op == op;
        let flushes = self.op == Operation::Flush || other.op == Operation::Flush;
        flushes || both(Operation::Read) || !self.extent.overlaps(&other.extent)
    }
}

impl Soak {
    /// `number` is one that no earlier guest has used.
    fn new(order: &Order, number: u64, now: Duration) -> Self {
        let job = &order.job;
        let seed = if order.seeded { job.seed } else { number };
        Self {
            seed,
            random: Random::new(seed, 0),
            model: Model::default(),
            span: job.span.map_or(SPAN, |bytes| bytes / SECTOR as u64).clamp(1, LARGEST_SPAN),
            end: now.saturating_add(job.runtime),
            left: job.count.unwrap_or(u64::MAX),
            under_way: Vec::new(),
            buffers: Buffers::default(),
            // Nothing that an earlier guest wrote passes for ours.
            pass: number,
            counts: Counts::default(),
        }
    }

    fn goes_on(&self, now: Duration) -> bool {
        self.left > 0 && now < self.end
    }

    /// As far as it goes on one connection.
    fn connected<W: Guest>(&mut self, disk: &mut Disk<W>, out: &mut impl fmt::Write) -> Result<(), Failure> {
        if disk.device.capabilities().read_only {
            return Err(blkfront_bench::Unfit::ReadOnly.into());
        }
        let largest = largest(disk.device.capabilities(), self.span);
        self.buffers = Buffers::for_queues(&mut disk.queues, largest * SECTOR + PAGE_SIZE)?;
        let depth = disk.queues.iter().map(Queue::depth).sum();
        self.under_way = core::iter::repeat_with(|| None).take(depth).collect();
        let done = self.rounds(disk, out);
        // A backend that closes serves what is under way.
        let settled =
            if matches!(done, Err(Failure::TakenAway)) { self.settle_all(disk, out) } else { Ok(()) };
        self.buffers.free(&mut disk.queues);
        // What is left may have been done, or not.
        for work in self.under_way.drain(..).flatten().filter(|work| work.op != Operation::Read) {
            self.model.set(&work.extent, None);
        }
        settled.and(done)
    }

    fn rounds<W: Guest>(&mut self, disk: &mut Disk<W>, out: &mut impl fmt::Write) -> Result<(), Failure> {
        while self.goes_on(disk.clock.now()) {
            let sectors = disk.device.capabilities().sectors;
            if self.model.range().end == sectors {
                // The connection is a new one, and the disk should be the old one.
                self.whole(disk, Operation::Read, out)?;
            } else {
                self.model = Model::of_the_end(sectors, self.span);
                self.whole(disk, Operation::Write, out)?;
            }
            while self.goes_on(disk.clock.now()) && disk.device.capabilities().sectors == sectors {
                let work = self.choose(disk);
                self.begin(disk, work, out)?;
                self.left = if disk.told_to_end { 0 } else { self.left - 1 };
            }
            self.whole(disk, Operation::Read, out)?;
            self.counts.rounds += 1;
        }
        Ok(())
    }

    /// Writes or reads all of the model's range.
    fn whole<W: Guest>(
        &mut self,
        disk: &mut Disk<W>,
        op: Operation,
        out: &mut impl fmt::Write,
    ) -> Result<(), Failure> {
        let (range, queues) = (self.model.range(), disk.queues.len());
        let piece = largest(disk.device.capabilities(), self.span);
        for (index, sector) in range.clone().step_by(piece).enumerate() {
            let left = usize::try_from(range.end - sector).unwrap_or(usize::MAX);
            let extent = Extent { sector, sectors: left.min(piece), offset: 0 };
            self.begin(disk, Work { op, extent, number: index % queues, pass: 0 }, out)?;
        }
        self.settle_all(disk, out)
    }

    /// Waits until nothing is under way.
    fn settle_all<W: Guest>(&mut self, disk: &mut Disk<W>, out: &mut impl fmt::Write) -> Result<(), Failure> {
        for number in 0..disk.queues.len() {
            while disk.queues.get(number).is_some_and(|queue| queue.in_flight() > 0) {
                self.reap(disk, number, out)?;
            }
        }
        Ok(())
    }

    /// The next operation. Sizes are chosen so that each power of two is as likely as any other.
    fn choose<W: Guest>(&mut self, disk: &Disk<W>) -> Work {
        let (can, range) = (disk.device.capabilities(), self.model.range());
        let unit = u64::from(can.alignment) / SECTOR as u64;
        let units = (range.end - range.start) / unit;
        let most = (largest(can, self.span) as u64 / unit).clamp(1, units.max(1));
        let random = &mut self.random;
        let power = random.below(u64::from(most.ilog2()) + 2);
        let size = (1 + random.below(1 << power)).min(most);
        let sector = range.start + random.below(units - size + 1) * unit;
        let sectors = usize::try_from(size * unit).unwrap_or(usize::MAX);
        let offset = usize::try_from(random.below(8)).unwrap_or(0) * can.alignment as usize % PAGE_SIZE;
        let number = usize::try_from(random.below(disk.queues.len() as u64)).unwrap_or(0);
        let extent = Extent { sector, sectors, offset };
        let op = match random.below(100) {
            0..=44 => Operation::Read,
            45..=47 if can.flush => Operation::Flush,
            48..=50 if can.barrier => Operation::WriteBarrier,
            51..=53 if can.discard.is_some() => Operation::Discard { sectors: sectors as u64, secure: false },
            _ => Operation::Write,
        };
        Work { op, extent, number, pass: 0 }
    }

    /// Submits an operation as soon as nothing is in its way.
    fn begin<W: Guest>(
        &mut self,
        disk: &mut Disk<W>,
        mut work: Work,
        out: &mut impl fmt::Write,
    ) -> Result<(), Failure> {
        while let Some(other) = self.under_way.iter().flatten().find(|other| !work.goes_with(other)) {
            let number = other.number;
            self.reap(disk, number, out)?;
        }
        self.pass += 1;
        work.pass = self.pass;
        while !self.submit(disk, work)? {
            self.reap(disk, work.number, out)?;
        }
        Ok(())
    }

    /// False: there is no room, or no idle buffer.
    fn submit<W: Guest>(&mut self, disk: &mut Disk<W>, work: Work) -> Result<bool, Failure> {
        let Work { op, extent, number, pass } = work;
        let Some(cookie) = self.under_way.iter().position(Option::is_none) else { return Ok(false) };
        let Some(queue) = disk.queues.get_mut(number) else { return Err(Failure::Gone) };
        let io = match op {
            Operation::Flush => Io::flush(),
            Operation::Discard { sectors, .. } => Io::discard(extent.sector, sectors),
            op => {
                let Some(buffer) = self.buffers.take(number, extent.end()) else { return Ok(false) };
                pattern::clear(&buffer);
                if op != Operation::Read {
                    pattern::fill(&buffer, &extent, pass);
                }
                extent.io(op, buffer)
            }
        };
        match queue.submit(io.cookie(cookie as u64)) {
            Ok(_) => {
                if let Some(place) = self.under_way.get_mut(cookie) {
                    *place = Some(work);
                }
                Ok(true)
            }
            Err(rejected) => {
                let failure = Failure::rejected(&rejected);
                if let Some(buffer) = rejected.io.buffer {
                    self.buffers.give(number, buffer);
                }
                if rejected.reason == RejectReason::Full { Ok(false) } else { Err(failure) }
            }
        }
    }

    /// Waits for a queue, and checks what it has done.
    fn reap<W: Guest>(
        &mut self,
        disk: &mut Disk<W>,
        number: usize,
        out: &mut impl fmt::Write,
    ) -> Result<(), Failure> {
        disk.wait(number, out)?;
        let mut done = Vec::new();
        if let Some(queue) = disk.queues.get_mut(number) {
            queue.finish(&mut |completion| done.push(completion))?;
        }
        done.into_iter().try_for_each(|completion| self.settle(completion))
    }

    fn settle(&mut self, completion: Completion) -> Result<(), Failure> {
        let Completion { io, result, .. } = completion;
        let place = usize::try_from(io.cookie).ok().and_then(|cookie| self.under_way.get_mut(cookie));
        let Some(Work { op, extent, number, pass }) = place.and_then(Option::take) else {
            return Err(Failure::Stray { cookie: io.cookie });
        };
        result.map_err(|error| Failure::Io { sector: extent.sector, error })?;
        let counts = &mut self.counts;
        match op {
            Operation::Flush => counts.flushes += 1,
            Operation::Discard { .. } => {
                counts.discards += 1;
                // A disk may return anything then.
                self.model.set(&extent, None);
            }
            op => {
                let Some(buffer) = io.buffer else { return Err(Failure::Lost { cookie: io.cookie }) };
                if op == Operation::Read {
                    counts.reads += 1;
                } else {
                    counts.writes += 1;
                    self.model.set(&extent, Some(pass));
                }
                let checked = pattern::check(&buffer, &extent, |sector| self.model.pass(sector));
                self.buffers.give(number, buffer);
                checked?;
            }
        }
        Ok(())
    }
}

/// Sectors of the largest operation: more than fits one ring request, but no more than half of what there is.
fn largest(disk: &Capabilities, span: u64) -> usize {
    let unit = disk.alignment as usize / SECTOR;
    let most = disk.largest_request as usize / SECTOR + unit;
    let half = usize::try_from(span.min(disk.sectors) / 2).unwrap_or(usize::MAX);
    (most.min(half) / unit * unit).max(unit)
}
