//! A worker and a scripted guest in one thread over the fake world: every step happens when the test says so.
#![allow(dead_code, unreachable_pub, reason = "each test program uses its own part of this")]

use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use blkback::{
    config::Strategy,
    data::{
        handle::{Line, Order, Report},
        queue::{QueueKey, QueueSpec},
        worker::Worker,
    },
    limit::{DiskThrottle, Rates},
    stats::{QueueStats, Watch, WorkerStats},
    storage::{Fault, Faults, Image, ImageOptions, Memory, Storage},
};
use blkif_proto::{
    Abi, Discard, Entry, GrantRef, Limits, Op, Operations, Request, Response, Segment, SegmentMode, Segments,
    Status, indirect, segment_block,
};
use ringbuf::{FrontRing, Mapped, RingMem};
use xen_platform::{
    Access, DomId, EventChannels, FrontWorld, Lender, PAGE_SIZE, Pages, Port,
    fake::{self, Machine},
};

/// Sectors of the test disk.
pub const SECTORS: u64 = 16384;

/// How a connection is to be.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    pub strategy: Strategy,
    pub persistent: bool,
    pub mode: SegmentMode,
    pub abi: Abi,
    pub ring_pages: usize,
    pub read_only: bool,
    pub sector_size: u32,
    pub cache_pages: usize,
    pub rates: Option<Rates>,
    pub watch: Watch,
}

impl Default for Terms {
    fn default() -> Self {
        Self {
            strategy: Strategy::Direct,
            persistent: false,
            mode: SegmentMode::Direct,
            abi: Abi::X86_64,
            ring_pages: 1,
            read_only: false,
            sector_size: 512,
            cache_pages: 1056,
            rates: None,
            watch: Watch::default(),
        }
    }
}

type Store = Fault<
    Memory<blkback::data::inflight::InFlight<fake::Mapping>>,
    blkback::data::inflight::InFlight<fake::Mapping>,
>;

/// The rig: one worker, one guest, one queue.
pub struct Rig {
    pub machine: Machine,
    pub worker: Worker<fake::World, Store>,
    pub line: Line,
    pub reports: mpsc::Receiver<Report>,
    pub faults: Arc<Faults>,
    pub image: Arc<Image>,
    pub stats: Arc<QueueStats>,
    pub worker_stats: Arc<WorkerStats>,
    pub limits: Limits,
    pub ring: FrontRing<Mapped<Pages>>,
    pub lender: fake::Lender,
    pub events: fake::Events,
    pub port: Port,
    pub key: QueueKey,
    terms: Terms,
    next_id: u64,
}

