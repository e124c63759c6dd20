//! A simulated Xen in this process, with one guest and a backend of memory, for tests of whole commands.

mod backend;

use std::{
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
};

use blkif_proto::{
    Discard, Operations,
    keys::{BackendDisk, BackendFeatures, DiskInfo, RequestMaxima, RingDialect},
};
use clap::Parser as _;
use tempfile::TempDir;
use xen_platform::{
    DomId, StoreClient,
    sim::{Broker, Toolstack, World, xenstored_socket},
    wire::{Permission, Rights},
};

use crate::{
    cli::{Cli, Command},
    in_world,
    signal::Stop,
};

/// A guest whose only disk is a [`Medium`].
pub(crate) struct Bed {
    pub(crate) directory: TempDir,
    medium: Arc<Mutex<Medium>>,
    guest: DomId,
    ending: Arc<AtomicBool>,
    backend: Option<JoinHandle<()>>,
    _broker: Broker,
}

/// The disk, what it does wrong, and what was done to it.
#[derive(Debug)]
pub(crate) struct Medium {
    pub(crate) bytes: Vec<u8>,
    pub(crate) features: BackendFeatures,
    pub(crate) disk: BackendDisk,
    /// Writes that touch this byte or what lies behind it fail, as on a full file system.
    pub(crate) full_from: Option<usize>,
    /// A byte that reads as something else than was written.
    pub(crate) rotten: Option<usize>,
    /// What a discard leaves behind.
    pub(crate) discarded: u8,
    /// Requests are taken and not answered.
    pub(crate) hang: bool,
    pub(crate) reads: u64,
    pub(crate) written_bytes: u64,
    pub(crate) flushes: u64,
    pub(crate) discards: u64,
    /// How often a frontend has connected and closed again.
    pub(crate) connected: u64,
    pub(crate) closed: u64,
}

const FRONTEND: &str = "device/vbd/51712";

impl Bed {
    /// A disk of `bytes` zeroes that can do everything.
    pub(crate) fn new(bytes: usize) -> Self {
        Self::with(bytes, |_| ())
    }

    /// A disk changed by `change` before its backend starts.
    pub(crate) fn with(bytes: usize, change: impl FnOnce(&mut Medium)) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let world = directory.path().join("world");
        let broker = Broker::start(&world).unwrap();
        let guest = Toolstack::connect(&world).unwrap().create_domain(1 << 15).unwrap();
        let mut medium = Medium::new(bytes);
        change(&mut medium);
        let mut store = StoreClient::connect(xenstored_socket(&world)).unwrap();
        make_nodes(&mut store, guest);
        let medium = Arc::new(Mutex::new(medium));
        let ending = Arc::new(AtomicBool::new(false));
        let backend = {
            let (medium, ending) = (Arc::clone(&medium), Arc::clone(&ending));
            let world = World::connect(&world, DomId::DOM0).unwrap();
            thread::spawn(move || backend::serve(&world, store, guest, &medium, &ending))
        };
        Self { directory, medium, guest, ending, backend: Some(backend), _broker: broker }
    }

    /// The disk, to look at and to change.
    pub(crate) fn medium(&self) -> MutexGuard<'_, Medium> {
        self.medium.lock().unwrap()
    }

    /// Runs the tool with these arguments.
    pub(crate) fn run(&self, arguments: &[&str]) -> anyhow::Result<()> {
        self.run_until(arguments, Stop::default())
    }

    /// Runs the tool with these arguments; `stop` stands for the signals.
    pub(crate) fn run_until(&self, arguments: &[&str], stop: Stop) -> anyhow::Result<()> {
        let world = self.directory.path().join("world");
        let (xen, domain) = (format!("sim:{}", world.display()), self.guest.to_string());
        let words =
            ["blkfront", "--xen", &xen, "--domain", &domain].into_iter().chain(arguments.iter().copied());
        let cli = Cli::try_parse_from(words)?;
        let Command::Disk(command) = &cli.command else { anyhow::bail!("not about a disk") };
        in_world(World::connect(&world, self.guest)?, &cli.connection, command, stop)
    }

    /// A path in the bed's own directory.
    pub(crate) fn path(&self, name: &str) -> String {
        self.directory.path().join(name).to_str().unwrap().into()
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        self.ending.store(true, Ordering::Relaxed);
        let ended = self.backend.take().map(JoinHandle::join);
        if !thread::panicking() {
            ended.unwrap().unwrap();
            let medium = self.medium();
            assert_eq!(medium.connected, medium.closed, "every command closes the disk");
        }
    }
}

impl Medium {
    fn new(bytes: usize) -> Self {
        Self {
            bytes: vec![0; bytes],
            features: BackendFeatures {
                max_ring_pages: 16,
                dialect: RingDialect::Order,
                max_queues: 4,
                max_indirect_segments: 256,
                request_maxima: Some(RequestMaxima { requests: 256, segments: 64, bytes: 64 * 4096 }),
                persistent: true,
                operations: Operations {
                    flush: true,
                    barrier: true,
                    discard: Some(Discard { granularity: 4096, alignment: 0, secure: false }),
                },
            },
            disk: BackendDisk {
                sectors: bytes as u64 / 512,
                sector_size: 512,
                physical_sector_size: 4096,
                info: DiskInfo::empty(),
            },
            full_from: None,
            rotten: None,
            discarded: 0,
            hang: false,
            reads: 0,
            written_bytes: 0,
            flushes: 0,
            discards: 0,
            connected: 0,
            closed: 0,
        }
    }
}

fn backend_path(guest: DomId) -> String {
    format!("/local/domain/0/backend/vbd/{guest}/51712")
}

fn frontend_path(guest: DomId) -> String {
    format!("/local/domain/{guest}/{FRONTEND}")
}

/// What a toolstack writes for a disk.
fn make_nodes(store: &mut StoreClient, guest: DomId) {
    let (front, back) = (frontend_path(guest), backend_path(guest));
    store
        .transact(|t| {
            for (path, owner, reader) in [(&front, guest, DomId::DOM0), (&back, DomId::DOM0, guest)] {
                t.mkdir(path)?;
                let rights = [Permission::new(owner, Rights::None), Permission::new(reader, Rights::Read)];
                t.set_permissions(path, &rights)?;
            }
            for (key, value) in [
                ("backend", back.as_str()),
                ("backend-id", "0"),
                ("state", "1"),
                ("virtual-device", "51712"),
                ("device-type", "disk"),
            ] {
                t.write(&format!("{front}/{key}"), value)?;
            }
            let id = guest.to_string();
            for (key, value) in [
                ("frontend", front.as_str()),
                ("frontend-id", &id),
                ("online", "1"),
                ("state", "1"),
                ("mode", "w"),
            ] {
                t.write(&format!("{back}/{key}"), value)?;
            }
            // Listing its disks is up to the guest.
            let rights = [Permission::new(guest, Rights::None)];
            t.set_permissions(&format!("/local/domain/{guest}/device/vbd"), &rights)
        })
        .unwrap();
}
