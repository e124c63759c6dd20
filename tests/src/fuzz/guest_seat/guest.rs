//! The guest that does what the bytes say, and what it must get for it.

use std::sync::Arc;

use blkback::{
    config::Strategy,
    data::{
        queue::{QueueKey, QueueSpec},
        resume::LogSpec,
    },
    storage::{Image, ImageOptions},
};
use blkif_proto::{
    Abi, Entry, GrantRef, Head, MAX_ENTRY_SIZE, Opcode, Response, Segment, SegmentMode, Status,
};
use ringbuf::{Field, FrontRing, Index, Mapped, RingMem as _};
use xen_platform::{
    Access, DomId, EventChannels as _, FrontWorld as _, Lender as _, PAGE_SIZE, Pages, Port,
    fake::{self, Machine},
};

use super::{
    act::{Act, Place, Ref, Seg, Shape},
    backend::Backend,
    innocent::limits,
};
use crate::conformance::rig::{Raw, descriptors};

/// Sectors of its disk: few enough that much of what comes is at its end.
const SECTORS: u64 = 512;
/// Its pages: those that may be lent in any way, one that is read-only for ever, one that is never lent.
const LENT: usize = 10;
const READ_ONLY: usize = LENT;
const SECRET: usize = LENT + 1;
const SEAL: u8 = 0x5E;

/// A guest under a fuzzer's hand.
pub(super) struct Guest {
    pub(super) spec: QueueSpec,
    world: fake::World,
    ring: Option<FrontRing<Mapped<Pages>>>,
    lender: fake::Lender,
    events: fake::Events,
    port: Port,
    pages: Vec<Pages>,
    /// The references of its pages as they were last lent.
    grefs: Vec<GrantRef>,
    /// Answers that are owed: id, operation, entries.
    owed: Vec<(u64, Opcode, u32)>,
    next: u64,
    tame: bool,
    served: bool,
}

impl Guest {
    pub(super) fn new(machine: &Machine, shape: &Shape) -> Self {
        let dom = machine.create_domain(1024).unwrap();
        let world = machine.world(dom);
        let mut lender = world.lender(DomId::DOM0).unwrap();
        let mut events = world.events().unwrap();
        let port = events.alloc_unbound(DomId::DOM0).unwrap();
        let abi = [Abi::X86_64, Abi::X86_32][usize::from(shape.abi) % 2];
        let mode =
            [SegmentMode::Direct, SegmentMode::Blocks, SegmentMode::Indirect][usize::from(shape.mode) % 3];
        let pages: Vec<Pages> = (0..=SECRET)
            .map(|n| {
                let mut page = lender.alloc(1).unwrap();
                page.mem().write(&[SEAL; PAGE_SIZE]);
                let access = if n == READ_ONLY { Access::Read } else { Access::ReadWrite };
                if n != SECRET {
                    lender.lend(&mut page, access).unwrap();
                }
                page
            })
            .collect();
        let grefs = pages.iter().map(|page| page.grants().first().copied().unwrap_or(GrantRef(0))).collect();
        let mut ring_pages = lender.alloc(1 + usize::from(shape.two_pages)).unwrap();
        lender.lend(&mut ring_pages, Access::ReadWrite).unwrap();
        let ring_refs = ring_pages.grants().to_vec();
        let ring =
            FrontRing::init_at(Mapped::new(ring_pages, abi.entry_size()).unwrap(), Index::new(shape.start));
        let entries = ring.layout().entries();
        let mut limits = limits(abi, mode, SECTORS);
        limits.read_only = shape.read_only;
        limits.max_requests = if shape.few_requests { 2 } else { entries };
        let options = ImageOptions { direct_io: shape.direct_io, ..ImageOptions::default() };
        let log = LogSpec { path: crate::fuzz::log::scratch("guest"), identity: "the guest".into() };
        let strategies = [Strategy::Copy, Strategy::Persistent, Strategy::Direct];
        let spec = QueueSpec {
            key: QueueKey { connection: 1, queue: 0 },
            dom,
            ring_refs,
            port,
            limits,
            strategy: strategies[usize::from(shape.strategy) % 3],
            persistent: shape.persistent,
            cache_pages: [0, 2, 1056][usize::from(shape.cache) % 3],
            used: false,
            log: shape.log.then_some(log),
            image: Arc::new(Image::null(SECTORS * 512, &options).unwrap()),
            throttle: None,
            stats: Arc::default(),
            tap: None,
        };
        let (ring, owed) = (Some(ring), Vec::new());
        Self {
            spec,
            world,
            ring,
            lender,
            events,
            port,
            pages,
            grefs,
            owed,
            next: 1,
            tame: true,
            served: false,
        }
    }

