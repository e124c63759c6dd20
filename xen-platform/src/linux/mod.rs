//! Real Xen, by way of Linux: one file for each device node.
//!
//! | file | node | what it gives |
//! |---|---|---|
//! | `gntdev` | `/dev/xen/gntdev` | [`Mapper`]: pages of other domains, mapped and copied |
//! | `gntalloc` | `/dev/xen/gntalloc` | [`Lender`]: pages for another domain |
//! | `evtchn` | `/dev/xen/evtchn` | [`Events`]: event channels |
//! | `xenbus` | xenstored's socket, else `/dev/xen/xenbus` | [`StoreClient`] |
//!
//! `uapi` has the numbers and layouts of the ioctls, `span` the memory that a node gives out. A backend runs in domain 0 or a
//! driver domain, a frontend in any guest.

mod evtchn;
mod gntalloc;
mod gntdev;
mod span;
mod uapi;
mod xenbus;

use std::{
    fs::File,
    io,
    os::{fd::OwnedFd, unix::fs::OpenOptionsExt as _},
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use nix::{errno::Errno, libc};

pub use evtchn::Events;
pub use gntalloc::Lender;
pub use gntdev::{Mapper, Mapping, RingPages};
pub use uapi::{BACKEND_IOCTLS, OnUnmap, layout};

use crate::{
    BackWorld, DomId, EventError, FrontWorld, GrantError, StoreClient, StoreError, clock::SystemClock,
};

/// The Xen that this Linux runs on.
#[derive(Clone, Debug)]
pub struct World {
    clock: SystemClock,
    kept: Arc<Mutex<Vec<Nodes>>>,
}

/// What a backend's thread needs, open.
#[derive(Debug, Default)]
struct Nodes {
    gntdev: Option<OwnedFd>,
    evtchn: Option<OwnedFd>,
}

/// Why this Xen cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Linux does not run on Xen, or has no drivers for it.
    #[error("this system does not run on Xen: there is no /dev/xen")]
    NoXen,
    /// A device node cannot be opened.
    #[error("cannot open {node}: {cause}{}", hint(cause, module))]
    Node {
        /// Its path.
        node: &'static str,
        /// The kernel module that makes it.
        module: &'static str,
        /// Why not.
        cause: io::Error,
    },
}

fn hint(error: &io::Error, module: &str) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => format!(" (is the kernel module {module} loaded?)"),
        io::ErrorKind::PermissionDenied => " (this takes root)".into(),
        _ => String::new(),
    }
}

impl World {
    /// For a backend. Errors: one of the nodes that it needs cannot be opened.
    pub fn for_backend() -> Result<Self, OpenError> {
        Self::with(&[gntdev::NODE, evtchn::NODE])
    }

    /// For a frontend. Errors: as [`for_backend`](Self::for_backend).
    pub fn for_frontend() -> Result<Self, OpenError> {
        Self::with(&[gntalloc::NODE, evtchn::NODE])
    }

    fn with(nodes: &[Node]) -> Result<Self, OpenError> {
        if !Path::new("/dev/xen").exists() {
            return Err(OpenError::NoXen);
        }
        for &Node { path: node, module } in nodes {
            open(node).map_err(|cause| OpenError::Node { node, module, cause })?;
        }
        Ok(Self { clock: SystemClock::default(), kept: Arc::default() })
    }

    /// Opens for so many threads of a backend what they need, for a process that may not do so later. Errors: as
    /// [`for_backend`](Self::for_backend).
    pub fn open_for(&self, threads: usize) -> Result<(), OpenError> {
        for _ in 0..threads {
            let [gntdev, evtchn] = [gntdev::NODE, evtchn::NODE].map(|Node { path: node, module }| {
                open(node).map_err(|cause| OpenError::Node { node, module, cause })
            });
            self.kept().push(Nodes { gntdev: Some(gntdev?), evtchn: Some(evtchn?) });
        }
        Ok(())
    }

    /// One of the nodes that were opened before.
    fn take(&self, which: impl Fn(&mut Nodes) -> &mut Option<OwnedFd>) -> Option<OwnedFd> {
        self.kept().iter_mut().find_map(|nodes| which(nodes).take())
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, Vec<Nodes>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The number of the domain we are in. Errors: XenStore cannot be asked.
    pub fn own_domain() -> Result<DomId, StoreError> {
        xenbus::own_domain()
    }
}

impl BackWorld for World {
    type Mapper = Mapper;
    type Events = Events;
    type Time = SystemClock;

    fn mapper(&self) -> Result<Mapper, GrantError> {
        self.take(|nodes| &mut nodes.gntdev).map_or_else(Mapper::open, |node| Ok(Mapper::over(node)))
    }

    fn events(&self) -> Result<Events, EventError> {
        self.take(|nodes| &mut nodes.evtchn).map_or_else(Events::open, |node| Ok(Events::over(node)))
    }

    fn time(&self) -> SystemClock {
        self.clock
    }
}

impl FrontWorld for World {
    type Lender = Lender;
    type Events = Events;
    type Store = StoreClient;
    type Clock = SystemClock;

    fn lender(&self, to: DomId) -> Result<Lender, GrantError> {
        Lender::open(to)
    }

    fn events(&self) -> Result<Events, EventError> {
        Events::open()
    }

    fn store(&self) -> Result<StoreClient, StoreError> {
        xenbus::connect()
    }

    fn clock(&self) -> SystemClock {
        self.clock
    }
}

/// A device node.
#[derive(Clone, Copy, Debug)]
struct Node {
    path: &'static str,
    module: &'static str,
}

fn open(path: &str) -> io::Result<OwnedFd> {
    let file = File::options().read(true).write(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    Ok(file.into())
}

/// A node that was there when the world was opened and is not now.
fn errno(error: &io::Error) -> Errno {
    Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO))
}
