//! `verify`: every shape that requests have, written and read back through every way of carrying them.
//!
//! Each pass connects anew, writes a pattern of its own to places all over the disk, as many at once as the rings and the
//! memory hold, and reads each place back through another queue than the one that wrote it. Every byte of every buffer is
//! compared, also those around the data, and every completion must be of an I/O under way.

use alloc::{vec, vec::Vec};
use core::{fmt, time::Duration};

use blkfront::{Buffer, Capabilities, Completion, Config, Io, Operation, Queue, RejectReason, SegmentChoice};
use xen_platform::{Clock as _, FrontWorld, GrantError, PAGE_SIZE};

use crate::{
    Failure,
    command::Order,
    disk::Disk,
    pattern::{Pattern, SECTOR},
};

pub(crate) fn run<W: FrontWorld + Clone>(
    world: &W,
    path: &str,
    order: &Order,
    out: &mut impl fmt::Write,
) -> Result<(), Failure> {
    for config in ways(order) {
        let mut disk = Disk::connect(world, path, config)?;
        // Whoever reads `out` sees what is missing.
        let _ = writeln!(out, "connection {}", disk.device.negotiated());
        let extents = extents(disk.device.capabilities(), order.extents);
        // The clock's reading: nothing that an earlier pass or guest wrote can pass for what this one does.
        let pattern = Pattern { pass: u64::try_from(world.clock().now().as_nanos()).unwrap_or(u64::MAX) };
        let done = check(&mut disk, &extents, pattern, order);
        let sectors: usize = extents.iter().map(|extent| extent.sectors).sum();
        if done.is_ok() {
            let _ = writeln!(out, "verified {} extents of {sectors} sectors", extents.len());
        }
        // What went wrong first is what is told.
        done.and(disk.close())?;
    }
    Ok(())
}

/// How to connect: as ordered, or in every way there is.
fn ways(order: &Order) -> Vec<Config> {
    let base = &order.config;
    if order.chosen {
        return vec![base.clone()];
    }
    let segments = |segments| Config { segments, ..base.clone() };
    vec![
        base.clone(),
        segments(SegmentChoice::Direct),
        segments(SegmentChoice::Blocks),
        segments(SegmentChoice::Indirect),
        Config { ring_pages: 4, queues: 2, persistent: false, ..base.clone() },
    ]
}

/// Sectors of a page.
const PAGE_SECTORS: u64 = (PAGE_SIZE / SECTOR) as u64;
/// Small buffers hold a request of 11 segments, and these many there are at most for a queue.
const SMALL: usize = 13 * PAGE_SIZE;
const SMALL_BUFFERS: usize = 16;

/// A place of the disk, and where in a buffer its data lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Extent {
    pub(crate) sector: u64,
    pub(crate) sectors: usize,
    /// In bytes.
    pub(crate) offset: usize,
}

/// Up to `count` places that do not overlap, the first at the begin of the disk and the last at its end, of every size about
/// which a request changes its shape.
pub(crate) fn extents(disk: &Capabilities, count: u32) -> Vec<Extent> {
    let unit = u64::from(disk.alignment) / SECTOR as u64;
    let (units, largest) = (disk.sectors / unit, u64::from(disk.largest_request / disk.alignment));
    // One page, 11 segments, the largest request, and twice that: one less, exactly, and one more.
    let bounds = [PAGE_SECTORS / unit, 11 * PAGE_SECTORS / unit, largest, 2 * largest];
    let sizes = bounds.iter().flat_map(|bound| [bound.saturating_sub(1), *bound, bound + 1]);
    let sizes: Vec<_> = sizes.filter(|size| *size > 0).collect();
    let mut room = units;
    let fits = |size: &u64| room.checked_sub(*size).map(|left| room = left).is_some();
    let sizes: Vec<_> = sizes.iter().copied().cycle().take(count as usize).take_while(fits).collect();

    // What is left lies between pairs of places, so that every other one begins where one ends.
    let pairs = sizes.len().saturating_sub(1) as u64 / 2;
    let gap = room.checked_div(pairs).unwrap_or(0);
    let mut next = 0;
    let place = |(index, size): (usize, u64)| {
        let begin = if index + 1 == sizes.len() && index > 0 { units - size } else { next };
        next = begin + size + if index % 2 == 1 { gap } else { 0 };
        let offset = index % 8 * disk.alignment as usize % PAGE_SIZE;
        Extent { sector: begin * unit, sectors: usize::try_from(size * unit).unwrap_or(usize::MAX), offset }
    };
    sizes.iter().copied().enumerate().map(place).collect()
}

