//! A world with a disk in it, for tests of whatever stands on this crate: a toolstack and a backend over the
//! [model of Xen](xen_platform::fake) in this process.
//!
//! The backend does the handshake on a thread of its own, and keeps the disk in memory. It serves the rings itself, or the test
//! takes requests one by one and answers them as it likes, with nonsense too. Feature `fake`; it needs the standard library.
//!
//! ```
//! use blkfront::fake::{Bed, Setup};
//!
//! let mut setup = Setup::plain(2048); // 1 MiB, nothing beyond the original protocol
//! setup.features.max_queues = 4;
//! let bed = Bed::new(setup);
//! let frontend = blkfront::Frontend::probe(bed.world(), &bed.path())?;
//! assert_eq!(frontend.info().features.max_queues, 4);
//! # Ok::<(), blkfront::Error>(())
//! ```

use std::{
    format,
    string::String,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
    vec::Vec,
};

use blkif_proto::keys::{self, BackendDisk, BackendFeatures, DiskInfo};
use xen_platform::{DomId, Store as _, fake};

mod backend;

pub use backend::{Backend, Ring, Taken};

/// What the toolstack and the backend are to be like.
#[derive(Clone, Debug)]
pub struct Setup {
    /// What the backend offers.
    pub features: BackendFeatures,
    /// Size, sectors and kind of the disk.
    pub disk: BackendDisk,
    /// The toolstack vouches for the backend.
    pub trusted: bool,
    /// Published only with `Connected`, as Linux does with some.
    pub late: Option<BackendFeatures>,
    /// Serve the rings without being asked.
    pub serve: bool,
}

impl Setup {
    /// A writable disk of `sectors` sectors behind a backend that serves by itself and offers nothing beyond the original protocol.
    pub fn plain(sectors: u64) -> Self {
        let disk =
            BackendDisk { sectors, sector_size: 512, physical_sector_size: 512, info: DiskInfo::empty() };
        Self { features: BackendFeatures::ORIGINAL, disk, trusted: true, late: None, serve: true }
    }
}

/// A machine with one guest that has one disk. Dropping it ends the backend.
///
/// It panics where anything goes wrong that a test has not asked for.
pub struct Bed {
    /// The hypervisor and the XenStore.
    pub machine: fake::Machine,
    /// The guest's domain.
    pub guest: DomId,
    backend: Arc<Mutex<Backend>>,
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Bed {
    /// Makes the machine, the guest (64 MiB of memory) and the disk, and starts the backend.
    pub fn new(setup: Setup) -> Self {
        let machine = fake::Machine::new(7);
        let guest = machine.create_domain(16 * 1024).unwrap();
        let backend = Arc::new(Mutex::new(Backend::new(&machine, guest, setup)));
        let over = Arc::new(AtomicBool::new(false));
        let thread = std::thread::spawn({
            let (backend, over) = (backend.clone(), over.clone());
            move || {
                while !over.load(Ordering::Relaxed) {
                    lock(&backend).turn();
                    std::thread::sleep(Duration::from_micros(200));
                }
            }
        });
        Self { machine, guest, backend, over, thread: Some(thread) }
    }

    /// What a process in the guest sees.
    pub fn world(&self) -> fake::World {
        self.machine.world(self.guest)
    }

    /// The frontend's directory.
    pub fn path(&self) -> String {
        format!("/local/domain/{}/device/vbd/51712", self.guest)
    }

    /// The backend, which does nothing while it is held.
    pub fn backend(&self) -> MutexGuard<'_, Backend> {
        lock(&self.backend)
    }

    /// The value of a key in the frontend's directory; `None` when it is not there.
    pub fn frontend_key(&self, key: &str) -> Option<String> {
        let path = format!("{}/{key}", self.path());
        self.backend().store.read(&path).ok().and_then(|value| String::from_utf8(value).ok())
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

fn lock(backend: &Mutex<Backend>) -> MutexGuard<'_, Backend> {
    backend.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Names of the keys in the frontend's directory that tell of a connection; none when it was cleaned up.
pub fn connection_keys(bed: &Bed) -> Vec<String> {
    let path = bed.path();
    let names = bed.backend().store.list(&path).unwrap();
    names.into_iter().filter(|name| keys::is_connection_key(name)).collect()
}
