//! A guest that changes a word of its request while it is fetched (XSA-155): a second fetch of it shows.
//!
//! A thread turns one word over and over between two requests, each of which is in order, or one of which is not. The word is
//! fetched as a whole, so that a request is one or the other. Whatever is told of it and done for it must belong to the same one: a
//! backend that looks twice tells of one and does the other. What reaches the disk is checked there once more.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering::Relaxed},
    },
    thread,
};

use blkback::{
    config::Strategy,
    data::queue::{QueueKey, QueueSpec},
    storage::{Image, ImageOptions},
};
use blkif_proto::{Abi, Entry, MAX_ENTRY_SIZE, Opcode, Response, Segment, SegmentMode, Status};
use ringbuf::{Field, FrontRing, Index, Mapped, RingMem as _};
use xen_platform::{
    Access, DomId, EventChannels as _, FrontWorld as _, Lender as _, PAGE_SIZE, Pages,
    fake::{self, Machine},
};

use crate::{
    conformance::rig::{Raw, bytes, descriptors, whole},
    fuzz::guest_seat::{backend::Backend, innocent::limits},
};

/// Requests that are published at once.
const BATCH: usize = 16;
/// Batches of requests whose head is turned: a second fetch right after the first shows once in a thousand requests or two.
const LONG: u32 = 400;
/// Batches of other requests.
const SHORT: u32 = 60;
/// Each of the two must have been fetched so often.
const ENOUGH: u32 = 50;
/// Pages of a large request: two descriptors more than fit into an entry.
const MANY: usize = 13;
/// What is in the guest's pages before each request, and on its disk.
const IN_PAGES: u8 = 0x11;
const ON_DISK: u8 = 0x22;

/// One of the two: what its answer says, and what it does, in bytes read into pages and bytes written to the disk.
struct Version {
    answer: (Opcode, Status),
    read: usize,
    written: usize,
}

const REFUSED: Version = Version { answer: (Opcode::READ, Status::ERROR), read: 0, written: 0 };

const fn reads(pages: usize) -> Version {
    Version { answer: (Opcode::READ, Status::OKAY), read: pages * PAGE_SIZE, written: 0 }
}

const fn writes(pages: usize) -> Version {
    Version { answer: (Opcode::WRITE, Status::OKAY), read: 0, written: pages * PAGE_SIZE }
}

/// A read and a write of one page: what is told is what was done.
pub fn operation(strategy: Strategy, mode: SegmentMode) {
    let mut rig = Rig::new(strategy, mode, 1);
    let pairs =
        rig.requests(|n, sector, segments| [Raw::read(n, sector, segments), Raw::write(n, sector, segments)]);
    rig.turn_slots(&pairs, LONG, &[reads(1), writes(1)]);
}

/// Indirect requests whose operation changes together with their number of segments, from many to one.
pub fn shrinking_count(strategy: Strategy) {
    let mut rig = Rig::new(strategy, SegmentMode::Indirect, MANY);
    let described: Vec<Pages> = (0..BATCH).map(|n| rig.describe(n)).collect();
    let pairs = rig.requests(|n, sector, _| {
        let grefs = described[n as usize].grants();
        let many = Raw::indirect(Opcode::READ, n, sector, MANY as u16, grefs);
        [many, Raw::indirect(Opcode::WRITE, n, sector, 1, grefs)]
    });
    rig.turn_slots(&pairs, SHORT, &[reads(MANY), writes(1)]);
}

/// A sector that is on the disk, or far beyond its end.
pub fn sector(strategy: Strategy, mode: SegmentMode) {
    let mut rig = Rig::new(strategy, mode, 1);
    let pairs = rig.requests(|n, sector, segments| {
        [Raw::read(n, sector, segments), Raw::read(n, sector + 4096, segments)]
    });
    rig.turn_slots(&pairs, SHORT, &[reads(1), REFUSED]);
}

/// A segment in the ring that lies within its page, or ends far beyond it.
pub fn segment(strategy: Strategy, mode: SegmentMode) {
    let mut rig = Rig::new(strategy, mode, 1);
    let pairs = rig.requests(|n, sector, segments| {
        let evil = [Segment { last_sect: 255, ..segments[0] }];
        [Raw::read(n, sector, segments), Raw::read(n, sector, &evil)]
    });
    rig.turn_slots(&pairs, SHORT, &[reads(1), REFUSED]);
}