fn check<W: FrontWorld>(
    disk: &mut Disk<W>,
    extents: &[Extent],
    pattern: Pattern,
    order: &Order,
) -> Result<(), Failure> {
    let flush = disk.device.capabilities().flush;
    let limit = order.config.timeout;
    let buffers = Buffers::for_queues(&mut disk.queues, extents)?;
    let mut pass = Pass { extents, pattern, under_way: vec![false; extents.len()], buffers, limit };
    let done = pass.both(&mut disk.queues, flush);
    // Those that are under way come back when the queues are closed.
    pass.buffers.free(&mut disk.queues);
    done
}

/// Idle buffers of each queue, in two sizes, so that memory is not scattered over as many sizes as there are places.
struct Buffers {
    large: Vec<Vec<Buffer>>,
    small: Vec<Vec<Buffer>>,
}

impl Buffers {
    /// One for the largest place for each queue, and as many small ones as there is memory for, within reason.
    fn for_queues<W: FrontWorld>(queues: &mut [Queue<W>], extents: &[Extent]) -> Result<Self, Failure> {
        let largest = extents.iter().map(Extent::end).max().unwrap_or(0);
        let large = queues.iter_mut().map(|queue| Ok(vec![queue.alloc_buffer(largest)?]));
        let large = large.collect::<Result<_, GrantError>>()?;
        let small = |queue: &mut Queue<W>| {
            core::iter::repeat_with(|| queue.alloc_buffer(SMALL))
                .take(SMALL_BUFFERS)
                .map_while(Result::ok)
                .collect()
        };
        Ok(Self { large, small: queues.iter_mut().map(small).collect() })
    }

    /// An idle buffer of queue `number` that holds `bytes`.
    fn take(&mut self, number: usize, bytes: usize) -> Option<Buffer> {
        let small = self.small.get_mut(number).filter(|_| bytes <= SMALL).and_then(Vec::pop);
        small.or_else(|| self.large.get_mut(number)?.pop())
    }

    fn give(&mut self, number: usize, buffer: Buffer) {
        let size = if buffer.len() <= SMALL { &mut self.small } else { &mut self.large };
        if let Some(idle) = size.get_mut(number) {
            idle.push(buffer);
        }
    }

    fn free<W: FrontWorld>(&mut self, queues: &mut [Queue<W>]) {
        for size in [&mut self.large, &mut self.small] {
            for (queue, idle) in queues.iter_mut().zip(size) {
                idle.drain(..).for_each(|buffer| queue.free_buffer(buffer));
            }
        }
    }
}

/// All places, in one direction after the other.
struct Pass<'a> {
    extents: &'a [Extent],
    pattern: Pattern,
    under_way: Vec<bool>,
    buffers: Buffers,
    limit: Duration,
}