impl Rig {
    /// A connected queue, its first event handled, nothing published.
    pub fn new(terms: Terms) -> Rig {
        let machine = Machine::new(1);
        let dom = machine.create_domain(1 << 16).unwrap();
        let guest = machine.world(dom);
        let mut lender = guest.lender(DomId::DOM0).unwrap();
        let mut events = guest.events().unwrap();
        let port = events.alloc_unbound(DomId::DOM0).unwrap();
        let mut pages = lender.alloc(terms.ring_pages).unwrap();
        lender.lend(&mut pages, Access::ReadWrite).unwrap();
        let ring_refs: Vec<GrantRef> = pages.grants().to_vec();
        let ring = FrontRing::init(Mapped::new(pages, terms.abi.entry_size()).unwrap());

        let options = ImageOptions {
            read_only: terms.read_only,
            sector_size: terms.sector_size,
            // Else it would do as `Direct` does.
            direct_io: terms.strategy == Strategy::Persistent,
            ..Default::default()
        };
        let image = Arc::new(Image::null(SECTORS * 512, &options).unwrap());
        let max_segments = match terms.mode {
            SegmentMode::Direct => 11,
            SegmentMode::Blocks => segment_block::max_segments(terms.abi) as u16,
            SegmentMode::Indirect => 4096,
        };
        let limits = Limits {
            abi: terms.abi,
            mode: terms.mode,
            max_segments,
            max_indirect: if terms.mode == SegmentMode::Indirect { 4096 } else { 0 },
            max_request_bytes: u32::from(max_segments) * 4096,
            max_requests: ring.mem().layout().entries(),
            sectors: SECTORS,
            sector_size: terms.sector_size,
            read_only: terms.read_only,
            operations: Operations {
                flush: true,
                barrier: true,
                discard: Some(Discard { granularity: 512, alignment: 0, secure: true }),
            },
        };

        let faults = Arc::new(Faults::default());
        let storage = Fault::new(Memory::default(), Arc::clone(&faults));
        let (line, mailbox) = Line::new().unwrap();
        let (send, reports) = mpsc::channel();
        let send = Mutex::new(send);
        let report = Arc::new(move |report| _ = send.lock().unwrap().send(report));
        let worker_stats = Arc::new(WorkerStats { watch: terms.watch, ..WorkerStats::default() });
        let backend = machine.world(DomId::DOM0);
        let worker =
            Worker::new(&backend, storage, Duration::ZERO, mailbox, report, Arc::clone(&worker_stats))
                .unwrap();
        let stats = Arc::new(QueueStats::default());
        let key = QueueKey { connection: 7, queue: 0 };
        let mut rig = Rig {
            machine,
            worker,
            line,
            reports,
            faults,
            image: Arc::clone(&image),
            stats: Arc::clone(&stats),
            worker_stats,
            limits,
            ring,
            lender,
            events,
            port,
            key,
            terms,
            next_id: 0x1234_5678_9abc_0000,
        };
        rig.order(Order::Start(Box::new(QueueSpec {
            key,
            dom,
            ring_refs,
            port,
            limits,
            strategy: terms.strategy,
            persistent: terms.persistent,
            cache_pages: terms.cache_pages,
            used: false,
            log: None,
            image,
            throttle: terms.rates.map(|rates| DiskThrottle::new(&rates, None)),
            stats,
            tap: None,
        })));
        match rig.reports.try_recv().unwrap() {
            Report::Started(started, Ok(())) => assert_eq!(started, key),
            other => panic!("{other:?}"),
        }
        rig.settle();
        rig
    }

    pub fn order(&mut self, order: Order) {
        assert!(self.line.order(order));
        self.worker.look_outside();
    }

    /// Lets the worker work until it would sleep.
    pub fn settle(&mut self) {
        self.worker.look_outside();
        loop {
            while self.worker.turn().unwrap() {}
            if !self.worker.arm() {
                return;
            }
        }
    }

    /// Pages with a pattern, lent.
    pub fn pages(&mut self, count: usize, access: Access, seed: u64) -> Pages {
        let mut pages = self.lender.alloc(count).unwrap();
        let bytes: Vec<u8> = (0..count * PAGE_SIZE).map(|at| pattern(seed, at)).collect();
        pages.mem().write(&bytes);
        self.lender.lend(&mut pages, access).unwrap();
        pages
    }

    /// The frontend takes pages back; fails when the backend still maps one.
    pub fn give_back(&mut self, mut pages: Pages) {
        self.lender.reclaim(&mut pages).expect("the backend still maps a page");
        self.lender.release(pages);
        assert_eq!(self.lender.quarantined(), 0);
    }

    /// Puts a request on the ring in the connection's way, not published. Returns its id and the pages of its descriptors.
    pub fn push(&mut self, op: Op, sector: u64, segments: &[Segment]) -> (u64, Option<Pages>) {
        self.next_id += 1;
        let id = self.next_id;
        let request = Request { id, op, sector, segments: Segments::from(segments) };
        if self.terms.mode == SegmentMode::Indirect && segments.len() > 11 {
            let count = indirect::pages_for(segments.len());
            let mut pages = self.lender.alloc(count).unwrap();
            let mut bytes = vec![0; count * PAGE_SIZE];
            indirect::encode(request.segments, &mut bytes).unwrap();
            pages.mem().write(&bytes);
            // With persistent grants everything is granted writable.
            let access = if self.terms.persistent { Access::ReadWrite } else { Access::Read };
            self.lender.lend(&mut pages, access).unwrap();
            let mut entry = [0; 112];
            request.emit_indirect(&self.limits, pages.grants(), &mut entry).unwrap();
            self.push_raw(&entry);
            return (id, Some(pages));
        }
        let mut entries = [[0; 112]; segment_block::MAX_ENTRIES];
        let filled = request.emit(&self.limits, &mut entries).unwrap();
        for entry in &entries[..filled] {
            self.push_raw(entry);
        }
        (id, None)
    }