/// A segment in a descriptor page that lies within its page, or ends far beyond it.
pub fn descriptor(strategy: Strategy) {
    let mut rig = Rig::new(strategy, SegmentMode::Indirect, MANY);
    let described: Vec<Pages> = (0..BATCH).map(|n| rig.describe(n)).collect();
    let last = |n: usize| rig.segments(n)[MANY - 1];
    let words =
        |n| [last(n), Segment { last_sect: 255, ..last(n) }].map(|last| word(&descriptors(&[last]), 0));
    let words: Vec<_> = (0..BATCH).map(words).collect();
    let requests = rig.requests(|n, sector, _| {
        let grefs = described[n as usize].grants();
        Raw::indirect(Opcode::READ, n, sector, MANY as u16, grefs)
    });
    let entries: Vec<_> = requests.iter().map(|raw| raw.entries(Abi::X86_64)[0]).collect();
    let places = |_, n: usize| (&described[n], (MANY - 1) * 8);
    rig.turn(&entries, &words, places, SHORT, &[reads(MANY), REFUSED]);
}

/// A guest, its worker and its disk.
struct Rig {
    backend: Backend,
    spec: QueueSpec,
    ring: Arc<Mapped<Pages>>,
    lender: fake::Lender,
    pages: Pages,
    events: fake::Events,
}

impl Rig {
    fn new(strategy: Strategy, mode: SegmentMode, each: usize) -> Self {
        let machine = Machine::new(7);
        let dom = machine.create_domain(1024).unwrap();
        let world = machine.world(dom);
        let mut lender = world.lender(DomId::DOM0).unwrap();
        let mut events = world.events().unwrap();
        let port = events.alloc_unbound(DomId::DOM0).unwrap();
        let mut ring = lender.alloc(1).unwrap();
        let mut pages = lender.alloc(each * BATCH).unwrap();
        lender.lend(&mut ring, Access::ReadWrite).unwrap();
        lender.lend(&mut pages, Access::ReadWrite).unwrap();
        let sectors = (each * BATCH * 8) as u64;
        let mut spec = QueueSpec {
            key: QueueKey { connection: 1, queue: 0 },
            dom,
            ring_refs: ring.grants().to_vec(),
            port,
            limits: limits(Abi::X86_64, mode, sectors),
            strategy,
            persistent: strategy == Strategy::Persistent,
            cache_pages: 1056,
            used: false,
            log: None,
            image: Image::null(sectors * 512, &ImageOptions::default()).unwrap().into(),
            throttle: None,
            stats: Default::default(),
            tap: None,
        };
        let ring = FrontRing::init(Mapped::new(ring, Abi::X86_64.entry_size()).unwrap()).into_mem();
        let mut backend = Backend::new(&machine);
        backend.start(&mut spec).unwrap();
        Self { backend, spec, ring: Arc::new(ring), lender, pages, events }
    }

    /// The pages of request number `n` of a batch.
    fn segments(&self, n: usize) -> Vec<Segment> {
        let each = self.pages.count() / BATCH;
        whole(&self.pages)[n * each..][..each].to_vec()
    }

    fn describe(&mut self, n: usize) -> Pages {
        let mut page = self.lender.alloc(1).unwrap();
        page.mem().write(&descriptors(&self.segments(n)));
        self.lender.lend(&mut page, Access::ReadWrite).unwrap();
        page
    }

    /// Something for each request of a batch: its number, its sector and its segments.
    fn requests<R>(&self, make: impl Fn(u64, u64, &[Segment]) -> R) -> Vec<R> {
        let sectors = (self.pages.count() / BATCH * 8) as u64;
        (0..BATCH as u64).map(|n| make(n, n * sectors, &self.segments(n as usize))).collect()
    }

