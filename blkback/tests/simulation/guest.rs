//! The guest: sends what the seed says, and knows what must come back.

use std::collections::BTreeMap;

use blkif_proto::{
    Limits, Op, Request, Response, Segment, SegmentMode, Segments, Status, indirect, segment_block,
};
use ringbuf::{FrontRing, Mapped};
use xen_platform::{Access, EventChannels as _, Lender as _, PAGE_SIZE, Pages, Port, fake};

use crate::{
    disk::{Platter, Shared, lock},
    truth::Truth,
};

/// Bytes that one request at a time has for itself.
pub(crate) const CHUNK: usize = 16 << 10;
/// Chunks of the disk.
pub(crate) const CHUNKS: usize = 20;
/// Sectors of the disk.
pub(crate) const SECTORS: u64 = (CHUNK * CHUNKS / 512) as u64;

pub(crate) struct Guest {
    pub(crate) ring: FrontRing<Mapped<Pages>>,
    pub(crate) lender: fake::Lender,
    pub(crate) events: fake::Events,
    pub(crate) port: Port,
    pub(crate) limits: Limits,
    pub(crate) persistent: bool,
    truth: Truth,
    busy: [bool; CHUNKS],
    under_way: BTreeMap<u64, Sent>,
    next: u64,
}

struct Sent {
    op: Op,
    chunk: Option<usize>,
    at: usize,
    /// Where in its pages the data lies: offsets and lengths.
    parts: Vec<(usize, usize)>,
    pages: Pages,
    descriptors: Option<Pages>,
    entries: u32,
}

impl Guest {
    pub(crate) fn new(
        ring: FrontRing<Mapped<Pages>>,
        lender: fake::Lender,
        events: fake::Events,
        port: Port,
        limits: Limits,
        persistent: bool,
    ) -> Self {
        Self {
            ring,
            lender,
            events,
            port,
            limits,
            persistent,
            truth: Truth::new(CHUNK * CHUNKS),
            busy: [false; CHUNKS],
            under_way: BTreeMap::new(),
            next: 1,
        }
    }

    pub(crate) fn waits(&self) -> usize {
        self.under_way.len()
    }

    /// Sends one request. False when there is no room for it.
    pub(crate) fn send(&mut self, random: &mut impl FnMut(usize) -> usize) -> bool {
        let op = match random(12) {
            0 => Op::Flush,
            1 => Op::WriteBarrier,
            2..=5 => Op::Read,
            _ => Op::Write,
        };
        let data = matches!(op, Op::Read | Op::Write) || random(2) == 0 && op == Op::WriteBarrier;
        let most = match (self.limits.mode, op) {
            (SegmentMode::Direct, _) | (SegmentMode::Indirect, Op::WriteBarrier) => 4,
            (SegmentMode::Indirect, _) | (SegmentMode::Blocks, _) => 16,
        };
        let count = if data { 1 + random(most.min(CHUNK / PAGE_SIZE * 2)) } else { 0 };
        let entries =
            if self.limits.mode == SegmentMode::Blocks { segment_block::entries_for(count) } else { 1 };
        let first = random(CHUNKS);
        let chunk = (first..first + CHUNKS).map(|n| n % CHUNKS).find(|chunk| !self.busy[*chunk]);
        if self.ring.free() < entries || data && chunk.is_none() {
            return false;
        }
        let chunk = chunk.filter(|_| data);
        let id = self.next;
        self.next += 1;
        // Parts of pages, so that requests of many segments fit.
        let sectors: Vec<(u8, u8)> = (0..count)
            .map(|_| {
                let first = random(5) as u8;
                (first, first + random(3) as u8)
            })
            .collect();
        let bytes: usize = sectors.iter().map(|(first, last)| 512 * usize::from(last - first + 1)).sum();
        let at = chunk.unwrap_or(0) * CHUNK + 512 * random((CHUNK - bytes) / 512 + 1);
        let mut pages = self.lender.alloc(count.max(1)).unwrap();
        let fill: Vec<u8> = (0..pages.grants().len().max(1) * PAGE_SIZE)
            .map(|n| (id as usize * 31 + n + n / 512) as u8)
            .collect();
        pages.mem().write(&fill);
        let access = if op == Op::Read || self.persistent { Access::ReadWrite } else { Access::Read };
        self.lender.lend(&mut pages, access).unwrap();
        let segments: Vec<Segment> = (pages.grants().iter().zip(&sectors))
            .map(|(gref, (first, last))| Segment { gref: *gref, first_sect: *first, last_sect: *last })
            .collect();
        let request = Request { id, op, sector: (at / 512) as u64, segments: Segments::from(&segments[..]) };
        let mut descriptors = None;
        if self.limits.mode == SegmentMode::Indirect && count > 11 {
            let mut described = self.lender.alloc(1).unwrap();
            let mut list = vec![0; PAGE_SIZE];
            indirect::encode(request.segments, &mut list).unwrap();
            described.mem().write(&list);
            self.lender
                .lend(&mut described, if self.persistent { Access::ReadWrite } else { Access::Read })
                .unwrap();
            let mut entry = [0; 112];
            request.emit_indirect(&self.limits, described.grants(), &mut entry).unwrap();
            self.ring.push(&entry[..self.limits.abi.entry_size()]).unwrap();
            descriptors = Some(described);
        } else {
            let mut list = [[0; 112]; segment_block::MAX_ENTRIES];
            let filled = request.emit(&self.limits, &mut list).unwrap();
            assert_eq!(filled as u32, entries);
            list[..filled]
                .iter()
                .for_each(|entry| self.ring.push(&entry[..self.limits.abi.entry_size()]).unwrap());
        }
        if let Some(chunk) = chunk {
            self.busy[chunk] = true;
        }
        let parts = (0..).step_by(PAGE_SIZE).zip(&sectors);
        let parts = parts.map(|(page, (first, last))| {
            (page + 512 * usize::from(*first), 512 * usize::from(last - first + 1))
        });
        let sent = Sent { op, chunk, at, parts: parts.collect(), pages, descriptors, entries };
        if op == Op::Write || op == Op::WriteBarrier {
            let data = self.truth.sent(id, at, &gather(&sent));
            debug_assert!(data <= CHUNK);
        }
        self.truth.tick(id);
        self.under_way.insert(id, sent);
        true
    }

