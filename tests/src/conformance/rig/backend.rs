//! The scripted backend: domain 0's end of one disk, which does exactly what a clause tells it.
//!
//! ```text
//!   Backend ── connect(job) ──▶ Connection ── take, answer … ──▶ finish(connection) ──▶ Outcome
//!      │                                                                                  ▲
//!      └── Subject: the library on a thread, the tool as a child process, a guest's kernel ─┘
//! ```

mod connection;
mod job;
mod library;
pub mod stock;
mod subject;
pub mod wire;
mod work;

use std::{
    collections::BTreeMap,
    sync::OnceLock,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use blkif_proto::{Abi, keys, xenbus::State};
use xen_platform::{
    BackWorld, Change, DomId, FrontWorld as _, Store as _, StoreClient, StoreError, linux, sim,
};

pub use connection::{BackQueue, Connection, Mapping};
pub use job::{Job, Outcome};
pub use wire::Taken;
pub use work::{Range, Work, digest, on_disk, written};

use self::subject::Subject;
use super::{Processes, slowed};
use crate::world::{Binaries, Disk, GUEST_PAGES, Vbd, World, toolstack, wait_until};

/// How long a frontend may take before silence counts as no answer. It is more than a backend does for an answer: it starts.
fn patience() -> Duration {
    2 * super::patience()
}

/// A backend without manners, and the frontend that it plays with.
pub struct Backend<W: BackWorld> {
    // In the order in which they must end.
    subject: Option<Subject>,
    held: bool,
    /// Domain 0's connection to XenStore.
    pub store: StoreClient,
    dom0: W,
    host: Host,
    /// The disk's place in XenStore.
    pub vbd: Vbd,
    /// The layout that the frontend is told to speak.
    pub abi: Abi,
    /// Keys of the disk, written before state 4.
    pub disk: Vec<(&'static str, String)>,
}

/// Where the frontends under test are.
enum Host {
    /// Ours, in a simulated Xen, in which no daemon runs.
    Simulated(Box<World>, Processes),
    /// A Linux kernel's own, in a guest of real Xen.
    Stock(stock::Guest),
}

impl Backend<sim::World> {
    /// A fresh world with a guest, and a disk whose backend has not said anything yet.
    pub fn start(processes: Processes, abi: Abi) -> Result<Self> {
        let binaries = match processes {
            Processes::One => Binaries::default(),
            Processes::Two => built()?,
        };
        let mut xen = World::start(binaries)?;
        let guest = xen.toolstack().create_guest(GUEST_PAGES)?;
        let vbd = xen.toolstack().make_nodes(guest, &Disk::new(TARGET))?;
        let dom0 = sim::World::connect(xen.dir(), DomId::DOM0)?;
        let store = dom0.store()?;
        Ok(Self::new(store, dom0, Host::Simulated(Box::new(xen), processes), vbd, abi))
    }
}

impl Backend<linux::World> {
    /// A disk of a guest on real Xen, with the guest's own driver, and a backend that has not said anything yet.
    pub fn attach(guest: stock::Guest) -> Result<Self> {
        let dom0 = linux::World::for_backend()?;
        let mut store = dom0.store()?;
        let vbd = guest.make_disk(&mut store)?;
        Ok(Self::new(store, dom0, Host::Stock(guest), vbd, Abi::X86_64))
    }

    /// Takes the disk away. Errors: the guest does not let go of it, as what was done to it is not over; it is better left there,
    /// or the guest's XenStore driver waits for it and for nothing else.
    pub fn detach(mut self) -> Result<()> {
        if self.subject.is_some() {
            let attached = [State::Initialised, State::Connected].contains(&self.frontend_state()?);
            // What it wrote may make no sense.
            let connection = if attached { self.join().ok() } else { None };
            self.finish(connection)?;
        }
        match self.frontend_state()? {
            State::Unknown | State::Initialising | State::Closed => {
                toolstack::delete_nodes(&mut self.store, &self.vbd)
            }
            state => bail!("the frontend is {state}"),
        }
    }

    /// What the guest's kernel said last of its disks, for messages.
    pub fn last_words(&mut self) -> String {
        match &mut self.host {
            Host::Stock(guest) => guest.last_words(),
            Host::Simulated(..) => String::new(),
        }
    }
}

const TARGET: &str = "the conformance rig";

impl<W: BackWorld> Backend<W> {
    fn new(store: StoreClient, dom0: W, host: Host, vbd: Vbd, abi: Abi) -> Self {
        let disk = [("sectors", "8192"), ("sector-size", "512"), ("info", "0")];
        let disk = disk.map(|(key, value)| (key, value.to_owned())).to_vec();
        Self { subject: None, held: false, store, dom0, host, vbd, abi, disk }
    }

    /// The simulated Xen. Errors: it is a real one.
    pub fn simulated(&self) -> Result<&World> {
        match &self.host {
            Host::Simulated(xen, _) => Ok(xen),
            Host::Stock(_) => bail!("real Xen does not tell"),
        }
    }

    /// What the frontend puts into the field `handle` of its requests, which means nothing: Linux the disk's number, ours nothing.
    pub fn handle(&self) -> u16 {
        match &self.host {
            Host::Simulated(..) => 0,
            Host::Stock(_) => (self.vbd.number & 0xFFFF) as u16,
        }
    }

    /// Writes keys of the backend's directory: features, usually.
    pub fn offer(&mut self, features: &[(&str, &str)]) -> Result<()> {
        features.iter().try_for_each(|(key, value)| self.write(key, value))
    }

    /// Writes one key of the backend's directory.
    pub fn write(&mut self, key: &str, value: &str) -> Result<()> {
        let path = format!("{}/{key}", self.vbd.backend);
        Ok(self.store.apply(&[Change::Write(&path, value)])?)
    }

    /// Removes one key of the backend's directory.
    pub fn remove(&mut self, key: &str) -> Result<()> {
        let path = format!("{}/{key}", self.vbd.backend);
        Ok(self.store.apply(&[Change::Remove(&path)])?)
    }

    /// Changes a key that the disk has, before it is connected.
    pub fn disk_key(&mut self, key: &'static str, value: &str) {
        self.disk.retain(|(other, _)| *other != key);
        self.disk.push((key, value.to_owned()));
    }

    /// Announces a state.
    pub fn set_state(&mut self, state: State) -> Result<()> {
        self.write(keys::STATE, state.as_str())
    }

    /// A node of the frontend's directory.
    pub fn frontend_key(&mut self, key: &str) -> Result<Option<String>> {
        let path = format!("{}/{key}", self.vbd.frontend);
        self.read(&path)
    }

    /// Writes a node of the frontend's directory: an earlier driver's, or the toolstack's.
    pub fn write_frontend(&mut self, key: &str, value: &str) -> Result<()> {
        let path = format!("{}/{key}", self.vbd.frontend);
        Ok(self.store.apply(&[Change::Write(&path, value)])?)
    }

    /// Everything in the frontend's directory, by relative path.
    pub fn frontend_keys(&mut self) -> Result<BTreeMap<String, String>> {
        let (mut found, mut folders) = (BTreeMap::new(), vec![String::new()]);
        while let Some(folder) = folders.pop() {
            let path = format!("{}/{folder}", self.vbd.frontend);
            for name in self.store.list(path.trim_end_matches('/'))? {
                let key = format!("{folder}{name}");
                let value = match self.frontend_key(&key)? {
                    Some(value) => value,
                    None => continue,
                };
                folders.push(format!("{key}/"));
                found.insert(key, value);
            }
        }
        Ok(found)
    }

    /// The frontend's state.
    pub fn frontend_state(&mut self) -> Result<State> {
        Ok(State::of_node(self.frontend_key(keys::STATE)?))
    }

    /// The backend's own state.
    pub fn state(&mut self) -> Result<State> {
        let path = format!("{}/{}", self.vbd.backend, keys::STATE);
        Ok(State::of_node(self.read(&path)?))
    }

    /// Waits until the frontend shows one of `wanted`. Errors also when it ends.
    pub fn wait_frontend(&mut self, wanted: &[State]) -> Result<State> {
        let mut seen = State::Unknown;
        wait_until(&format!("the frontend to be {wanted:?}"), patience(), || {
            // Looked at before the state: what it wrote last counts.
            let ended = self.subject.as_mut().map_or(Ok(false), Subject::has_ended)?;
            seen = self.frontend_state()?;
            if wanted.contains(&seen) {
                return Ok(Some(seen));
            }
            if ended {
                bail!("the frontend has ended: {:?}", self.outcome()?.error);
            }
            Ok(None)
        })
        .with_context(|| format!("it is {seen}"))
    }

    /// Errors when the frontend leaves `state` within `time`.
    pub fn frontend_stays(&mut self, state: State, time: Duration) -> Result<()> {
        let deadline = Instant::now() + slowed(time);
        while Instant::now() < deadline {
            let seen = self.frontend_state()?;
            if seen != state {
                bail!("the frontend went from {state} to {seen}");
            }
            thread::sleep(slowed(Duration::from_millis(1)));
        }
        Ok(())
    }

    /// Starts the frontend with the layout of the clause.
    pub fn launch(&mut self, mut job: Job) -> Result<()> {
        job.config.abi = self.abi;
        self.held = job.hold;
        self.subject = Some(match &mut self.host {
            Host::Simulated(xen, Processes::One) => Subject::library(xen, &self.vbd, job)?,
            Host::Simulated(xen, Processes::Two) => Subject::tool(xen, &self.vbd, &job, self.abi)?,
            Host::Stock(guest) => Subject::Stock(Box::new(guest.launch(&mut self.store, &self.vbd, job)?)),
        });
        Ok(())
    }

    /// Waits (state 2), starts the frontend, and connects.
    pub fn connect(&mut self, job: Job) -> Result<Connection<W>> {
        self.set_state(State::InitWait)?;
        self.launch(job)?;
        self.accept()
    }

    /// Connects a frontend as it comes.
    pub fn accept(&mut self) -> Result<Connection<W>> {
        let mut connection = self.join()?;
        self.open(&mut connection)?;
        Ok(connection)
    }

    /// Shows the disk to a frontend whose rings are mapped.
    pub fn open(&mut self, connection: &mut Connection<W>) -> Result<()> {
        self.publish_disk()?;
        self.set_state(State::Connected)?;
        // One with nothing to do may be on its way out already.
        self.wait_frontend(&[State::Connected, State::Closing, State::Closed])?;
        let Some(Subject::Stock(driver)) = &mut self.subject else { return Ok(()) };
        wait_until("the guest to have looked at the disk", patience(), || {
            connection.serve_now()?;
            Ok(driver.is_ready()?.then_some(()))
        })?;
        connection.begin();
        driver.begin()
    }

    /// Waits for the frontend's rings and maps them.
    pub fn join(&mut self) -> Result<Connection<W>> {
        self.wait_frontend(&[State::Initialised, State::Connected])?;
        let keys = self.frontend_keys()?;
        Connection::join(&self.dom0, self.vbd.guest, keys, self.abi)
    }

    /// Writes the keys of the disk.
    pub fn publish_disk(&mut self) -> Result<()> {
        self.disk.clone().iter().try_for_each(|(key, value)| self.write(key, value))
    }

    /// Gives a frontend that holds more work.
    pub fn order(&mut self, work: Work) -> Result<()> {
        self.subject.as_mut().context("no frontend runs")?.order(work)
    }

    /// Lets a frontend that holds close.
    pub fn release(&mut self) {
        if let Some(subject) = &mut self.subject {
            subject.release(self.held);
        }
    }

    /// Waits until the frontend has seen something: `done 3`, `Closing`, `Resized(…)`, `Lost`, `Reconnected(…)`.
    pub fn wait_note(&mut self, note: &str) -> Result<()> {
        wait_until(&format!("the frontend to note {note:?}"), patience(), || {
            Ok(self.has_noted(note)?.then_some(()))
        })
    }

    /// True when the frontend has seen something, see [`wait_note`](Self::wait_note).
    pub fn has_noted(&mut self, note: &str) -> Result<bool> {
        Ok(self.notes()?.iter().any(|seen| seen.starts_with(note)))
    }

    /// All that the frontend has seen.
    pub fn notes(&mut self) -> Result<Vec<String>> {
        self.subject.as_mut().context("no frontend runs")?.notes()
    }

    /// Serves and closes as an orderly backend does, until the frontend has ended.
    pub fn finish(&mut self, connection: impl Into<Option<Connection<W>>>) -> Result<Outcome> {
        self.release();
        self.follow(connection.into(), true)
    }

    /// Serves nothing any more, but closes in order, until the frontend has ended. `connection` stays mapped as long as an
    /// orderly backend would keep it.
    pub fn end(&mut self, connection: impl Into<Option<Connection<W>>>) -> Result<Outcome> {
        self.release();
        self.follow(connection.into(), false)
    }

    /// Waits for the frontend to end, and does nothing else.
    pub fn outcome(&mut self) -> Result<Outcome> {
        let subject = self.subject.as_mut().context("no frontend runs")?;
        wait_until("the frontend to end", 2 * patience(), || Ok(subject.has_ended()?.then_some(())))?;
        let outcome = subject.outcome();
        self.subject = None;
        outcome
    }

    fn follow(&mut self, mut connection: Option<Connection<W>>, serves: bool) -> Result<Outcome> {
        let (deadline, mut own) = (Instant::now() + 2 * patience(), self.state()?);
        while !self.subject.as_mut().map_or(Ok(true), Subject::has_ended)? {
            if let Some(connection) = connection.as_mut().filter(|_| serves) {
                connection.serve_now()?;
            }
            let next = match self.frontend_state()? {
                State::Closing if own != State::Closed => State::Closing,
                State::Closed => {
                    connection = None;
                    State::Closed
                }
                _ => own,
            };
            if next != own {
                own = next;
                self.set_state(own)?;
            }
            if Instant::now() > deadline {
                bail!("the frontend does not end");
            }
            thread::sleep(slowed(Duration::from_micros(200)));
        }
        drop(connection);
        self.outcome()
    }

    /// True when the node exists.
    pub fn exists(&mut self, path: &str) -> Result<bool> {
        Ok(self.read(path)?.is_some())
    }

    fn read(&mut self, path: &str) -> Result<Option<String>> {
        match self.store.read(path) {
            Ok(value) => Ok(Some(String::from_utf8(value).with_context(|| format!("{path} is not UTF-8"))?)),
            Err(StoreError::NoEntry(_)) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

/// The tool, built once for all clauses of this process.
fn built() -> Result<Binaries> {
    static BUILT: OnceLock<Result<Binaries, String>> = OnceLock::new();
    let built = BUILT.get_or_init(|| Binaries::build().map_err(|error| format!("{error:#}")));
    built.clone().map_err(anyhow::Error::msg)
}
