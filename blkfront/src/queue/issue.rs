//! From accepted I/Os to requests in the ring.

use blkif_proto::{
    Op, Opcode, Request, SECTOR_SIZE, Segment, SegmentMode, Segments, indirect,
    segment_block::{HEADER_SEGMENTS, entries_for},
};
use xen_platform::{Access, FrontWorld, GrantError};

use super::{Queue, reap::still_mapped};
use crate::{
    Buffer, DeviceError, Io, IoError, Operation, Ticket,
    inflight::slot_of,
    split::{PAGE, Split, pages_of},
};

/// An accepted I/O.
#[derive(Debug)]
pub(crate) struct Pending {
    pub(crate) ticket: Ticket,
    pub(crate) io: Io,
    pub(crate) split: Split,
    /// First byte of the buffer that is not in the ring yet.
    pub(crate) cursor: u32,
    /// All of it has been put into the ring.
    pub(crate) issued: bool,
    /// Requests in the ring.
    pub(crate) outstanding: u32,
    /// The first error among the answers so far.
    pub(crate) result: Result<(), IoError>,
}

impl Pending {
    #[inline]
    pub(crate) fn new(ticket: Ticket, io: Io, split: Split) -> Self {
        Self { ticket, cursor: io.offset, issued: false, outstanding: 0, result: Ok(()), io, split }
    }

    /// As if none of it had ever been in the ring.
    pub(crate) fn rewind(&mut self) {
        *self = Self {
            cursor: self.io.offset,
            issued: false,
            outstanding: 0,
            result: Ok(()),
            io: core::mem::replace(&mut self.io, Io::flush()),
            ..*self
        };
    }
}

/// What we know ourselves of a request in the ring.
#[derive(Debug)]
pub(crate) struct Shadow {
    /// The I/O it belongs to.
    pub(crate) io: u64,
    /// The operation, inside the descriptor pages if it is indirect.
    pub(crate) op: Opcode,
    pub(crate) indirect: bool,
    /// Ring entries it takes, and so does its response.
    pub(crate) entries: u32,
    /// First byte of its data in the buffer.
    pub(crate) start: u32,
}

/// How far an attempt to put an I/O into the ring came.
enum Progress {
    All,
    /// The ring has no room for more.
    Part,
}

impl<W: FrontWorld> Queue<W> {
    /// Moves what waits into the ring, in order, as far as there is room.
    #[inline]
    pub(crate) fn feed(&mut self) {
        while let Some(&id) = self.backlog.front() {
            if self.link.is_stale() || self.failed.is_some() || self.is_behind_a_barrier() {
                return;
            }
            match self.issue(id) {
                Ok(Progress::All) => {
                    self.backlog.pop_front();
                    if self.ios.get_mut(id).is_some_and(|pending| pending.io.op == Operation::WriteBarrier) {
                        self.barrier = Some(id);
                    }
                }
                Ok(Progress::Part) => return,
                // Grants come back with answers; without any to come there is nothing to wait for.
                Err(DeviceError::Grant(GrantError::Exhausted)) if self.requests.len() > 0 => return,
                Err(error @ DeviceError::Grant(GrantError::Exhausted)) => {
                    self.backlog.pop_front();
                    self.give_up(id, IoError::Device(error));
                }
                Err(error) => {
                    self.fail(error);
                }
            }
        }
    }

    /// Nothing goes into the ring while a barrier there is not answered: Linux's backend would let it overtake the barrier.
    #[inline]
    fn is_behind_a_barrier(&mut self) -> bool {
        let Some(id) = self.barrier else { return false };
        // It may also be back in the backlog, by way of another backend.
        let waits = self.ios.get_mut(id).is_some_and(|pending| pending.issued);
        self.barrier = self.barrier.filter(|_| waits);
        waits
    }

