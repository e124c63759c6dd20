//! `verify`: every shape that requests have, written and read back through every way of carrying them.
//!
//! Each pass connects anew, writes a pattern of its own to places all over the disk, as many at once as the rings and the
//! memory hold, and reads each place back through another queue than the one that wrote it. Every byte of every buffer is
//! compared, also those around the data, and every completion must be of an I/O under way.

use alloc::{vec, vec::Vec};
use core::fmt;

use blkfront::{Capabilities, Completion, Config, Operation, RejectReason, SegmentChoice};
use xen_platform::{Clock as _, PAGE_SIZE};

use crate::{
    Failure, Guest,
    buffers::Buffers,
    command::Order,
    disk::{self, Disk},
    extent::Extent,
    pattern::{self, SECTOR},
};

pub(crate) fn run<W: Guest>(
    world: &W,
    path: &str,
    order: &Order,
    out: &mut impl fmt::Write,
) -> Result<(), Failure> {
    for config in ways(order) {
        disk::with(world, path, config, out, |disk, out| {
            let extents = extents(disk.device.capabilities(), order.extents);
            // The clock's reading: nothing that an earlier pass or guest wrote can pass for what this one does.
            let number = u64::try_from(disk.clock.now().as_nanos()).unwrap_or(u64::MAX);
            check(disk, &extents, number, out)?;
            let sectors: usize = extents.iter().map(|extent| extent.sectors).sum();
            // Whoever reads `out` sees what is missing.
            let _ = writeln!(out, "verified {} extents of {sectors} sectors", extents.len());
            Ok(())
        })?;
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

fn check<W: Guest>(
    disk: &mut Disk<W>,
    extents: &[Extent],
    number: u64,
    out: &mut impl fmt::Write,
) -> Result<(), Failure> {
    let largest = extents.iter().map(Extent::end).max().unwrap_or(0);
    let buffers = Buffers::for_queues(&mut disk.queues, largest)?;
    let mut pass = Pass { extents, number, under_way: vec![false; extents.len()], buffers };
    let done = pass.both(disk, out);
    // Those that are under way come back when the queues are closed.
    pass.buffers.free(&mut disk.queues);
    done
}

/// All places, in one direction after the other.
struct Pass<'a> {
    extents: &'a [Extent],
    number: u64,
    under_way: Vec<bool>,
    buffers: Buffers,
}

impl Pass<'_> {
    /// Writes all, makes it durable, reads all.
    fn both<W: Guest>(&mut self, disk: &mut Disk<W>, out: &mut impl fmt::Write) -> Result<(), Failure> {
        self.run(disk, Operation::Write, 0, out)?;
        disk.flush(out)?;
        self.run(disk, Operation::Read, 1, out)
    }

    /// Place `n` goes through queue `n + shift`.
    fn run<W: Guest>(
        &mut self,
        disk: &mut Disk<W>,
        op: Operation,
        shift: usize,
        out: &mut impl fmt::Write,
    ) -> Result<(), Failure> {
        let count = disk.queues.len();
        for index in 0..self.extents.len() {
            let number = (index + shift) % count;
            while !self.submit(disk, number, op, index)? {
                self.reap(disk, number, out)?;
            }
        }
        for number in 0..count {
            while disk.queues.get(number).is_some_and(|queue| queue.in_flight() > 0) {
                self.reap(disk, number, out)?;
            }
        }
        match self.under_way.iter().position(|under_way| *under_way) {
            Some(index) => Err(Failure::Lost { cookie: index as u64 }),
            None => Ok(()),
        }
    }

    /// False: there is no room, or no idle buffer.
    fn submit<W: Guest>(
        &mut self,
        disk: &mut Disk<W>,
        number: usize,
        op: Operation,
        index: usize,
    ) -> Result<bool, Failure> {
        let (Some(queue), Some(extent)) = (disk.queues.get_mut(number), self.extents.get(index)) else {
            return Err(Failure::Gone);
        };
        let Some(buffer) = self.buffers.take(number, extent.end()) else { return Ok(false) };
        pattern::clear(&buffer);
        if op == Operation::Write {
            pattern::fill(&buffer, extent, self.number);
        }
        match queue.submit(extent.io(op, buffer).cookie(index as u64)) {
            Ok(_) => {
                self.mark(index, true);
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
        done.into_iter().try_for_each(|completion| self.settle(number, completion))
    }

    fn settle(&mut self, number: usize, completion: Completion) -> Result<(), Failure> {
        let Completion { io, result, .. } = completion;
        let index = usize::try_from(io.cookie).unwrap_or(usize::MAX);
        let under_way = self.mark(index, false);
        let Some(extent) = self.extents.get(index).filter(|_| under_way) else {
            return Err(Failure::Stray { cookie: io.cookie });
        };
        result.map_err(|error| Failure::Io { sector: io.sector, error })?;
        let Some(buffer) = io.buffer else { return Err(Failure::Lost { cookie: io.cookie }) };
        // A disk that changes what it is given to write is no better than one that forgets it.
        let checked = pattern::check(&buffer, extent, |_| Some(self.number));
        self.buffers.give(number, buffer);
        checked
    }

    /// Notes whether a place is under way, and answers whether it was.
    fn mark(&mut self, index: usize, now: bool) -> bool {
        self.under_way.get_mut(index).is_some_and(|place| core::mem::replace(place, now))
    }
}