    /// Has its ring served.
    pub(super) fn begin(&mut self, backend: &mut Backend) {
        let started = backend.start(&mut self.spec);
        // A ring whose indices were written over is refused, and one that an earlier daemon did not serve through to the end.
        assert!(started.is_ok() || !self.tame, "{started:?}");
        self.served = started.is_ok();
    }

    pub(super) fn act(&mut self, act: Act, backend: &mut Backend, others: &mut [&mut QueueSpec]) {
        match act {
            Act::Data { op, sector, segments, repeat, count } => {
                let mut list: Vec<Segment> = segments.iter().take(40).map(|seg| self.segment(*seg)).collect();
                if let Some(last) = list.last().copied() {
                    list.extend(std::iter::repeat_n(last, usize::from(repeat) % 30));
                }
                let mut raw = Raw::data(Opcode(op % 5), 0, place(sector), &list);
                raw.arg = count.unwrap_or(raw.arg);
                self.push(&raw.entries(self.spec.limits.abi));
            }
            Act::Indirect { op, sector, segments, pages } => {
                let pages = pages.map(|page| self.gref(page));
                let raw = Raw::indirect(Opcode(op % 3), 0, place(sector), segments % 1200, &pages);
                self.push(&raw.entries(self.spec.limits.abi));
            }
            Act::Describe { page, segments } => {
                let list: Vec<Segment> = segments.iter().take(512).map(|seg| self.segment(*seg)).collect();
                let mut bytes = descriptors(&list);
                if !bytes.is_empty() {
                    bytes = bytes.repeat(PAGE_SIZE.div_ceil(bytes.len()));
                }
                bytes.truncate(PAGE_SIZE);
                self.pages[usize::from(page) % LENT].mem().write(&bytes);
            }
            Act::Discard { flag, sector, sectors } => {
                let raw = Raw { arg: flag, ..Raw::discard(0, place(sector), place(sectors)) };
                self.push(&raw.entries(self.spec.limits.abi));
            }
            Act::Entry(bytes) => {
                let mut entry = [0; MAX_ENTRY_SIZE];
                entry[..32].copy_from_slice(&bytes);
                self.push(&[entry]);
            }
            Act::Publish => self.publish(),
            Act::Notify(times) => (0..times).for_each(|_| _ = self.events.notify(self.port)),
            Act::Turn(times) => (0..times % 4).for_each(|_| backend.turn()),
            Act::Disk { choice, fails } => _ = backend.worker.storage_mut().finish(choice.into(), fails),
            Act::Take => self.take(),
            Act::Index { field, to, far } => self.jump(field, to, far),
            Act::Scribble { at, bytes } => {
                self.tame = false;
                self.write_ring(at, bytes);
            }
            Act::Poke { page, at, bytes } => {
                let mem = self.pages[usize::from(page) % LENT].mem();
                let part = mem.part(usize::from(at) % (PAGE_SIZE - 8), 8);
                part.map(|part| part.write(&bytes.to_le_bytes()));
            }
            Act::Revoke(page) => _ = self.lender.reclaim(&mut self.pages[usize::from(page) % LENT]),
            Act::Lend { page, writable } => {
                let n = usize::from(page) % LENT;
                let access = if writable { Access::ReadWrite } else { Access::Read };
                if self.lender.lend(&mut self.pages[n], access).is_ok() {
                    self.grefs[n] = self.pages[n].grants()[0];
                }
            }
            Act::Kill if self.spec.log.is_some() => {
                backend.kill();
                others.iter_mut().for_each(|other| assert!(backend.start(other).is_ok()));
                if self.served {
                    self.begin(backend);
                }
            }
            Act::Kill => {}
            Act::Reconnect => self.reconnect(backend),
            Act::ClosePort => {
                _ = self.events.unbind(self.port);
                self.tame = false;
            }
        }
    }

    fn gref(&self, gref: Ref) -> GrantRef {
        match gref {
            Ref::Own(n) => self.grefs[usize::from(n) % self.grefs.len()],
            Ref::Ring => self.spec.ring_refs[0],
            Ref::Foreign => GrantRef(self.grefs[0].0 ^ 1),
            Ref::Raw(number) => GrantRef(number),
        }
    }

    fn segment(&mut self, seg: Seg) -> Segment {
        let (first, last) = if seg.wild { (seg.first, seg.last) } else { (seg.first % 8, seg.last % 8) };
        let (first_sect, last_sect) =
            if seg.wild { (first, last) } else { (first.min(last), first.max(last)) };
        let gref = self.gref(seg.gref);
        // Its own ring may be read over.
        self.tame &= !self.spec.ring_refs.contains(&gref);
        Segment { gref, first_sect, last_sect }
    }

