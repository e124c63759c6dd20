//! Who does what next.

use std::{
    sync::{Arc, Mutex, mpsc},
    time::Duration,
};

use blkback::{
    config::Strategy,
    data::{
        handle::{Line, Order, Report},
        inflight::InFlight,
        queue::{QueueKey, QueueSpec},
        resume::LogSpec,
        worker::Worker,
    },
    stats::{QueueStats, WorkerStats},
    storage::{Image, ImageOptions},
};
use blkif_proto::{Abi, GrantRef, Limits, Operations, SegmentMode, segment_block};
use ringbuf::{FrontRing, Index, Mapped, RingMem as _};
use xen_platform::{
    Access, DomId, EventChannels as _, FrontWorld as _, Lender as _,
    fake::{self, Machine},
};

use crate::{
    chance::Chance,
    disk::{Disk, Platter, Shared, lock},
    guest::{CHUNK, CHUNKS, Guest, SECTORS},
    limits::throttle,
};

type Store = Disk<InFlight<fake::Mapping>>;

pub(crate) struct World {
    machine: Machine,
    dom: DomId,
    guest: Guest,
    platter: Shared,
    backend: Option<Backend>,
    spec: QueueSpec,
    folder: tempfile::TempDir,
    chance: Chance,
    failures: bool,
    told: bool,
    sent: u32,
}

struct Backend {
    worker: Worker<fake::World, Store>,
    line: Line,
    reports: mpsc::Receiver<Report>,
    /// It waits for an event or for the disk.
    asleep: bool,
}

impl World {
    pub(crate) fn new(seed: u64, told: bool) -> Self {
        let mut chance = Chance::new(seed);
        let mut pick = |below: usize| chance.pick(below);
        let machine = Machine::new(seed);
        let dom = machine.create_domain(1 << 14).unwrap();
        let world = machine.world(dom);
        let mut lender = world.lender(DomId::DOM0).unwrap();
        let mut events = world.events().unwrap();
        let port = events.alloc_unbound(DomId::DOM0).unwrap();
        let abi = [Abi::X86_64, Abi::X86_32][pick(2)];
        let mode = [SegmentMode::Direct, SegmentMode::Blocks, SegmentMode::Indirect][pick(3)];
        let strategy = [Strategy::Copy, Strategy::Persistent, Strategy::Direct][pick(3)];
        let persistent = pick(2) == 0;
        let mut pages = lender.alloc(1 + pick(2)).unwrap();
        lender.lend(&mut pages, Access::ReadWrite).unwrap();
        let ring_refs: Vec<GrantRef> = pages.grants().to_vec();
        let start = Index::new([0, u32::MAX - 10, 0x7FFF_FFF0][pick(3)]);
        let ring = FrontRing::init_at(Mapped::new(pages, abi.entry_size()).unwrap(), start);
        let max_segments = match mode {
            SegmentMode::Direct => 11,
            SegmentMode::Blocks => segment_block::max_segments(abi) as u16,
            SegmentMode::Indirect => 64,
        };
        let limits = Limits {
            abi,
            mode,
            max_segments,
            max_indirect: if mode == SegmentMode::Indirect { 64 } else { 0 },
            max_request_bytes: u32::from(max_segments) * 4096,
            max_requests: ring.mem().layout().entries(),
            sectors: SECTORS,
            sector_size: 512,
            read_only: false,
            operations: Operations { flush: true, barrier: true, discard: None },
        };
        let failures = pick(4) == 0;
        let options = ImageOptions { direct_io: pick(2) == 0, ..ImageOptions::default() };
        let folder = tempfile::tempdir_in("/dev/shm").unwrap();
        let spec = QueueSpec {
            key: QueueKey { connection: 1, queue: 0 },
            dom,
            ring_refs,
            port,
            limits,
            strategy,
            persistent,
            cache_pages: [0, 3, 1056][pick(3)],
            used: false,
            log: Some(LogSpec { path: folder.path().join("log"), identity: "the only one".into() }),
            image: Arc::new(Image::null(SECTORS * 512, &options).unwrap()),
            throttle: throttle(pick(6)),
            stats: Arc::new(QueueStats::default()),
            tap: None,
        };
        if told {
            println!(
                "{abi:?}, {mode:?}, {strategy:?}, persistent {persistent}, {} pages, failures {failures}, {:?}",
                spec.ring_refs.len(),
                spec.throttle.as_ref().map(|throttle| throttle.own().rates())
            );
        }
        let guest = Guest::new(ring, lender, events, port, limits, persistent);
        let platter = Arc::new(Mutex::new(Platter::new(CHUNK * CHUNKS)));
        let mut it = Self {
            machine,
            dom,
            guest,
            platter,
            backend: None,
            spec,
            folder,
            chance,
            failures,
            told,
            sent: 0,
        };
        it.start();
        it
    }

    fn pick(&mut self, below: usize) -> usize {
        self.chance.pick(below)
    }

