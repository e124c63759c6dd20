//! The scripted frontend: a guest that does exactly what a clause tells it.

use std::{path::Path, time::Duration};

use anyhow::{Context as _, Result, bail};
use blkif_proto::{
    Abi,
    keys::{self, BackendDisk, BackendFeatures, FrontendRecord, QueueRecord, RequestMaxima},
    segment_block,
    xenbus::State,
};
use xen_platform::{
    Access, Change, DomId, EventChannels as _, FrontWorld, Lender as _, Store as _, StoreError, sim,
};

use super::{Connection, RawQueue, Wish, patience};
use crate::world::{Vbd, wait_until};

/// A guest with one disk.
pub struct Guest<W: FrontWorld> {
    /// The guest's view of the world.
    pub world: W,
    /// The guest's own connection to XenStore.
    pub store: W::Store,
    /// The disk's place in XenStore.
    pub vbd: Vbd,
    /// The layout to speak.
    pub abi: Abi,
}

impl Guest<sim::World> {
    /// The guest of this disk, in the simulated world at `dir`.
    pub fn of(dir: &Path, vbd: Vbd, abi: Abi) -> Result<Self> {
        let world = sim::World::connect(dir, vbd.guest)?;
        let store = world.store()?;
        Ok(Self { world, store, vbd, abi })
    }
}

impl<W: FrontWorld> Guest<W> {
    /// What the backend offers now.
    pub fn offers(&mut self) -> Result<BackendFeatures> {
        let dir = self.vbd.backend.clone();
        Ok(BackendFeatures::parse(|key| self.read(&format!("{dir}/{key}")).ok().flatten())?)
    }

    /// What the backend says of the disk now.
    pub fn disk(&mut self) -> Result<BackendDisk> {
        let dir = self.vbd.backend.clone();
        Ok(BackendDisk::parse(|key| self.read(&format!("{dir}/{key}")).ok().flatten())?)
    }

    /// A node of the backend's directory.
    pub fn backend_key(&mut self, key: &str) -> Result<Option<String>> {
        self.read(&format!("{}/{key}", self.vbd.backend))
    }