    /// Puts a request on the ring under a name of its own, with as many entries as it will be taken for.
    fn push(&mut self, entries: &[Entry]) {
        let limits = self.spec.limits;
        let mut first = entries[0];
        let at = if limits.abi == Abi::X86_32 { 4 } else { 8 };
        first[at..at + 8].copy_from_slice(&self.next.to_le_bytes());
        let head = Head::parse(&first, &limits);
        let Some(ring) = self.ring.as_mut().filter(|ring| ring.free() >= head.entries) else { return };
        let size = limits.abi.entry_size();
        for n in 0..head.entries as usize {
            let entry = if n == 0 { first } else { entries.get(n).copied().unwrap_or([0; _]) };
            if ring.push(&entry[..size]).is_err() {
                self.tame = false;
            }
        }
        self.next += 1;
        self.owed.push((head.id, head.answer_op, head.entries));
    }

    fn publish(&mut self) {
        let Some(ring) = &mut self.ring else { return };
        if ring.publish().is_needed() || !self.tame {
            _ = self.events.notify(self.port);
        }
    }

    fn take(&mut self) {
        let Some(ring) = self.ring.as_mut().filter(|_| self.tame) else { return };
        let mut entry = [0; MAX_ENTRY_SIZE];
        while ring.peek(&mut entry).unwrap() {
            let answer = Response::parse(&entry);
            let owed = self.owed.iter().position(|(id, ..)| *id == answer.id);
            let owed = owed.unwrap_or_else(|| panic!("an answer to nothing, or the second: {answer:?}"));
            let (_, op, entries) = self.owed.swap_remove(owed);
            assert_eq!(answer.op, op, "{answer:?}");
            assert!(
                matches!(answer.status, Status::OKAY | Status::ERROR | Status::NOT_SUPPORTED),
                "{answer:?}"
            );
            ring.consume(entries).unwrap();
        }
    }

    fn jump(&mut self, field: u8, to: i8, far: bool) {
        let Some(ring) = &self.ring else { return };
        let field =
            [Field::ReqProd, Field::ReqEvent, Field::RspProd, Field::RspEvent][usize::from(field) % 4];
        // When it is woken is the guest's own affair.
        self.tame &= matches!(field, Field::RspEvent);
        let by = i32::from(to) << if far { 23 } else { 0 };
        let value = ring.mem().load(field).plus(by.cast_unsigned());
        ring.mem().store(field, value);
        _ = self.events.notify(self.port);
    }

    fn write_ring(&mut self, at: u16, bytes: u64) {
        let Some(ring) = &self.ring else { return };
        let mem = ring.mem().pages().mem();
        let part = mem.part(usize::from(at) % (mem.len() - 8), 8);
        part.map(|part| part.write(&bytes.to_le_bytes()));
    }

    fn reconnect(&mut self, backend: &mut Backend) {
        if self.served {
            backend.drain(self.spec.key);
        }
        _ = self.events.unbind(self.port);
        self.port = self.events.alloc_unbound(DomId::DOM0).unwrap();
        let Some(ring) = self.ring.take() else { return };
        let pages = ring.into_mem().into_pages();
        let size = self.spec.limits.abi.entry_size();
        self.ring = Some(FrontRing::init(Mapped::new(pages, size).unwrap()));
        self.spec.key.connection += 1;
        self.spec.port = self.port;
        self.spec.used = false;
        self.owed.clear();
        self.tame = true;
        self.begin(backend);
    }

    /// Everything under way comes to its end.
    pub(super) fn settle(&mut self, backend: &mut Backend) {
        self.publish();
        backend.settle();
        self.take();
        assert!(!self.tame || !backend.is_broken(self.spec.key), "a ring was broken that nobody touched");
        let waits = self.tame && self.served && !self.owed.is_empty();
        assert!(!waits, "never answered: {:?}", self.owed);
    }

    /// What was not granted for writing is as it was.
    pub(super) fn check(&self) {
        for (n, what) in [(READ_ONLY, "granted for reading"), (SECRET, "never granted")] {
            let mut bytes = [0; PAGE_SIZE];
            self.pages[n].mem().read(&mut bytes);
            assert!(bytes == [SEAL; PAGE_SIZE], "a page was changed that was {what}");
        }
        assert_eq!(self.world.dom(), self.spec.dom);
    }
}

fn place(place: Place) -> u64 {
    match place {
        Place::Within(sector) => u64::from(sector) % SECTORS,
        Place::End(from) => SECTORS.wrapping_add_signed(i64::from(from)),
        Place::Raw(sector) => sector,
    }
}
