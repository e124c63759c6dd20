//! The hypervisor of a simulated world, behind a socket.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    fs, io,
    net::Shutdown,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
        unix::net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread::{self, JoinHandle},
};

use nix::{
    errno::Errno,
    sys::{
        eventfd::{EfdFlags, EventFd},
        resource::{Resource, getrlimit, setrlimit},
        socket,
    },
};

use super::{
    SimError, Xenstored, broker_socket,
    message::{Answer, Ask, LIST_MAX, Refusal, VERSION},
    packet, xenstored, xenstored_socket,
};
use crate::{
    DomId,
    fake::{ChannelId, Machine, Opened, Owner},
};

/// A simulated world's hypervisor: runs in threads of this process until it is dropped, which ends the world and removes its
/// sockets.
///
/// ```no_run
/// use xen_platform::{DomId, sim};
///
/// let dir = std::env::temp_dir().join("my-world");
/// let broker = sim::Broker::start(&dir)?;
/// let guest = sim::Toolstack::connect(&dir)?.create_domain(1024)?;
/// let frontend = sim::World::connect(&dir, guest)?;
/// let backend = sim::World::connect(&dir, DomId::DOM0)?;
/// # Ok::<(), sim::SimError>(())
/// ```
#[derive(Debug)]
pub struct Broker {
    dir: PathBuf,
    /// True when the directory is ours to remove.
    made: bool,
    listener: Arc<UnixListener>,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
    _xenstored: Xenstored,
}

#[derive(Debug)]
struct Shared {
    machine: Machine,
    /// The eventfds of every channel, first side first: each wakes that side's owner.
    channels: Mutex<BTreeMap<ChannelId, [EventFd; 2]>>,
}

/// One process that is connected.
struct Client<'a> {
    shared: &'a Shared,
    socket: &'a UnixStream,
    owner: Owner,
}

impl Broker {
    /// Starts a world in `dir`, which is made if it does not exist. Errors: [`SimError::Occupied`] when a broker runs there;
    /// sockets that a killed one left behind are replaced.
    pub fn start(dir: impl AsRef<Path>) -> Result<Self, SimError> {
        let dir = dir.as_ref();
        let made = !dir.exists();
        fs::create_dir_all(dir).map_err(failed("making the world's directory"))?;
        raise_descriptor_limit();
        let (path, store_path) = (broker_socket(dir), xenstored_socket(dir));
        clear(&path, dir)?;
        let listener = Arc::new(packet::announce(&path)?);
        let shared = Arc::new(Shared { machine: Machine::new(0), channels: Mutex::default() });
        // Whoever owns the broker's socket owns the directory.
        match fs::remove_file(&store_path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(failed("removing an old socket")(error));
            }
            _ => {}
        }
        let store_listener = UnixListener::bind(&store_path).map_err(failed("listening for XenStore"))?;
        let xenstored = xenstored::serve(store_listener, shared.machine.store().clone());
        let xenstored = xenstored.map_err(failed("starting XenStore"))?;
        let acceptor = {
            let (listener, shared) = (listener.clone(), shared.clone());
            spawn("sim-broker", move || accept(&listener, &shared))?
        };
        Ok(Self {
            dir: dir.to_owned(),
            made,
            listener,
            shared,
            acceptor: Some(acceptor),
            _xenstored: xenstored,
        })
    }

    /// The world's directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The machine behind the socket, to look into: domains, leaks. Event channels of its own
    /// [`World`](crate::fake::World)s do not reach other processes.
    pub fn machine(&self) -> &Machine {
        &self.shared.machine
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        // Errors here leave nothing to be done: the world ends anyhow.
        let _ = socket::shutdown(self.listener.as_raw_fd(), socket::Shutdown::Both);
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
        let _ = fs::remove_file(broker_socket(&self.dir));
        let _ = fs::remove_file(xenstored_socket(&self.dir));
        if self.made {
            let _ = fs::remove_dir(&self.dir);
        }
    }
}

