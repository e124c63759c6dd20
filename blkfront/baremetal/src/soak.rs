//! `soak`: random operations of every kind and size on the end of the disk, against a model of what should be there.
//!
//! ```text
//! fill ─▶ random operations … ─▶ read all ─▶ fill …
//! ```
//!
//! What is done, and in which order, depends on the seed and the disk only. It ends when the time is up or so many were done; when
//! the disk's size changes all is read, and the new end of the disk is filled. No two operations of which one
//! writes have a sector in common at the same time, so that it is always known what should be there.

mod model;

use alloc::vec::Vec;
use core::{fmt, time::Duration};

use blkfront::{Capabilities, Completion, Io, Operation, RejectReason};
use blkfront_bench::Random;
use xen_platform::Clock as _;

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
    disk::with(world, path, order.config.clone(), out, |disk, out| {
        if disk.device.capabilities().read_only {
            return Err(blkfront_bench::Unfit::ReadOnly.into());
        }
        let now = disk.clock.now();
        let seed =
            if order.seeded { order.job.seed } else { u64::try_from(now.as_nanos()).unwrap_or(u64::MAX) };
        // Whoever reads `out` sees what is missing.
        let _ = writeln!(out, "seed {seed}");
        let span = order.job.span.map_or(SPAN, |bytes| bytes / SECTOR as u64).clamp(1, LARGEST_SPAN);
        let mut soak = Soak::new(disk, span, seed)?;
        let end = now.saturating_add(order.job.runtime);
        let done = soak.run(disk, end, order.job.count.unwrap_or(u64::MAX), out);
        soak.buffers.free(&mut disk.queues);
        let Counts { rounds, reads, writes, flushes, discards } = soak.counts;
        let _ = writeln!(
            out,
            "soaked {rounds} rounds: {reads} reads, {writes} writes, {flushes} flushes, {discards} discards"
        );
        done
    })
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

struct Soak {
    random: Random,
    model: Model,
    span: u64,
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
    fn new<W: Guest>(disk: &mut Disk<W>, span: u64, seed: u64) -> Result<Self, Failure> {
        let largest = largest(disk.device.capabilities(), span);
        let buffers = Buffers::for_queues(&mut disk.queues, largest * SECTOR + xen_platform::PAGE_SIZE)?;
        let depth = disk.queues.iter().map(blkfront::Queue::depth).sum();
        let under_way = core::iter::repeat_with(|| None).take(depth).collect();
        let (random, model, counts) = (Random::new(seed, 0), Model::default(), Counts::default());
        // Nothing that an earlier guest wrote passes for ours.
        let pass = u64::try_from(disk.clock.now().as_nanos()).unwrap_or(0);
        Ok(Self { random, model, span, under_way, buffers, pass, counts })
    }

    fn run<W: Guest>(
        &mut self,
        disk: &mut Disk<W>,
        end: Duration,
        mut count: u64,
        out: &mut impl fmt::Write,
    ) -> Result<(), Failure> {
        while count > 0 && disk.clock.now() < end {
            let sectors = disk.device.capabilities().sectors;
            self.model = Model::of_the_end(sectors, self.span);
            self.whole(disk, Operation::Write, out)?;
            while count > 0 && disk.clock.now() < end && disk.device.capabilities().sectors == sectors {
                let work = self.choose(disk);
                self.begin(disk, work, out)?;
                count -= 1;
            }
            self.whole(disk, Operation::Read, out)?;
            self.counts.rounds += 1;
        }
        Ok(())
    }

    /// Writes or reads all of the model's range, and waits until nothing is under way.
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
        for number in 0..queues {
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
        let offset =
            usize::try_from(random.below(8)).unwrap_or(0) * can.alignment as usize % xen_platform::PAGE_SIZE;
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
