//! The backend's domain: a worker that comes and goes, and the states that the control plane would write for it.

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
    limit::DiskThrottle,
    stats::{QueueStats, WorkerStats},
    storage::{Image, ImageOptions},
};
use blkif_proto::{
    Agreement,
    keys::{BackendDisk, BackendFeatures, DeviceType, DiskInfo, FrontendRecord, ToolstackFrontend},
    xenbus::State,
};
use xen_platform::{
    Change, DomId, FrontWorld, Port, Store as _,
    fake::{self, Machine},
    wire::{Permission, Rights},
};

use super::ledger::{CHUNK, CHUNKS};
use crate::disk::{Disk, Shared};

type Tree = <fake::World as FrontWorld>::Store;

/// What becomes of one disk in dom0.
pub(crate) struct Daemon {
    machine: Machine,
    guest: DomId,
    store: Tree,
    /// The two directories.
    pub(crate) frontend: String,
    backend: String,
    platter: Shared,
    features: BackendFeatures,
    strategy: Strategy,
    cache_pages: usize,
    throttle: Option<DiskThrottle>,
    image: Arc<Image>,
    folder: tempfile::TempDir,
    connections: u64,
    /// The queues of the connection.
    queues: Vec<QueueSpec>,
    process: Option<Process>,
}

/// A daemon's process.
struct Process {
    worker: Worker<fake::World, Disk<InFlight<fake::Mapping>>>,
    line: Line,
    reports: mpsc::Receiver<Report>,
    /// It waits for an event or for the disk.
    asleep: bool,
    /// Queues that come to their end, and of them those that have.
    draining: bool,
    drained: usize,
}

impl Daemon {
    /// A disk for the guest, and a daemon that has not looked at it yet.
    pub(crate) fn new(
        machine: &Machine,
        guest: DomId,
        platter: Shared,
        features: BackendFeatures,
        strategy: Strategy,
        cache_pages: usize,
        throttle: Option<DiskThrottle>,
    ) -> Self {
        let mut store = machine.store().connect(DomId::DOM0).unwrap();
        let frontend = format!("/local/domain/{guest}/device/vbd/51712");
        let backend = format!("/local/domain/0/backend/vbd/{guest}/51712");
        let toolstack = ToolstackFrontend {
            backend: backend.clone(),
            backend_id: 0,
            virtual_device: 51712,
            device_type: DeviceType::Disk,
            trusted: true,
        };
        let nobody_but =
            |owner, reader| [Permission::new(owner, Rights::None), Permission::new(reader, Rights::Read)];
        let written = store.transact(|tree| {
            tree.mkdir(&frontend)?;
            tree.set_permissions(&frontend, &nobody_but(guest, DomId::DOM0))?;
            tree.mkdir(&backend)?;
            tree.set_permissions(&backend, &nobody_but(DomId::DOM0, guest))?;
            let mut keys = vec![
                (format!("{frontend}/state"), "1".to_owned()),
                (format!("{backend}/state"), "1".to_owned()),
                (format!("{backend}/online"), "1".to_owned()),
            ];
            toolstack.emit(|key, value| keys.push((format!("{frontend}/{key}"), value.to_owned())));
            keys.iter().try_for_each(|(key, value)| tree.write(key, value))
        });
        written.unwrap();
        let options = ImageOptions { direct_io: cache_pages == 3, ..ImageOptions::default() };
        let image = Arc::new(Image::null((CHUNK * CHUNKS) as u64, &options).unwrap());
        let mut it = Self {
            machine: machine.clone(),
            guest,
            store,
            frontend,
            backend,
            platter,
            features,
            strategy,
            cache_pages,
            throttle,
            image,
            folder: tempfile::tempdir_in("/dev/shm").unwrap(),
            connections: 0,
            queues: Vec::new(),
            process: None,
        };
        it.start();
        it
    }

    /// State of the backend, and of the frontend.
    pub(crate) fn states(&mut self) -> (State, State) {
        let mut of = |directory: &str| State::of_node(self.store.read(&format!("{directory}/state")).ok());
        (of(&self.backend), of(&self.frontend))
    }

    fn write_state(&mut self, state: State) {
        self.write(&[("state".to_owned(), state.as_str().to_owned())]);
    }

    fn write(&mut self, keys: &[(String, String)]) {
        let paths: Vec<String> = keys.iter().map(|(key, _)| format!("{}/{key}", self.backend)).collect();
        let changes = paths.iter().zip(keys).map(|(path, (_, value))| Change::Write(path, value));
        self.store.apply(&changes.collect::<Vec<_>>()).unwrap();
    }

    /// The control plane takes one step. Returns what it did.
    pub(crate) fn follow(&mut self) -> Option<String> {
        let (own, front) = self.states();
        let process = self.process.as_mut()?;
        if process.draining {
            if process.drained < self.queues.len() {
                return None;
            }
            process.draining = false;
            self.queues.clear();
            self.write_state(State::Closed);
            return Some("closed".into());
        }
        match (front, own) {
            (State::Initialising, State::Initialising | State::Closed) => {
                let mut keys = Vec::new();
                self.features.emit(|key, value| keys.push((key.to_owned(), value.to_owned())));
                self.write(&keys);
                self.write_state(State::InitWait);
                Some("waits for the guest".into())
            }
            (State::Initialised, State::InitWait) => Some(self.connect()),
            (State::Initialising, State::Connected) => {
                process.draining = true;
                process.drained = 0;
                for queue in &self.queues {
                    assert!(process.line.order(Order::Drain(queue.key)));
                }
                Some("drains".into())
            }
            _ => None,
        }
    }

