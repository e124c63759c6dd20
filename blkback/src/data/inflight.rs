//! Requests between admission and answer.
//!
//! A request that was taken out of a ring is a [`Ticket`]: one box that moves from stage to stage, to the storage and back.
//! It owns the memory of its data, so nothing can be unmapped under the disk, and it owes an answer, so nothing can be
//! dropped on the floor. Boxes are used again and again: see [`Pool`].

use blkif_proto::{Head, Indirect, Request, RequestError, Response, Segment, Status};
use nix::errno::Errno;
use xen_platform::{DomId, GrantError, Mapping};

use super::{buffer::Buffer, cache::Lease, timing::Times};
use crate::storage::{Action, DiskId, IoMemory, Op, Part};

/// A request under way, as it moves.
pub type Ticket<M> = Box<Op<InFlight<M>>>;

/// Where the data of a request lies while the disk works on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// There is none.
    Nowhere,
    /// In private pages.
    Buffer,
    /// In the guest's pages, mapped for this request: [`InFlight::mapping`].
    Mapped,
    /// In the guest's pages, which stay mapped: [`InFlight::leases`].
    Leased,
}

/// How far a request is; most have one step only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Earlier writes are made durable; the data is next.
    FlushBefore,
    /// The data is written; a flush is next.
    WriteBeforeFlush,
    /// What comes back from the storage is the end.
    Last,
}

/// The answer a request is owed. Dropping it unpaid is a bug.
#[derive(Debug)]
pub struct Owed {
    response: Response,
    entries: u32,
}

impl Owed {
    /// Pays: the response, and how many ring entries it takes.
    pub fn pay(self, status: Status) -> (Response, u32) {
        let paid = (Response { status, ..self.response }, self.entries);
        std::mem::forget(self);
        paid
    }
}

impl Drop for Owed {
    fn drop(&mut self) {
        debug_assert!(std::thread::panicking(), "request {:#x} dropped without an answer", self.response.id);
    }
}

/// A request, its memory and its debt.
pub struct InFlight<M> {
    /// The queue it came from, by its place in the worker.
    pub queue: usize,
    /// Whose pages it names.
    pub dom: DomId,
    /// The operation.
    pub op: blkif_proto::Op,
    /// First 512-byte sector.
    pub sector: u64,
    /// Where in the guest's memory.
    pub segments: Vec<Segment>,
    /// Sum of the segments, in bytes.
    pub bytes: usize,
    /// How far it is.
    pub step: Step,
    /// Segments that must still be fetched.
    pub indirect: Option<Indirect>,
    /// How the request went so far: the first error stays.
    pub outcome: Result<(), Failure>,
    /// Where the data is.
    pub place: Place,
    /// Private pages.
    pub buffer: Buffer,
    /// Pages mapped for this request alone.
    pub mapping: M,
    /// Pages on loan from the queue's cache, one a segment.
    pub leases: Vec<Lease<M>>,
    /// Its place in the queue's log.
    pub logged: Option<u32>,
    /// When it was where.
    pub times: Times,
    owed: Option<Owed>,
}

/// Why a request fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// It was refused at the gate.
    #[error(transparent)]
    Refused(#[from] RequestError),
    /// Its pages could not be reached.
    #[error(transparent)]
    Grant(#[from] GrantError),
    /// There was no memory for it.
    #[error("no memory for {0} bytes")]
    Memory(usize),
    /// The storage failed.
    #[error("{}", .0.desc())]
    Storage(Errno),
}

impl Failure {
    /// In one word, for programs.
    pub fn kind(&self) -> &'static str {
        match self {
            Failure::Refused(_) => "refused",
            Failure::Grant(_) => "grant",
            Failure::Memory(_) => "memory",
            Failure::Storage(_) => "storage",
        }
    }
}

impl<M> InFlight<M> {
    /// True for one whose data the hypervisor copies: pages on loan are copied without it.
    pub fn is_copied(&self) -> bool {
        self.place == Place::Buffer && self.leases.is_empty()
    }

    /// Takes the meaning of a parsed request over. The segments are copied: the caller's entries are used again.
    pub fn fill(&mut self, request: &Request<'_>) {
        self.op = request.op;
        self.sector = request.sector;
        self.segments.clear();
        self.segments.extend(request.segments.iter());
        self.bytes = self.segments.iter().map(|segment| segment.bytes()).sum();
    }