    fn say(&self, text: &str) {
        if self.told {
            println!("{text}");
        }
    }

    /// So many steps, and then everything comes to an end.
    pub(crate) fn run(mut self, steps: u32) {
        for _ in 0..steps {
            self.step();
        }
        self.say("the end");
        let mut idle = 0;
        while self.guest.waits() > 0 {
            let begin = self.guest.waits();
            self.machine.advance(Duration::from_millis(10));
            self.work();
            self.finish_one(false);
            while self.guest.take(&self.platter, self.failures) {}
            idle = if self.guest.waits() < begin { 0 } else { idle + 1 };
            assert!(idle < 200, "{begin} requests are never answered");
        }
        self.check_power_loss();
        self.end();
    }

    fn step(&mut self) {
        match self.pick(100) {
            0..=29 => {
                let count = 1 + self.pick(6);
                let Self { guest, chance, .. } = self;
                let sent = (0..count).take_while(|_| guest.send(&mut |below| chance.pick(below))).count();
                self.say(&format!("guest sends {sent}"));
                self.sent += sent as u32;
                if self.pick(8) > 0 {
                    self.guest.publish();
                }
            }
            30..=39 => {
                self.say("guest looks");
                let count = self.pick(8);
                let taken = (0..count).take_while(|_| self.guest.take(&self.platter, self.failures)).count();
                self.say(&format!("    {taken} answers"));
            }
            40..=69 => self.work(),
            70..=94 => {
                let fails = self.failures && self.pick(6) == 0;
                self.say(if fails { "disk fails" } else { "disk finishes" });
                self.finish_one(fails);
            }
            95 => {
                self.say("the power fails, in thought");
                self.check_power_loss();
            }
            96 => {
                self.say("an event for nothing");
                self.guest.events.notify(self.guest.port).unwrap();
            }
            97 => {
                self.say("time passes");
                self.machine.advance(Duration::from_millis(self.chance.pick(100) as u64));
            }
            _ => {
                self.say("killed");
                self.kill();
                self.start();
            }
        }
    }

    /// The worker does one turn, if there is something to wake it.
    fn work(&mut self) {
        let Some(backend) = &mut self.backend else { return };
        let due = backend.worker.wakes_at().is_some_and(|at| at <= self.machine.now());
        let woken = backend.worker.look_outside() || backend.worker.storage().has_done() || due;
        if backend.asleep && !woken {
            return;
        }
        backend.asleep = false;
        if !backend.worker.turn().unwrap() {
            backend.asleep = !backend.worker.arm();
        }
        let broken = backend.reports.try_iter().find(|report| !matches!(report, Report::Started(_, Ok(()))));
        assert!(broken.is_none(), "{broken:?}");
        // Published where nothing was, an event may still be due.
        self.guest.publish();
    }

    fn check_power_loss(&mut self) {
        let Self { guest, platter, chance, .. } = self;
        guest.check_power_loss(&lock(platter), || chance.next() & 4 == 0);
    }

    fn finish_one(&mut self, fails: bool) {
        let choice = self.pick(1 << 16);
        if let Some(backend) = &mut self.backend {
            backend.worker.storage_mut().finish(choice, fails);
        }
    }

    fn kill(&mut self) {
        let fate = self.chance.next() as u64;
        if let Some(mut backend) = self.backend.take() {
            backend.worker.storage_mut().fate = fate;
        }
    }

    fn start(&mut self) {
        let (line, mailbox) = Line::new().unwrap();
        let (send, reports) = mpsc::channel();
        let send = Mutex::new(send);
        let report = Arc::new(move |report| _ = send.lock().unwrap().send(report));
        let dom0 = self.machine.world(DomId::DOM0);
        let disk = Disk::new(Arc::clone(&self.platter));
        let mut worker =
            Worker::new(&dom0, disk, Duration::ZERO, mailbox, report, Arc::new(WorkerStats::default()))
                .unwrap();
        assert!(line.order(Order::Start(Box::new(self.spec.clone()))));
        worker.look_outside();
        match reports.try_recv() {
            Ok(Report::Started(_, Ok(()))) => {}
            other => panic!("{other:?}"),
        }
        self.spec.used = true;
        self.backend = Some(Backend { worker, line, reports, asleep: false });
    }

    /// The guest closes: nothing is left mapped, and no log.
    fn end(mut self) {
        let Some(mut backend) = self.backend.take() else { return };
        assert!(backend.line.order(Order::Drain(self.spec.key)));
        backend.worker.look_outside();
        while backend.worker.turn().unwrap() {}
        assert!(backend.reports.try_iter().any(|report| matches!(report, Report::Drained(_))));
        drop(backend);
        assert_eq!(self.machine.leaks().mapped, 0, "domain {}", self.dom);
        assert_eq!(std::fs::read_dir(self.folder.path()).unwrap().count(), 0, "a log is left");
    }
}