/// Makes room for a socket at `path`. Errors: somebody listens there.
fn clear(path: &Path, dir: &Path) -> Result<(), SimError> {
    match packet::dial(path)? {
        Err(Errno::ENOENT) => Ok(()),
        Err(Errno::ECONNREFUSED) => fs::remove_file(path).map_err(failed("removing an old socket")),
        Ok(_) => Err(SimError::Occupied(dir.to_owned())),
        Err(errno) => Err(SimError::System { what: "looking for a running broker", errno }),
    }
}

/// Lets processes in until the listener is shut down, then ends all connections.
fn accept(listener: &UnixListener, shared: &Arc<Shared>) {
    let mut clients: Vec<(Arc<UnixStream>, JoinHandle<()>)> = Vec::new();
    while let Ok((socket, _)) = listener.accept() {
        clients.retain(|(_, thread)| !thread.is_finished());
        let socket = Arc::new(socket);
        let (shared, theirs) = (shared.clone(), socket.clone());
        // Without a thread for it, the connection is dropped, which the process sees.
        let work = move || {
            serve(&shared, &theirs);
            // The list below still holds the socket; its process is not to wait for what will not come.
            let _ = theirs.shutdown(Shutdown::Both);
        };
        if let Ok(thread) = spawn("sim-client", work) {
            clients.push((socket, thread));
        }
    }
    for (socket, thread) in clients {
        let _ = socket.shutdown(Shutdown::Both);
        let _ = thread.join();
    }
}

/// Answers one process until it is gone.
fn serve(shared: &Shared, socket: &UnixStream) {
    let Ok(Some(words)) = packet::receive(socket) else { return };
    let greeting = match Ask::parse(&words) {
        Some(Ask::Hello { version: VERSION, dom }) => Ok(dom),
        Some(Ask::Hello { .. }) => Err(Refusal::Version(VERSION)),
        _ => Err(Refusal::Garbled),
    };
    let dom = match greeting {
        Ok(dom) => dom,
        Err(refusal) => {
            let _ = packet::send(socket, &Answer::Refused(refusal).words(), &[]);
            return;
        }
    };
    let owner = shared.machine.lock().model.start_process(dom);
    let client = Client { shared, socket, owner };
    let mut sent = packet::send(client.socket, &Answer::Done.words(), &[]);
    while sent.is_ok() {
        let Ok(Some(words)) = packet::receive(client.socket) else { break };
        sent = match Ask::parse(&words) {
            Some(ask) => client.answer(ask),
            None => client.refuse(Refusal::Garbled),
        };
    }
    let closed = client.shared.machine.lock().end_process(owner);
    client.shared.forget(closed);
}