impl Pass<'_> {
    /// Writes all, makes it durable, reads all.
    fn both<W: FrontWorld>(&mut self, queues: &mut [Queue<W>], flush: bool) -> Result<(), Failure> {
        self.run(queues, Operation::Write, 0)?;
        if let Some(queue) = queues.first_mut().filter(|_| flush) {
            let flushed = queue.execute(Io::flush(), &mut |_| ());
            let flushed =
                flushed.map_err(|rejected| Failure::Rejected { sector: 0, reason: rejected.reason })?;
            flushed.result.map_err(|error| Failure::Io { sector: 0, error })?;
        }
        self.run(queues, Operation::Read, 1)
    }

    /// Place `n` goes through queue `n + shift`.
    fn run<W: FrontWorld>(
        &mut self,
        queues: &mut [Queue<W>],
        op: Operation,
        shift: usize,
    ) -> Result<(), Failure> {
        let count = queues.len();
        for (index, extent) in self.extents.iter().enumerate() {
            let number = (index + shift) % count;
            let Some(queue) = queues.get_mut(number) else { return Err(Failure::Gone) };
            while !self.submit(queue, number, op, index, *extent)? {
                self.reap(queue, number)?;
            }
        }
        for (number, queue) in queues.iter_mut().enumerate() {
            while queue.in_flight() > 0 {
                self.reap(queue, number)?;
            }
        }
        match self.under_way.iter().position(|under_way| *under_way) {
            Some(index) => Err(Failure::Lost { cookie: index as u64 }),
            None => Ok(()),
        }
    }

    /// False: there is no room, or no idle buffer.
    fn submit<W: FrontWorld>(
        &mut self,
        queue: &mut Queue<W>,
        number: usize,
        op: Operation,
        index: usize,
        extent: Extent,
    ) -> Result<bool, Failure> {
        let Extent { sector, sectors, offset } = extent;
        let Some(buffer) = self.buffers.take(number, extent.end()) else { return Ok(false) };
        Pattern::clear(&buffer);
        if op == Operation::Write {
            self.pattern.fill(&buffer, offset, sector, sectors);
        }
        match queue.submit(io(op, extent, buffer).cookie(index as u64)) {
            Ok(_) => {
                self.mark(index, true);
                Ok(true)
            }
            Err(rejected) => {
                if let Some(buffer) = rejected.io.buffer {
                    self.buffers.give(number, buffer);
                }
                match rejected.reason {
                    RejectReason::Full => Ok(false),
                    reason => Err(Failure::Rejected { sector, reason }),
                }
            }
        }
    }

    /// Waits for a queue, and checks what it has done.
    fn reap<W: FrontWorld>(&mut self, queue: &mut Queue<W>, number: usize) -> Result<(), Failure> {
        if !queue.wait(Some(self.limit))? {
            let seconds = self.limit.as_secs();
            return Err(if queue.is_stale() { Failure::Gone } else { Failure::TimedOut { seconds } });
        }
        let mut done = Vec::new();
        queue.finish(&mut |completion| done.push(completion))?;
        done.into_iter().try_for_each(|completion| self.settle(number, completion))
    }

    fn settle(&mut self, number: usize, completion: Completion) -> Result<(), Failure> {
        let Completion { io, result, .. } = completion;
        let index = usize::try_from(io.cookie).unwrap_or(usize::MAX);
        let under_way = self.mark(index, false);
        let Some(extent) = self.extents.get(index).copied().filter(|_| under_way) else {
            return Err(Failure::Stray { cookie: io.cookie });
        };
        let Extent { sector, sectors, offset } = extent;
        result.map_err(|error| Failure::Io { sector, error })?;
        let Some(buffer) = io.buffer else { return Err(Failure::Lost { cookie: io.cookie }) };
        // A disk that changes what it is given to write is no better than one that forgets it.
        let checked = self.pattern.check(&buffer, offset, sector, sectors);
        self.buffers.give(number, buffer);
        checked
    }

    /// Notes whether a place is under way, and answers whether it was.
    fn mark(&mut self, index: usize, now: bool) -> bool {
        self.under_way.get_mut(index).is_some_and(|place| core::mem::replace(place, now))
    }
}

impl Extent {
    /// Bytes of a buffer that it takes.
    fn end(&self) -> usize {
        self.offset + self.sectors * SECTOR
    }
}

fn io(op: Operation, extent: Extent, buffer: Buffer) -> Io {
    let Extent { sector, sectors, offset } = extent;
    let whole = match op {
        Operation::Write => Io::write(sector, buffer),
        _ => Io::read(sector, buffer),
    };
    let bytes = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    whole.part(bytes(offset), bytes(sectors * SECTOR))
}