    /// Shows the backend what was sent.
    pub(crate) fn publish(&mut self) {
        if self.ring.publish().is_needed() {
            self.events.notify(self.port).unwrap();
        }
    }

    /// Takes an answer and checks it. False when there is none.
    pub(crate) fn take(&mut self, disk: &Shared, failures: bool) -> bool {
        let mut entry = [0; 112];
        if !self.ring.peek(&mut entry).unwrap() {
            return false;
        }
        let answer = Response::parse(&entry);
        let sent = self.under_way.remove(&answer.id);
        let sent = sent.unwrap_or_else(|| panic!("an answer to nothing, or the second: {answer:?}"));
        self.ring.consume(sent.entries).unwrap();
        assert_eq!(answer.op, sent.op.opcode(), "{answer:?}");
        assert!(answer.status == Status::OKAY || failures && answer.status == Status::ERROR, "{answer:?}");
        let barrier = |sent: &Sent| sent.op == Op::WriteBarrier;
        let mut earlier = self.under_way.range(..answer.id).map(|(_, sent)| sent);
        if barrier(&sent) {
            assert!(earlier.next().is_none(), "a barrier was answered before what it is behind");
        } else {
            assert!(!earlier.any(barrier), "{answer:?} came before the barrier ahead of it");
        }
        self.settle(answer.id, sent, answer.status, &lock(disk));
        true
    }

    fn settle(&mut self, id: u64, sent: Sent, status: Status, disk: &Platter) {
        let okay = status == Status::OKAY;
        if let Some(chunk) = sent.chunk {
            self.busy[chunk] = false;
            let data = gather(&sent);
            let range = sent.at..sent.at + data.len();
            match sent.op {
                Op::Read => assert!(!okay || data == self.truth.bytes[range], "a read brought other bytes"),
                _ if okay => {
                    assert!(data == disk.bytes[range], "a write was acknowledged, and is not on the disk");
                    self.truth.acknowledged(id, sent.at, &data);
                }
                // Some of it may be there, and nothing beside it.
                _ => self.truth.failed(range, disk),
            }
            let whole = chunk * CHUNK..(chunk + 1) * CHUNK;
            assert!(self.truth.bytes[whole.clone()] == disk.bytes[whole], "bytes changed that nobody wrote");
        }
        match sent.op {
            Op::Flush if okay => self.truth.flushed(id),
            Op::WriteBarrier if okay => self.truth.barrier(id),
            _ => {}
        }
        let Sent { mut pages, descriptors, .. } = sent;
        if !self.persistent {
            self.lender.reclaim(&mut pages).expect("the backend still maps a page");
        }
        self.lender.release(pages);
        if let Some(mut described) = descriptors {
            if !self.persistent {
                self.lender.reclaim(&mut described).expect("the backend still maps a descriptor page");
            }
            self.lender.release(described);
        }
    }

    /// The power fails, in thought: what was flushed is there.
    pub(crate) fn check_power_loss(&self, disk: &Platter, kept: impl FnMut() -> bool) {
        self.truth.check(&disk.after_power_loss(kept));
    }
}

/// The data of a request, out of its pages.
fn gather(sent: &Sent) -> Vec<u8> {
    let mut data = Vec::new();
    for (offset, length) in &sent.parts {
        let from = data.len();
        data.resize(from + length, 0);
        sent.pages.mem().part(*offset, *length).unwrap().read(&mut data[from..]);
    }
    data
}
