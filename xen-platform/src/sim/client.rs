//! A process's line to the broker, and its view of the world.

use std::{
    collections::BTreeMap,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, OnceLock, PoisonError, Weak},
};

use nix::errno::Errno;

use super::{
    Events, SimError, broker_socket,
    message::{Answer, Ask, Refusal, VERSION},
    packet, xenstored_socket,
};
use crate::{
    BackWorld, DomId, EventError, FrontWorld, GrantError, StoreClient, StoreError,
    clock::SystemClock,
    fake::{Guest, Hypervisor, Lender, Mapper, Run},
};

/// What a process in one domain sees of a simulated world. Cloning gives another handle of the same process. When the last
/// handle is dropped, or the process dies in any way, the broker takes back what it had.
#[derive(Clone, Debug)]
pub struct World {
    connection: Arc<Connection>,
    clock: SystemClock,
}

/// One process's connection to the broker.
#[derive(Debug)]
pub(super) struct Connection {
    dir: PathBuf,
    dom: DomId,
    socket: Mutex<OwnedFd>,
    /// Domains that something in this process uses, so that each is mapped once.
    guests: Mutex<BTreeMap<DomId, Weak<Guest>>>,
    /// Under which number this process counts its mappings; the broker decides it with the first guest.
    slot: OnceLock<u32>,
}

/// An answer that is not a refusal, and the descriptors beside it.
type Reply = (Answer, Vec<OwnedFd>);

impl World {
    /// Joins the world in `dir` as a process of domain `dom`. Errors: what is missing there; [`SimError::Version`].
    pub fn connect(dir: impl AsRef<Path>, dom: DomId) -> Result<Self, SimError> {
        Ok(Self { connection: Arc::new(Connection::new(dir.as_ref(), dom)?), clock: SystemClock::default() })
    }

    /// The domain this process is in.
    pub fn dom(&self) -> DomId {
        self.connection.dom
    }

    /// The world's directory.
    pub fn dir(&self) -> &Path {
        &self.connection.dir
    }
}

impl Connection {
    pub(super) fn new(dir: &Path, dom: DomId) -> Result<Self, SimError> {
        let socket = match packet::dial(&broker_socket(dir))? {
            Ok(socket) => socket,
            Err(_) if !dir.is_dir() => return Err(SimError::NoDirectory(dir.to_owned())),
            Err(Errno::ENOENT | Errno::ECONNREFUSED) => return Err(SimError::NoBroker(dir.to_owned())),
            Err(errno) => return Err(SimError::System { what: "connect to the broker", errno }),
        };
        let connection = Self {
            dir: dir.to_owned(),
            dom,
            socket: Mutex::new(socket),
            guests: Mutex::default(),
            slot: OnceLock::new(),
        };
        match connection.call(Ask::Hello { version: VERSION, dom }) {
            Ok((Answer::Done, _)) => Ok(connection),
            Ok(_) => Err(SimError::Garbled),
            Err(refusal) => Err(refusal.into()),
        }
    }

    /// Asks and waits for the answer.
    pub(super) fn call(&self, ask: Ask) -> Result<Reply, Refusal> {
        let failed = |errno: Errno| Refusal::System(errno as i32);
        let socket = self.socket.lock().unwrap_or_else(PoisonError::into_inner);
        packet::send(&*socket, &ask.words(), &[]).map_err(failed)?;
        let (words, fds) =
            packet::receive_with_fds(&*socket).map_err(failed)?.ok_or(failed(Errno::ECONNRESET))?;
        match Answer::parse(&words) {
            Some(Answer::Refused(refusal)) => Err(refusal),
            Some(answer) => Ok((answer, fds)),
            None => Err(Refusal::Garbled),
        }
    }

    /// A domain's memory and table, mapped once for all of this process.
    fn open(&self, dom: DomId, map: bool) -> Result<Arc<Guest>, GrantError> {
        let mut guests = self.guests.lock().unwrap_or_else(PoisonError::into_inner);
        guests.retain(|_, guest| guest.strong_count() > 0);
        let known = guests.get(&dom).and_then(Weak::upgrade).filter(|guest| guest.table().is_alive());
        // Also a known domain is asked for before it is mapped: the broker must tell its lenders of our slot.
        if let Some(known) = known.as_ref().filter(|_| !map) {
            return Ok(known.clone());
        }
        let (Answer::Guest { info, slot }, fds) = self.call(Ask::Guest { dom, map })? else {
            return Err(Refusal::Garbled.into());
        };
        if map {
            self.slot.get_or_init(|| slot);
        }
        if let Some(known) = known.filter(|known| known.info() == info) {
            return Ok(known);
        }
        let [table, memory] = <[OwnedFd; 2]>::try_from(fds).map_err(|_| Refusal::Garbled)?;
        let guest = Arc::new(Guest::attach(info, table, memory)?);
        guests.insert(dom, Arc::downgrade(&guest));
        Ok(guest)
    }
}

impl Hypervisor for Connection {
    fn dom(&self) -> DomId {
        self.dom
    }

    fn guest(&self, dom: DomId) -> Result<Arc<Guest>, GrantError> {
        self.open(dom, false)
    }

    fn guest_to_map(&self, dom: DomId) -> Result<(Arc<Guest>, u32), GrantError> {
        let guest = self.open(dom, true)?;
        let slot = self.slot.get().copied().ok_or(GrantError::Exhausted)?;
        Ok((guest, slot))
    }

    fn reserve(&self, pages: u32) -> Result<Run, GrantError> {
        match self.call(Ask::Reserve { pages })? {
            (Answer::Pages(run), _) => Ok(run),
            _ => Err(Refusal::Garbled.into()),
        }
    }

    fn unreserve(&self, pages: Run) {
        // Without a broker there is nobody to give them back to.
        let _ = self.call(Ask::Unreserve { pages });
    }

    fn is_crashed(&self) -> bool {
        false
    }

    fn refuses(&self, _from: DomId) -> bool {
        false
    }
}

impl FrontWorld for World {
    type Lender = Lender;
    type Events = Events;
    type Store = StoreClient;
    type Clock = SystemClock;

    fn lender(&self, to: DomId) -> Result<Lender, GrantError> {
        Lender::new(self.connection.clone(), to)
    }

    fn events(&self) -> Result<Events, EventError> {
        Events::new(self.connection.clone())
    }

    fn store(&self) -> Result<StoreClient, StoreError> {
        StoreClient::connect_as(xenstored_socket(&self.connection.dir), self.connection.dom)
    }

    fn clock(&self) -> SystemClock {
        self.clock
    }
}

impl BackWorld for World {
    type Mapper = Mapper;
    type Events = Events;
    type Time = SystemClock;

    fn mapper(&self) -> Result<Mapper, GrantError> {
        Ok(Mapper::new(self.connection.clone()))
    }

    fn events(&self) -> Result<Events, EventError> {
        Events::new(self.connection.clone())
    }

    fn time(&self) -> SystemClock {
        self.clock
    }
}
