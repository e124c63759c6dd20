//! Rings that a backend serves, and what a clause does with them.

use std::{collections::HashMap, time::Duration};

use anyhow::{Context as _, Result, ensure};
use blkif_proto::{Abi, GrantRef, Opcode, Response, Segment, Status, indirect};
use xen_platform::{Access, FrontWorld, Lender as _, PAGE_SIZE, Pages};

use super::{Raw, RawQueue, Wish, noise, raw::descriptors};
use crate::world::wait_until;

/// Sectors of the disk where [`Connection::works`] leaves its traces: clauses look elsewhere.
pub const TRACES: u64 = 64;

/// Pages that [`Connection::reads`] reads into: Xen maps a page no more than 128 times at once, and rings have up to 1024 slots.
const PAGES: usize = 16;

/// A connected frontend's rings and pages.
pub struct Connection<W: FrontWorld> {
    /// The queues.
    pub queues: Vec<RawQueue<W::Events>>,
    /// Lends the guest's pages to the backend.
    pub lender: W::Lender,
    abi: Abi,
    /// Segment blocks were agreed.
    blocks: bool,
    /// The backend may keep pages mapped.
    persistent: bool,
    id: u64,
    /// Lent until the connection is dropped.
    kept: Vec<Pages>,
}

impl<W: FrontWorld> Connection<W> {
    pub(super) fn new(queues: Vec<RawQueue<W::Events>>, lender: W::Lender, abi: Abi, wish: &Wish) -> Self {
        Self {
            queues,
            lender,
            abi,
            blocks: wish.blocks,
            persistent: wish.persistent,
            id: 0x1000,
            kept: Vec::new(),
        }
    }

    /// The first queue.
    pub fn queue(&mut self) -> &mut RawQueue<W::Events> {
        &mut self.queues[0]
    }

    /// An id that no other request has.
    pub fn id(&mut self) -> u64 {
        self.id += 1;
        self.id
    }

    /// Pages with these bytes, lent.
    pub fn lend(&mut self, bytes: &[u8], access: Access) -> Result<Pages> {
        let mut pages = self.lender.alloc(bytes.len().div_ceil(PAGE_SIZE).max(1))?;
        pages.mem().write(bytes);
        self.lender.lend(&mut pages, access)?;
        Ok(pages)
    }

    /// `count` pages full of `byte`, lent writable.
    pub fn pages(&mut self, count: usize, byte: u8) -> Result<Pages> {
        self.lend(&vec![byte; count * PAGE_SIZE], Access::ReadWrite)
    }

    /// Whole-page segments over `count` pages full of `byte`, lent writable for as long as the connection lives.
    pub fn segments(&mut self, count: usize, byte: u8) -> Result<Vec<Segment>> {
        let pages = self.pages(count, byte)?;
        let segments = whole(&pages);
        self.kept.push(pages);
        Ok(segments)
    }

    /// Takes pages back. Errors: the backend still has one mapped, and persistent grants were not agreed.
    pub fn take_back(&mut self, mut pages: Pages) -> Result<()> {
        if !self.persistent {
            self.lender.reclaim(&mut pages).context("after its answer")?;
        }
        self.lender.release(pages);
        Ok(())
    }

    /// The pages of `segments` as descriptor pages, lent read-only.
    pub fn describe(&mut self, segments: &[Segment]) -> Result<Pages> {
        // A backend that keeps pages mapped maps all of them writable.
        let access = if self.persistent { Access::ReadWrite } else { Access::Read };
        self.lend(&descriptors(segments), access)
    }

    /// Sends a request on the first queue, waits for its answer and checks the answer's form. The status.
    pub fn ask(&mut self, raw: &Raw) -> Result<Status> {
        self.ask_on(0, raw)
    }

    /// [`ask`](Self::ask) on queue number `queue`.
    pub fn ask_on(&mut self, queue: usize, raw: &Raw) -> Result<Status> {
        let (entries, stride) = (raw.entries(self.abi), self.stride(raw));
        let queue = &mut self.queues[queue];
        queue.send(&entries)?;
        let answer = Response::parse(&queue.raw_answer(stride).with_context(|| raw.to_string())?);
        ensure!(answer.id == raw.id, "the id {:#x} came back as {:#x}", raw.id, answer.id);
        ensure!(answer.op == raw.answer_op(), "the answer to {} says {}", raw.answer_op(), answer.op);
        Ok(answer.status)
    }

    /// [`ask`](Self::ask), and the answer must be okay.
    pub fn okay(&mut self, raw: &Raw) -> Result<()> {
        self.expect(raw, Status::OKAY)
    }

    /// [`ask`](Self::ask), and the answer must be an error.
    pub fn error(&mut self, raw: &Raw) -> Result<()> {
        self.expect(raw, Status::ERROR)
    }

    /// [`ask`](Self::ask), and the answer must be "not supported".
    pub fn unsupported(&mut self, raw: &Raw) -> Result<()> {
        self.expect(raw, Status::NOT_SUPPORTED)
    }

    fn expect(&mut self, raw: &Raw, status: Status) -> Result<()> {
        let answer = self.ask(raw)?;
        ensure!(answer == status, "{answer} where {status} belongs, to {raw}");
        Ok(())
    }