    /// A node's value; `None` when there is none.
    pub fn read(&mut self, path: &str) -> Result<Option<String>> {
        match self.store.read(path) {
            Ok(value) => Ok(Some(String::from_utf8(value)?)),
            Err(StoreError::NoEntry(_)) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Writes a node of the frontend's directory.
    pub fn write(&mut self, key: &str, value: &str) -> Result<()> {
        self.change(&[(key, Some(value))])
    }

    /// Writes (`Some`) and removes (`None`) nodes of the frontend's directory in one transaction.
    pub fn change(&mut self, changes: &[(&str, Option<&str>)]) -> Result<()> {
        let paths: Vec<String> =
            changes.iter().map(|(key, _)| format!("{}/{key}", self.vbd.frontend)).collect();
        let mut steps = Vec::new();
        for (path, (_, value)) in paths.iter().zip(changes) {
            steps.push(value.map_or(Change::Remove(path), |value| Change::Write(path, value)));
        }
        Ok(self.store.apply(&steps)?)
    }

    /// Announces a state.
    pub fn set_state(&mut self, state: State) -> Result<()> {
        self.write(keys::STATE, state.as_str())
    }

    /// The backend's state.
    pub fn backend_state(&mut self) -> Result<State> {
        Ok(State::of_node(self.backend_key(keys::STATE)?))
    }

    /// Waits until the backend shows `wanted`.
    pub fn wait_backend(&mut self, wanted: State) -> Result<()> {
        let mut seen = State::Unknown;
        wait_until(&format!("the backend to be {wanted}"), patience(), || {
            seen = self.backend_state()?;
            Ok((seen == wanted).then_some(()))
        })
        .with_context(|| {
            let text = self.backend_key(keys::ERROR).ok().flatten();
            format!("it is {seen}{}", text.map_or(String::new(), |text| format!(" and says: {text}")))
        })
    }

    /// Errors when the backend leaves `state` within `time`.
    pub fn stays(&mut self, state: State, time: Duration) -> Result<()> {
        let mut left = None;
        let outcome = wait_until("a change", time, || {
            left = Some(self.backend_state()?).filter(|seen| *seen != state);
            Ok(left.map(|_| ()))
        });
        match (outcome, left) {
            (Ok(()), Some(seen)) => bail!("the backend went from {state} to {seen}"),
            _ => Ok(()),
        }
    }

    /// Waits for the backend to close for an error whose text names `word`.
    pub fn refused_for(&mut self, word: &str) -> Result<()> {
        self.wait_backend(State::Closing)?;
        match self.backend_key(keys::ERROR)? {
            Some(text) if text.contains(word) => Ok(()),
            Some(text) => bail!("the error does not name {word}: {text}"),
            None => bail!("the backend closed and left no error that names {word}"),
        }
    }

    /// Connects: publishes rings, waits for the backend, announces Connected.
    pub fn connect(&mut self, wish: &Wish) -> Result<Connection<W>> {
        self.wait_backend(State::InitWait)?;
        let connection = self.publish(wish)?;
        self.wait_backend(State::Connected)?;
        self.set_state(State::Connected)?;
        Ok(connection)
    }

    /// Publishes rings and the wish's state, and waits for nothing.
    pub fn publish(&mut self, wish: &Wish) -> Result<Connection<W>> {
        let mut lender = self.world.lender(DomId::DOM0)?;
        let mut queues = Vec::new();
        let mut records = Vec::new();
        for _ in 0..wish.queues {
            let mut events = self.world.events()?;
            let port = events.alloc_unbound(DomId::DOM0)?;
            let mut pages = lender.alloc(wish.ring_pages as usize)?;
            lender.lend(&mut pages, Access::ReadWrite)?;
            records.push(QueueRecord { ring_refs: pages.grants().to_vec(), event_channel: port.0 });
            queues.push(RawQueue::new(pages, self.abi.entry_size(), events, port, wish.start)?);
        }
        let record = FrontendRecord {
            abi: self.abi,
            dialect: wish.dialect,
            queues: records,
            persistent: wish.persistent,
            request_maxima: if wish.blocks { Some(self.maxima()?) } else { None },
        };
        self.write_record(&record, wish)?;
        Ok(Connection::new(queues, lender, self.abi, wish))
    }

    /// Closes as an orderly driver does.
    pub fn close(&mut self) -> Result<()> {
        self.set_state(State::Closing)?;
        self.wait_backend(State::Closing)?;
        self.set_state(State::Closed)?;
        self.wait_backend(State::Closed)
    }

    /// Begins anew after a close, or whatever else has happened: 6, then 1.
    pub fn restart(&mut self) -> Result<()> {
        self.set_state(State::Closed)?;
        self.wait_backend(State::Closed)?;
        self.set_state(State::Initialising)?;
        self.wait_backend(State::InitWait)
    }

    /// What the extension allows here.
    fn maxima(&mut self) -> Result<RequestMaxima> {
        let offered = self.offers()?.request_maxima.context("the backend does not offer segment blocks")?;
        let most = u16::try_from(segment_block::max_segments(self.abi))?;
        Ok(RequestMaxima { segments: offered.segments.min(most), ..offered })
    }

    fn write_record(&mut self, record: &FrontendRecord, wish: &Wish) -> Result<()> {
        let present = self.store.list(&self.vbd.frontend)?;
        let stale: Vec<String> =
            record.stale(present.iter().map(String::as_str)).into_iter().map(String::from).collect();
        let mut nodes = Vec::new();
        record.emit(|key, value| nodes.push((key.to_owned(), value.to_owned())));
        for (key, value) in &wish.edits {
            nodes.retain(|(known, _)| known != key);
            nodes.extend(value.clone().map(|value| (key.clone(), value)));
        }
        let left_out = wish.edits.iter().filter(|(_, value)| value.is_none()).map(|(key, _)| key);
        let removed = stale.iter().chain(left_out).map(|key| (key.as_str(), None));
        let written = nodes.iter().map(|(key, value)| (key.as_str(), Some(value.as_str())));
        let state = (keys::STATE, Some(wish.state.as_str()));
        self.change(&removed.chain(written).chain([state]).collect::<Vec<_>>())
    }
}