    pub fn push_raw(&mut self, entry: &Entry) {
        self.ring.push(&entry[..self.terms.abi.entry_size()]).unwrap();
    }

    /// Publishes, and signals if the backend wants it.
    pub fn kick(&mut self) {
        if self.ring.publish().is_needed() {
            self.events.notify(self.port).unwrap();
        }
    }

    /// The next answer, of a request that took `entries` entries, if there is one.
    pub fn answer(&mut self, entries: u32) -> Option<Response> {
        let mut entry = [0xEE; 112];
        if !self.ring.peek(&mut entry).unwrap() {
            return None;
        }
        self.ring.consume(entries).unwrap();
        let size = self.terms.abi.response_size();
        assert!(entry[12..size].iter().all(|byte| *byte == 0), "padding leaks");
        Some(Response::parse(&entry))
    }

    /// The next answer, where `entries` says how many entries the request of an id took.
    pub fn answer_of(&mut self, entries: &std::collections::HashMap<u64, u32>) -> Option<Response> {
        let mut entry = [0; 112];
        if !self.ring.peek(&mut entry).unwrap() {
            return None;
        }
        self.answer(entries[&Response::parse(&entry).id])
    }

    /// One request from push to answer.
    pub fn run(&mut self, op: Op, sector: u64, segments: &[Segment]) -> Status {
        let (id, descriptors) = self.push(op, sector, segments);
        let blocks = if self.terms.mode == SegmentMode::Blocks { segments.len() } else { 0 };
        self.kick();
        self.settle();
        let answer = self.answer(segment_block::entries_for(blocks)).expect("an answer");
        assert_eq!((answer.id, answer.op), (id, op.opcode()));
        assert_eq!(self.answer(1), None, "one answer");
        if let Some(pages) = descriptors
            && !self.terms.persistent
        {
            self.give_back(pages);
        }
        answer.status
    }

    /// Ends the queue and checks that the guest gets everything back.
    pub fn finish(mut self) {
        self.order(Order::Drain(self.key));
        self.settle();
        let drained =
            self.reports.try_iter().any(|report| matches!(report, Report::Drained(key) if key == self.key));
        assert!(drained);
        let pages = self.ring.into_mem().into_pages();
        self.lender.release(pages);
        assert_eq!(self.lender.quarantined(), 0, "pages are still mapped");
        let leaks = self.machine.leaks();
        assert_eq!(leaks.mapped, 0, "{leaks:?}");
    }
}

/// Whole pages as segments.
pub fn whole(pages: &Pages) -> Vec<Segment> {
    pages.grants().iter().map(|gref| Segment::page(*gref)).collect()
}

pub fn pattern(seed: u64, at: usize) -> u8 {
    (seed as usize).wrapping_mul(37).wrapping_add(at).wrapping_add(at >> 12) as u8
}

/// Every strategy with and without persistent grants.
pub fn strategies() -> impl Iterator<Item = (Strategy, bool)> {
    [Strategy::Copy, Strategy::Persistent, Strategy::Direct].into_iter().flat_map(|s| [(s, false), (s, true)])
}

impl Rig {
    /// Operations at the disk, done or not, whose answers are held back.
    pub fn in_flight_at_disk(&self) -> usize {
        self.worker.storage().in_flight()
    }

    /// Lets the oldest held operation come back, and what follows from it happen.
    pub fn release_one(&mut self) {
        self.faults.pass(1);
        self.settle();
    }
}