    /// Publishes all requests, whose ids must differ, at once on the first queue and collects the answers, in the order in which
    /// they come.
    pub fn batch(&mut self, requests: &[Raw]) -> Result<Vec<Response>> {
        let mut strides = HashMap::new();
        for raw in requests {
            let (entries, stride) = (raw.entries(self.abi), self.stride(raw));
            self.queue().push(&entries)?;
            strides.insert(raw.id, stride);
        }
        self.queue().kick()?;
        requests.iter().map(|_| self.queue().answer_to(&mut strides)).collect()
    }

    /// [`batch`](Self::batch), and all must be okay.
    pub fn batch_okay(&mut self, requests: &[Raw]) -> Result<Vec<Response>> {
        let answers = self.batch(requests)?;
        for answer in &answers {
            ensure!(answer.status == Status::OKAY, "{} to {} {:#x}", answer.status, answer.op, answer.id);
        }
        Ok(answers)
    }

    /// Ring entries that a request and its answer take.
    pub fn stride(&self, raw: &Raw) -> u32 {
        if self.blocks { raw.stride() } else { 1 }
    }

    /// A read of one page from somewhere for each id, into few pages.
    pub fn reads(&mut self, ids: impl Iterator<Item = u64>) -> Result<Vec<Raw>> {
        let segments = self.segments(PAGES, 0)?;
        let page = |id: u64| &segments[id as usize % PAGES..][..1];
        Ok(ids.map(|id| Raw::read(id, id % 1024 * 8, page(id))).collect())
    }

    /// Writes bytes, a multiple of 512, to the disk in direct requests.
    pub fn write(&mut self, sector: u64, bytes: &[u8]) -> Result<()> {
        for (part, sector) in bytes.chunks(11 * PAGE_SIZE).zip((sector..).step_by(11 * PAGE_SIZE / 512)) {
            let pages = self.lend(part, self.access_to_write())?;
            let id = self.id();
            self.okay(&Raw::write(id, sector, &spread(pages.grants(), part.len())))?;
            self.take_back(pages)?;
        }
        Ok(())
    }

    /// Reads bytes, a multiple of 512, from the disk in direct requests.
    pub fn read(&mut self, sector: u64, bytes: usize) -> Result<Vec<u8>> {
        let mut out = vec![0xA5; bytes];
        for (part, sector) in out.chunks_mut(11 * PAGE_SIZE).zip((sector..).step_by(11 * PAGE_SIZE / 512)) {
            let pages = self.pages(part.len().div_ceil(PAGE_SIZE), 0xA5)?;
            let id = self.id();
            self.okay(&Raw::read(id, sector, &spread(pages.grants(), part.len())))?;
            pages.mem().read(part);
            self.take_back(pages)?;
        }
        Ok(out)
    }

    /// Errors unless what is written can be read again. Uses the first sectors of the disk.
    pub fn works(&mut self) -> Result<()> {
        let bytes = noise(self.id(), 16 * 512);
        self.write(0, &bytes).context("the disk does not work any more")?;
        let back = self.read(0, bytes.len()).context("the disk does not work any more")?;
        ensure!(back == bytes, "the disk gives back other bytes than were written");
        Ok(())
    }

    /// An indirect request over whole pages: sends it, and takes the descriptor pages back after its answer.
    pub fn indirect(&mut self, inner: Opcode, sector: u64, segments: &[Segment]) -> Result<Status> {
        let pages = self.describe(segments)?;
        let id = self.id();
        let count = u16::try_from(segments.len())?;
        debug_assert_eq!(pages.count(), indirect::pages_for(segments.len()).max(1));
        let status = self.ask(&Raw::indirect(inner, id, sector, count, pages.grants()))?;
        self.take_back(pages)?;
        Ok(status)
    }

    /// How to lend pages that the backend only reads: a backend that may keep them maps them writable.
    pub fn access_to_write(&self) -> Access {
        if self.persistent { Access::ReadWrite } else { Access::Read }
    }

    /// Takes the rings' own pages back. Errors: the backend still has one mapped.
    pub fn take_rings_back(&mut self) -> Result<()> {
        self.take_rings_back_within(Duration::ZERO)
    }

    /// Takes the rings' own pages back as soon as that is possible. Errors: the backend still has one mapped after `time`.
    pub fn take_rings_back_within(&mut self, time: Duration) -> Result<()> {
        for queue in self.queues.drain(..) {
            let mut pages = queue.ring.into_mem().into_pages();
            let mut last = Ok(());
            let taken = wait_until("a ring's pages", time, || {
                last = self.lender.reclaim(&mut pages);
                Ok(last.is_ok().then_some(()))
            });
            last.context("a ring's page").and(taken)?;
            self.lender.release(pages);
        }
        Ok(())
    }
}

/// Segments for `bytes` bytes over whole pages, the last one shorter.
pub fn spread(grants: &[GrantRef], bytes: usize) -> Vec<Segment> {
    let segment = |(gref, at): (&GrantRef, usize)| {
        let sectors = ((bytes - at).min(PAGE_SIZE) / 512).max(1);
        #[expect(clippy::cast_possible_truncation, reason = "at most 8")]
        let last_sect = sectors as u8 - 1;
        Segment { gref: *gref, first_sect: 0, last_sect }
    };
    grants.iter().zip((0..bytes).step_by(PAGE_SIZE)).map(segment).collect()
}

/// Whole-page segments over lent pages.
pub fn whole(pages: &Pages) -> Vec<Segment> {
    pages.grants().iter().map(|gref| Segment::page(*gref)).collect()
}

/// The bytes of pages.
pub fn bytes(pages: &Pages) -> Vec<u8> {
    let mut out = vec![0; pages.mem().len()];
    pages.mem().read(&mut out);
    out
}