    fn connect(&mut self) -> String {
        let Self { store, frontend, features, .. } = self;
        let record = FrontendRecord::parse(|key| store.read(&format!("{frontend}/{key}")).ok(), features);
        let record = record.unwrap();
        let agreement = Agreement::between(&features.capacity(), &record.capacity(), record.abi);
        let sectors = (CHUNK * CHUNKS / 512) as u64;
        let disk =
            BackendDisk { sectors, sector_size: 512, physical_sector_size: 512, info: DiskInfo::empty() };
        let limits = agreement.limits(&disk, features.operations);
        self.connections += 1;
        let connection = self.connections;
        let queues = (0..).zip(&record.queues).map(|(queue, told)| QueueSpec {
            key: QueueKey { connection, queue },
            dom: self.guest,
            ring_refs: told.ring_refs.clone(),
            port: Port(told.event_channel),
            limits,
            strategy: self.strategy,
            persistent: agreement.persistent,
            cache_pages: self.cache_pages,
            used: false,
            log: Some(LogSpec {
                path: self.folder.path().join(format!("{queue}.log")),
                identity: format!("connection {connection}"),
            }),
            image: Arc::clone(&self.image),
            throttle: self.throttle.clone(),
            stats: Arc::new(QueueStats::default()),
            tap: None,
        });
        self.queues = queues.collect();
        self.serve();
        let mut keys = Vec::new();
        disk.emit(|key, value| keys.push((key.to_owned(), value.to_owned())));
        self.write(&keys);
        self.write_state(State::Connected);
        format!("connects: {agreement:?}")
    }

    /// Gives the worker the connection's queues.
    fn serve(&mut self) {
        let Some(process) = &mut self.process else { return };
        process.asleep = false;
        for queue in &mut self.queues {
            assert!(process.line.order(Order::Start(Box::new(queue.clone()))));
            process.worker.look_outside();
            match process.reports.try_recv() {
                Ok(Report::Started(_, Ok(()))) => {}
                other => panic!("{other:?}"),
            }
            queue.used = true;
        }
    }

    /// The worker does one turn, if there is something to wake it.
    pub(crate) fn work(&mut self) {
        let Some(process) = &mut self.process else { return };
        let due = process.worker.wakes_at().is_some_and(|at| at <= self.machine.now());
        let woken = process.worker.look_outside() || process.worker.storage().has_done() || due;
        if process.asleep && !woken {
            return;
        }
        process.asleep = false;
        if !process.worker.turn().unwrap() {
            process.asleep = !process.worker.arm();
        }
        for report in process.reports.try_iter() {
            match report {
                Report::Drained(_) => process.drained += 1,
                other => panic!("{other:?}"),
            }
        }
    }

    /// The disk finishes one operation.
    pub(crate) fn finish_one(&mut self, choice: usize, fails: bool) {
        if let Some(process) = &mut self.process {
            process.worker.storage_mut().finish(choice, fails);
        }
    }

    /// The daemon is killed; `fate` decides what of its operations was done.
    pub(crate) fn kill(&mut self, fate: u64) {
        if let Some(mut process) = self.process.take() {
            process.worker.storage_mut().fate = fate;
        }
    }

    /// A daemon starts. Where both ends are connected, it goes on from where the last one was.
    pub(crate) fn start(&mut self) {
        let (line, mailbox) = Line::new().unwrap();
        let (send, reports) = mpsc::channel();
        let send = Mutex::new(send);
        let report = Arc::new(move |report| _ = send.lock().unwrap().send(report));
        let world = self.machine.world(DomId::DOM0);
        let disk = Disk::new(Arc::clone(&self.platter));
        let stats = Arc::new(WorkerStats::default());
        let worker = Worker::new(&world, disk, Duration::ZERO, mailbox, report, stats).unwrap();
        self.process = Some(Process { worker, line, reports, asleep: false, draining: false, drained: 0 });
        self.serve();
    }

    /// Nothing of the connection is left in dom0, as after it was booted anew; `state` is what the toolstack writes then.
    pub(crate) fn forget(&mut self, state: State) {
        self.queues.clear();
        for entry in std::fs::read_dir(self.folder.path()).unwrap() {
            std::fs::remove_file(entry.unwrap().path()).unwrap();
        }
        self.write_state(state);
    }

    /// The toolstack resets the frontend's state.
    pub(crate) fn reset_frontend(&mut self) {
        let path = format!("{}/state", self.frontend);
        self.store.apply(&[Change::Write(&path, State::Initialising.as_str())]).unwrap();
    }

    /// True when nothing of the guest is under way or kept here.
    pub(crate) fn is_idle(&self) -> bool {
        self.queues.is_empty() && std::fs::read_dir(self.folder.path()).unwrap().count() == 0
    }
}
