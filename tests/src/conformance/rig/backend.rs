//! The scripted backend: domain 0's end of one disk, which does exactly what a clause tells it.
//!
//! ```text
//!   Backend ── connect(job) ──▶ Connection ── take, answer … ──▶ finish(connection) ──▶ Outcome
//!      │                                                                                  ▲
//!      └── Subject: the library on a thread, or the tool as a child process ──────────────┘
//! ```

mod connection;
mod job;
mod library;
mod subject;
pub mod wire;

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::OnceLock,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use blkif_proto::{Abi, keys, xenbus::State};
use xen_platform::{Change, FrontWorld as _, Store as _, StoreClient, StoreError, sim};

pub use connection::{BackQueue, Connection, Mapping};
pub use job::{Job, Outcome, Range, Work, on_disk, written};
pub use wire::Taken;

use self::subject::Subject;
use super::Processes;
use crate::world::{Binaries, Disk, GUEST_PAGES, Vbd, World, wait_until};

/// How long a frontend may take before silence counts as no answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// A backend without manners, and the frontend that it plays with.
pub struct Backend {
    // In the order in which they must end.
    subject: Option<Subject>,
    held: bool,
    /// Domain 0's connection to XenStore.
    pub store: StoreClient,
    dom0: sim::World,
    /// The simulated Xen. No daemon runs in it.
    pub xen: World,
    /// The disk's place in XenStore.
    pub vbd: Vbd,
    /// The layout that the frontend is told to speak.
    pub abi: Abi,
    processes: Processes,
    /// Keys of the disk, written before state 4.
    pub disk: Vec<(&'static str, String)>,
}

impl Backend {
    /// A fresh world with a guest, and a disk whose backend has not said anything yet.
    pub fn start(processes: Processes, abi: Abi) -> Result<Self> {
        let binaries = match processes {
            Processes::One => Binaries { blkback: PathBuf::new(), blkfront: PathBuf::new() },
            Processes::Two => built()?,
        };
        let mut xen = World::start(binaries)?;
        let guest = xen.toolstack().create_guest(GUEST_PAGES)?;
        let vbd = xen.toolstack().make_nodes(guest, &Disk::new("the conformance rig"))?;
        let dom0 = sim::World::connect(xen.dir(), xen_platform::DomId::DOM0)?;
        let store = dom0.store()?;
        let disk = [("sectors", "8192"), ("sector-size", "512"), ("info", "0")];
        let disk = disk.map(|(key, value)| (key, value.to_owned())).to_vec();
        Ok(Self { subject: None, held: false, store, dom0, xen, vbd, abi, processes, disk })
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
        self.xen.toolstack().read(&path)
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
        self.xen.toolstack().frontend_state(&self.vbd)
    }

    /// The backend's own state.
    pub fn state(&mut self) -> Result<State> {
        self.xen.toolstack().backend_state(&self.vbd)
    }

    /// Waits until the frontend shows one of `wanted`. Errors also when it ends.
    pub fn wait_frontend(&mut self, wanted: &[State]) -> Result<State> {
        let mut seen = State::Unknown;
        wait_until(&format!("the frontend to be {wanted:?}"), PATIENCE, || {
            // Looked at before the state: what it wrote last counts.
            let ended = self.subject.as_mut().is_some_and(Subject::has_ended);
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
        let deadline = Instant::now() + time;
        while Instant::now() < deadline {
            let seen = self.frontend_state()?;
            if seen != state {
                bail!("the frontend went from {state} to {seen}");
            }
            thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    /// Starts the frontend with the layout of the clause.
    pub fn launch(&mut self, mut job: Job) -> Result<()> {
        job.config.abi = self.abi;
        self.held = job.hold;
        self.subject = Some(match self.processes {
            Processes::One => Subject::library(&self.xen, &self.vbd, job)?,
            Processes::Two => Subject::tool(&self.xen, &self.vbd, &job, self.abi)?,
        });
        Ok(())
    }

    /// Waits (state 2), starts the frontend, and connects.
    pub fn connect(&mut self, job: Job) -> Result<Connection> {
        self.set_state(State::InitWait)?;
        self.launch(job)?;
        self.accept()
    }

    /// Connects a frontend as it comes.
    pub fn accept(&mut self) -> Result<Connection> {
        let connection = self.join()?;
        self.publish_disk()?;
        self.set_state(State::Connected)?;
        // One with nothing to do may be on its way out already.
        self.wait_frontend(&[State::Connected, State::Closing, State::Closed])?;
        Ok(connection)
    }

    /// Waits for the frontend's rings and maps them.
    pub fn join(&mut self) -> Result<Connection> {
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
        wait_until(&format!("the frontend to note {note:?}"), PATIENCE, || {
            Ok(self.has_noted(note)?.then_some(()))
        })
    }

    /// True when the frontend has seen something, see [`wait_note`](Self::wait_note).
    pub fn has_noted(&self, note: &str) -> Result<bool> {
        Ok(self.notes()?.iter().any(|seen| seen.starts_with(note)))
    }

    /// All that the frontend has seen.
    pub fn notes(&self) -> Result<Vec<String>> {
        self.subject.as_ref().context("no frontend runs")?.notes()
    }

    /// Serves and closes as an orderly backend does, until the frontend has ended.
    pub fn finish(&mut self, connection: Connection) -> Result<Outcome> {
        self.release();
        self.follow(Some(connection), true)
    }

    /// Serves nothing any more, but closes in order, until the frontend has ended. `connection` stays mapped as long as an
    /// orderly backend would keep it.
    pub fn end(&mut self, connection: impl Into<Option<Connection>>) -> Result<Outcome> {
        self.release();
        self.follow(connection.into(), false)
    }

    /// Waits for the frontend to end, and does nothing else.
    pub fn outcome(&mut self) -> Result<Outcome> {
        let mut subject = self.subject.take().context("no frontend runs")?;
        wait_until("the frontend to end", 2 * PATIENCE, || Ok(subject.has_ended().then_some(())))?;
        subject.outcome()
    }

    fn follow(&mut self, mut connection: Option<Connection>, serves: bool) -> Result<Outcome> {
        let (deadline, mut own) = (Instant::now() + 2 * PATIENCE, self.state()?);
        while !self.subject.as_mut().is_none_or(Subject::has_ended) {
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
            thread::sleep(Duration::from_micros(200));
        }
        drop(connection);
        self.outcome()
    }

    /// True when the node exists.
    pub fn exists(&mut self, path: &str) -> Result<bool> {
        match self.store.read(path) {
            Ok(_) => Ok(true),
            Err(StoreError::NoEntry(_)) => Ok(false),
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