    /// Requests that turn from one into the other in the ring.
    fn turn_slots(&mut self, pairs: &[[Raw; 2]], batches: u32, versions: &[Version; 2]) {
        let entries = |pair: &[Raw; 2]| pair.each_ref().map(|raw| raw.entries(Abi::X86_64)[0]);
        let [from, to] = entries(&pairs[0]);
        let mut differ = (0..from.len()).step_by(8).filter(|at| word(&from, *at) != word(&to, *at));
        let (Some(at), None) = (differ.next(), differ.next()) else { unreachable!("one word is turned") };
        let words: Vec<_> = pairs.iter().map(|pair| entries(pair).map(|entry| word(&entry, at))).collect();
        let firsts: Vec<Entry> = pairs.iter().map(|pair| entries(pair)[0]).collect();
        let ring = Arc::clone(&self.ring);
        let places = |begin: Index, n: usize| {
            let slot = begin.plus(n as u32);
            (ring.pages(), ring.layout().offset(slot) + at)
        };
        self.turn(&firsts, &words, places, batches, versions);
    }

    /// Publishes the requests again and again, while a word of each turns: that at the byte of the pages that `places` names, for the
    /// index at which the batch begins and the number of the request.
    fn turn<'a>(
        &mut self,
        entries: &[Entry],
        words: &[[u64; 2]],
        places: impl Fn(Index, usize) -> (&'a Pages, usize) + Sync,
        batches: u32,
        versions: &[Version; 2],
    ) {
        let (begin, turning, over) = (AtomicU32::new(0), AtomicU32::new(u32::MAX), AtomicBool::new(false));
        let mut told = [0; 2];
        thread::scope(|scope| {
            // Whatever becomes of the requests: the thread must end.
            let _end = End(&over);
            scope.spawn(|| {
                for turn in 0.. {
                    let index = begin.load(Relaxed);
                    for (n, pair) in words.iter().enumerate() {
                        let (pages, at) = places(Index::new(index), n);
                        let Some(word) = pages.mem().word64(at) else { return };
                        word.store(pair[(turn + n) % 2], Relaxed);
                    }
                    turning.store(index, Relaxed);
                    if over.load(Relaxed) {
                        return;
                    }
                }
            });
            for batch in 0..batches {
                let index = Index::new(batch * BATCH as u32);
                for (n, entry) in (0..).zip(entries) {
                    self.ring.write_slot(index.plus(n), entry);
                }
                begin.store(index.get(), Relaxed);
                // A slot that nobody turns yet is fetched as it was written.
                while turning.load(Relaxed) != index.get() {
                    thread::yield_now();
                }
                let fetched = self.ask(index, versions);
                told.iter_mut().zip(fetched).for_each(|(told, fetched)| *told += fetched);
            }
        });
        assert!(told.iter().all(|times| *times >= ENOUGH), "the two were fetched {told:?} times");
    }

    /// Publishes the batch that lies at `index`. How many were told to be of each version; a panic unless so much was done.
    fn ask(&mut self, index: Index, versions: &[Version; 2]) -> [u32; 2] {
        let Self { backend, spec, ring, pages, events, .. } = self;
        pages.mem().write(&vec![IN_PAGES; pages.count() * PAGE_SIZE]);
        backend.platters.with(&spec.image, |disk| disk.fill(ON_DISK));
        let end = index.plus(BATCH as u32);
        ring.store(Field::ReqProd, end);
        events.notify(spec.port).unwrap();
        backend.settle();
        assert_eq!(ring.load(Field::RspProd), end, "one answer to each request");
        let (mut told, mut wanted) = ([0; 2], (0, 0));
        for n in 0..BATCH as u32 {
            let mut entry = [0; MAX_ENTRY_SIZE];
            ring.read_slot(index.plus(n), &mut entry);
            // The id may be in the word that is turned.
            let Response { op, status, .. } = Response::parse(&entry);
            let which = versions.iter().position(|version| version.answer == (op, status));
            let which = which.unwrap_or_else(|| unreachable!("an answer to neither: {op}, {status}"));
            told[which] += 1;
            wanted.0 += versions[which].read;
            wanted.1 += versions[which].written;
        }
        // Sectors change as a whole.
        let count =
            |bytes: &[u8], wanted| bytes.chunks(512).filter(|sector| sector[0] == wanted).count() * 512;
        let written = backend.platters.with(&spec.image, |disk| count(disk, IN_PAGES));
        assert_eq!(
            (count(&bytes(pages), ON_DISK), written),
            wanted,
            "bytes read and written by {told:?} of the two"
        );
        told
    }
}

/// Ends a thread, also when this one panics.
struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

fn word(bytes: &[u8], at: usize) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[at..at + 8]);
    u64::from_ne_bytes(word)
}
