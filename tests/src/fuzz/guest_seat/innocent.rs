//! The other guest: one ring, one page, no harm.

use std::sync::Arc;

use blkback::{
    config::Strategy,
    data::{
        queue::{QueueKey, QueueSpec},
        resume::LogSpec,
    },
    storage::{Image, ImageOptions},
};
use blkif_proto::{Abi, Limits, Op, Operations, Request, Response, Segment, SegmentMode, Segments, Status};
use ringbuf::{FrontRing, Mapped};
use xen_platform::{
    Access, DomId, EventChannels as _, FrontWorld as _, Lender as _, PAGE_SIZE, Pages, Port,
    fake::{self, Machine},
};

use super::backend::Backend;

/// Sectors of its disk.
const SECTORS: u64 = 64;

/// A guest that reads and writes.
pub(crate) struct Innocent {
    /// What the worker needs to serve it.
    pub(crate) spec: QueueSpec,
    ring: FrontRing<Mapped<Pages>>,
    events: fake::Events,
    port: Port,
    page: Pages,
    id: u64,
    _lender: fake::Lender,
}

impl Innocent {
    /// A guest of its own with one disk.
    pub(crate) fn new(machine: &Machine) -> Self {
        let dom = machine.create_domain(256).unwrap();
        let world = machine.world(dom);
        let mut lender = world.lender(DomId::DOM0).unwrap();
        let mut events = world.events().unwrap();
        let port = events.alloc_unbound(DomId::DOM0).unwrap();
        let mut pages = lender.alloc(1).unwrap();
        lender.lend(&mut pages, Access::ReadWrite).unwrap();
        let mut page = lender.alloc(1).unwrap();
        lender.lend(&mut page, Access::ReadWrite).unwrap();
        let ring_refs = pages.grants().to_vec();
        let ring = FrontRing::init(Mapped::new(pages, Abi::NATIVE.entry_size()).unwrap());
        let image = Image::null(SECTORS * 512, &ImageOptions::default()).unwrap();
        let log = crate::fuzz::log::scratch("innocent");
        let spec = QueueSpec {
            key: QueueKey { connection: 0, queue: 0 },
            dom,
            ring_refs,
            port,
            limits: limits(Abi::NATIVE, SegmentMode::Direct, SECTORS),
            strategy: Strategy::Copy,
            persistent: false,
            cache_pages: 0,
            used: false,
            log: Some(LogSpec { path: log, identity: "innocent".into() }),
            image: Arc::new(image),
            throttle: None,
            stats: Arc::default(),
            tap: None,
        };
        Self { spec, ring, events, port, page, id: 0, _lender: lender }
    }

    /// Writes a page and reads it back; both must go well within so many turns.
    pub(crate) fn check(&mut self, backend: &mut Backend) {
        self.id += 1;
        let sector = self.id % 7 * 8;
        let mut bytes = [0; PAGE_SIZE];
        bytes.iter_mut().zip(self.id..).for_each(|(byte, n)| *byte = n as u8);
        self.page.mem().write(&bytes);
        self.ask(backend, Op::Write, sector);
        let at = sector as usize * 512;
        backend.platters.with(&self.spec.image, |disk| assert!(disk[at..at + PAGE_SIZE] == bytes));
        self.page.mem().zero();
        self.ask(backend, Op::Read, sector);
        let mut back = [0; PAGE_SIZE];
        self.page.mem().read(&mut back);
        assert!(back == bytes, "the innocent guest reads other bytes than it wrote");
    }

    fn ask(&mut self, backend: &mut Backend, op: Op, sector: u64) {
        let segments = [Segment::page(self.page.grants()[0])];
        let request = Request { id: self.id, op, sector, segments: Segments::from(&segments[..]) };
        let mut entry = [[0; _]];
        request.emit(&self.spec.limits, &mut entry).unwrap();
        self.ring.push(&entry[0]).unwrap();
        if self.ring.publish().is_needed() {
            self.events.notify(self.port).unwrap();
        }
        let mut answer = [0; _];
        for _ in 0..64 {
            backend.turn();
            while backend.worker.storage_mut().finish(0, false) {}
            if self.ring.peek(&mut answer).unwrap() {
                self.ring.consume(1).unwrap();
                let wanted = Response { id: self.id, op: op.opcode(), status: Status::OKAY };
                return assert_eq!(Response::parse(&answer), wanted, "to the innocent guest");
            }
        }
        panic!("the innocent guest has no answer");
    }
}

/// What is agreed with a guest in this mode, with a disk of so many sectors.
pub(crate) fn limits(abi: Abi, mode: SegmentMode, sectors: u64) -> Limits {
    let max_segments = match mode {
        SegmentMode::Direct => 11,
        SegmentMode::Blocks => blkif_proto::segment_block::max_segments(abi) as u16,
        SegmentMode::Indirect => 600,
    };
    Limits {
        abi,
        mode,
        max_segments,
        max_indirect: if mode == SegmentMode::Indirect { max_segments } else { 0 },
        max_request_bytes: u32::from(max_segments) * 4096,
        max_requests: abi.ring_entries(1),
        sectors,
        sector_size: 512,
        read_only: false,
        operations: Operations { flush: true, barrier: true, discard: Some(blkif_proto::Discard::default()) },
    }
}