impl Client<'_> {
    fn answer(&self, ask: Ask) -> Result<(), Errno> {
        match self.act(ask) {
            Ok((answer, fds)) => {
                let fds: Vec<BorrowedFd<'_>> = fds.iter().map(AsFd::as_fd).collect();
                packet::send(self.socket, &answer.words(), &fds)
            }
            Err(refusal) => self.refuse(refusal),
        }
    }

    fn refuse(&self, refusal: Refusal) -> Result<(), Errno> {
        packet::send(self.socket, &Answer::Refused(refusal).words(), &[])
    }

    fn act(&self, ask: Ask) -> Result<(Answer, Vec<OwnedFd>), Refusal> {
        let Self { shared, owner, .. } = self;
        let machine = &shared.machine;
        let answer = match ask {
            Ask::Hello { .. } => return Err(Refusal::Garbled),
            Ask::CreateDomain { pages } => Answer::Domain(machine.create_domain(pages)?),
            Ask::DestroyDomain { dom } => {
                let closed = machine.lock().destroy_domain(dom)?;
                shared.forget(closed);
                Answer::Done
            }
            Ask::ListDomains { after } => {
                let rest: Vec<DomId> =
                    machine.domains().into_iter().filter(|dom| Some(*dom) > after).collect();
                let (some, more) = rest.split_at(rest.len().min(LIST_MAX));
                Answer::Domains(some.to_vec(), more.is_empty())
            }
            Ask::Guest { dom, map } => return self.guest(dom, map),
            Ask::Reserve { pages } => Answer::Pages(machine.lock().model.reserve(*owner, pages)?),
            Ask::Unreserve { pages } => {
                machine.lock().model.unreserve(*owner, pages);
                Answer::Done
            }
            Ask::AllocUnbound { remote } => {
                let opened = machine.lock().alloc_unbound(*owner, remote)?;
                return self.open(opened);
            }
            Ask::Bind { remote, port } => {
                let opened = machine.lock().bind(*owner, remote, port)?;
                let answer = self.open(opened)?;
                shared.wake(opened);
                return Ok(answer);
            }
            Ask::Close { port } => {
                let closed = machine.lock().close(*owner, port);
                shared.forget(closed);
                Answer::Done
            }
        };
        Ok((answer, Vec::new()))
    }

    fn guest(&self, dom: DomId, map: bool) -> Result<(Answer, Vec<OwnedFd>), Refusal> {
        let mut state = self.shared.machine.lock();
        let (guest, slot) =
            if map { state.model.guest_to_map(self.owner, dom)? } else { (state.model.guest(dom)?, 0) };
        drop(state);
        let fds = guest.fds().map(|fd| fd.try_clone_to_owned()).into_iter().collect::<Result<_, _>>();
        Ok((Answer::Guest { info: guest.info(), slot }, fds.map_err(io_refusal)?))
    }

    /// The answer that hands a port to its owner.
    fn open(&self, opened: Opened) -> Result<(Answer, Vec<OwnedFd>), Refusal> {
        let fds = self.shared.eventfds(opened);
        if fds.is_err() {
            // What cannot be handed out must not stay bound.
            let closed = self.shared.machine.lock().close(self.owner, opened.port);
            self.shared.forget(closed);
        }
        Ok((Answer::Port(opened.port), fds?))
    }
}

impl Shared {
    fn channels(&self) -> MutexGuard<'_, BTreeMap<ChannelId, [EventFd; 2]>> {
        self.channels.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The eventfds of a port's channel: the one that wakes its owner, then the one that wakes the other end.
    fn eventfds(&self, opened: Opened) -> Result<Vec<OwnedFd>, Refusal> {
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        let make = || EventFd::from_flags(flags).map_err(|errno| Refusal::System(errno as i32));
        let mut channels = self.channels();
        let pair = match channels.entry(opened.channel) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(room) => room.insert([make()?, make()?]),
        };
        let order = [opened.side, opened.side.other()];
        order
            .iter()
            .map(|side| pair[*side as usize].as_fd().try_clone_to_owned().map_err(io_refusal))
            .collect()
    }

    /// Makes an event pending for the owner of a port.
    fn wake(&self, opened: Opened) {
        if let Some(pair) = self.channels().get(&opened.channel) {
            // A full counter is an event that is pending already.
            let _ = pair[opened.side as usize].write(1);
        }
    }

    /// Closes the eventfds of channels that are no more.
    fn forget(&self, closed: impl IntoIterator<Item = ChannelId>) {
        let mut channels = self.channels();
        closed.into_iter().for_each(|channel| drop(channels.remove(&channel)));
    }
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, SimError> {
    thread::Builder::new().name(name.into()).spawn(work).map_err(failed("starting a thread"))
}

/// Two descriptors for every channel and two for every guest add up; the soft limit of 1024 is for programs that `select`.
fn raise_descriptor_limit() {
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE)
        && soft < hard
    {
        // If it cannot be raised, the limit is met later, with an error of its own.
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
}

fn failed(what: &'static str) -> impl FnOnce(io::Error) -> SimError {
    move |error| SimError::System { what, errno: Errno::from_raw(error.raw_os_error().unwrap_or(0)) }
}

fn io_refusal(error: io::Error) -> Refusal {
    Refusal::System(error.raw_os_error().unwrap_or(Errno::EIO as i32))
}