    #[inline]
    fn issue(&mut self, id: u64) -> Result<Progress, DeviceError> {
        let Self { link, grants, ios, requests, scratch, stats, fresh, .. } = self;
        let Some(ring) = &mut link.parts.ring else { return Ok(Progress::Part) };
        let Some(pending) = ios.get_mut(id) else { return Ok(Progress::All) };
        let op = wire(pending.io.op);
        let access = if op.reads_guest() { Access::Read } else { Access::ReadWrite };
        if let Some(tap) = ring.mem().tap() {
            tap.came_to("lend", id);
        }
        if let Some(buffer) = &mut pending.io.buffer {
            grants.lend(buffer, access).map_err(still_mapped)?;
        }
        if let Some(tap) = ring.mem().tap() {
            tap.came_to("admit", id);
        }
        let mode = link.limits.mode;
        loop {
            let start = pending.cursor;
            let len = pending.split.piece(start);
            let segments = pages_of(start, len) as usize;
            let indirect = mode == SegmentMode::Indirect && segments > HEADER_SEGMENTS;
            let entries = if mode == SegmentMode::Blocks { entries_for(segments) } else { 1 };
            if ring.free() < entries {
                return Ok(Progress::Part);
            }
            let shadow = Shadow { io: id, op: op.opcode(), indirect, entries, start };
            let Ok(request) = requests.insert(shadow) else { return Ok(Progress::Part) };

            if let Some(tap) = ring.mem().tap() {
                tap.came_to("request", request);
            }
            scratch.segments.clear();
            if let Some(buffer) = &pending.io.buffer {
                scratch.segments.extend(segments_of(buffer, start, len));
            }
            let skipped = u64::from(start - pending.io.offset) / SECTOR_SIZE as u64;
            let listed = Segments::from(&scratch.segments[..]);
            let bytes = Request { id: request, op, sector: pending.io.sector + skipped, segments: listed };
            let filled = if indirect {
                let descriptors = link.parts.descriptors.get(usize::from(slot_of(request)));
                let written = indirect::encode(listed, &mut scratch.descriptors).unwrap_or(0);
                if let Some(tap) = ring.mem().tap() {
                    tap.aside(request, &scratch.descriptors[..written]);
                }
                let grants = descriptors.map_or(&[][..], |pages| {
                    pages.mem().write(&scratch.descriptors[..written]);
                    &pages.grants()[..indirect::pages_for(segments).min(pages.count())]
                });
                bytes.emit_indirect(&link.limits, grants, &mut scratch.entries[0]).map(|()| 1)
            } else {
                bytes.emit(&link.limits, &mut scratch.entries[..])
            };
            let written =
                filled.ok().and_then(|filled| scratch.entries.get(..filled)).is_some_and(|entries| {
                    let size = link.limits.abi.entry_size();
                    entries.iter().all(|entry| ring.push(&entry[..size]).is_ok())
                });
            if !written {
                // The pieces keep the limits and the room was checked: this is a mistake of ours, and nothing is published.
                debug_assert!(false, "a piece that does not fit: {filled:?}");
                requests.take(request);
                return Err(DeviceError::Unfit);
            }
            fresh.push(request);
            stats.requests += 1;
            pending.outstanding += 1;
            pending.cursor = start + len;
            if pending.cursor >= pending.split.end() {
                pending.issued = true;
                return Ok(Progress::All);
            }
        }
    }
}

/// The operation as the protocol has it.
#[inline]
fn wire(op: Operation) -> Op {
    match op {
        Operation::Read => Op::Read,
        Operation::Write => Op::Write,
        Operation::WriteBarrier => Op::WriteBarrier,
        Operation::Flush => Op::Flush,
        Operation::Discard { sectors, secure } => Op::Discard { sectors, secure },
    }
}

/// The segments of `len` bytes at `start` of a lent buffer; both are multiples of a sector.
#[inline]
#[expect(clippy::cast_possible_truncation, reason = "sector numbers within a page")]
fn segments_of(buffer: &Buffer, start: u32, len: u32) -> impl Iterator<Item = Segment> + '_ {
    const SECTOR: u32 = SECTOR_SIZE as u32;
    let end = start + len;
    let first = (start / PAGE) as usize;
    let grants = buffer.pages.grants().get(first..).unwrap_or_default();
    grants.iter().zip(first..).map_while(move |(&gref, page)| {
        let base = page as u32 * PAGE;
        if base >= end {
            return None;
        }
        let from = start.max(base) - base;
        let to = (end - base).min(PAGE);
        Some(Segment { gref, first_sect: (from / SECTOR) as u8, last_sect: ((to - 1) / SECTOR) as u8 })
    })
}