    /// Records a failure unless there is one already.
    pub fn fail(&mut self, failure: Failure) {
        self.outcome = self.outcome.and(Err(failure));
    }

    /// The debt, to be paid. None when it was paid already.
    pub fn take_owed(&mut self) -> Option<Owed> {
        self.owed.take()
    }

    /// Gives the debt up: there is nobody left to pay it to.
    pub fn forgive(&mut self) {
        if let Some(owed) = self.owed.take() {
            owed.pay(Status::ERROR);
        }
    }

    /// True when the guest waits for data.
    pub fn is_read(&self) -> bool {
        self.op == blkif_proto::Op::Read
    }
}

impl<M: Mapping> IoMemory for InFlight<M> {
    #[inline]
    fn parts(&mut self, mut each: impl FnMut(Part<'_>)) {
        match self.place {
            Place::Nowhere => {}
            Place::Buffer => each(Part::Private(self.buffer.bytes_mut(self.bytes))),
            Place::Mapped => {
                for (i, segment) in self.segments.iter().enumerate() {
                    let page = self.mapping.page(i);
                    if let Some(part) = page.and_then(|page| page.part(segment.offset(), segment.bytes())) {
                        each(Part::Shared(part));
                    }
                }
            }
            Place::Leased => {
                for (segment, lease) in self.segments.iter().zip(&self.leases) {
                    if let Some(part) = lease.part(segment) {
                        each(Part::Shared(part));
                    }
                }
            }
        }
    }
}

/// Tickets not in use. Grows to the most requests ever under way at once, but keeps only so many private pages.
pub struct Pool<M> {
    free: Vec<Ticket<M>>,
    pages: usize,
}

/// Private pages that a pool keeps: 64 MiB.
const MAX_POOLED_PAGES: usize = 16 * 1024;
/// Tickets that stay after [`Pool::trim`].
const TRIMMED: usize = 32;

impl<M> Default for Pool<M> {
    fn default() -> Self {
        Self { free: Vec::new(), pages: 0 }
    }
}

impl<M: Mapping> Pool<M> {
    /// A ticket for the request whose head was just taken out of queue `queue`.
    pub fn issue(
        &mut self,
        head: &Head,
        queue: usize,
        dom: DomId,
        disk: DiskId,
        mapping: impl FnOnce() -> M,
    ) -> Ticket<M> {
        let mut ticket = self.free.pop().unwrap_or_else(|| {
            Box::new(Op {
                disk,
                action: Action::Flush,
                outcome: Ok(()),
                data: InFlight {
                    queue,
                    dom,
                    op: blkif_proto::Op::Read,
                    sector: 0,
                    segments: Vec::new(),
                    bytes: 0,
                    step: Step::Last,
                    indirect: None,
                    outcome: Ok(()),
                    place: Place::Nowhere,
                    buffer: Buffer::default(),
                    mapping: mapping(),
                    leases: Vec::new(),
                    logged: None,
                    times: Times::default(),
                    owed: None,
                },
            })
        });
        self.pages -= ticket.data.buffer.pages();
        ticket.disk = disk;
        let data = &mut ticket.data;
        (data.queue, data.dom) = (queue, dom);
        (data.step, data.place, data.outcome, data.indirect) = (Step::Last, Place::Nowhere, Ok(()), None);
        data.bytes = 0;
        data.segments.clear();
        data.owed = Some(Owed { response: head.answer(Status::ERROR), entries: head.entries });
        ticket
    }

    /// Takes an answered ticket back.
    pub fn retire(&mut self, mut ticket: Ticket<M>) {
        if self.pages + ticket.data.buffer.pages() > MAX_POOLED_PAGES {
            ticket.data.buffer.free();
        }
        self.pages += ticket.data.buffer.pages();
        self.free.push(ticket);
    }

    /// Gives memory back that a pause has shown not to be needed.
    pub fn trim(&mut self) {
        self.free.truncate(TRIMMED);
        self.free.iter_mut().for_each(|ticket| ticket.data.buffer.free());
        self.free.shrink_to_fit();
        self.pages = 0;
    }
}
