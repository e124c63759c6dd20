//! The shell around the [handshake](crate::connect): one device's control side in XenStore.

use alloc::{format, string::String, sync::Arc, vec::Vec};
use core::{sync::atomic::Ordering, time::Duration};

use blkif_proto::{
    Agreement, Limits,
    keys::{self, BackendDisk, BackendFeatures, FrontendRecord, RingDialect, ToolstackFrontend},
    xenbus::State,
};
use xen_platform::{Change, Clock, DomId, FrontWorld, Store, StoreError};

use crate::{
    Error, Link,
    connect::{Action, Handshake},
    link::{Parts, Shared},
};

/// Tokens of our watches; nobody looks at them, any change means to look at everything.
const TOKEN: &str = "blkfront";

/// One device as its driver sees it in XenStore.
pub(crate) struct Control<W: FrontWorld> {
    world: W,
    store: W::Store,
    clock: W::Clock,
    /// Our directory.
    frontend: String,
    /// What the toolstack wrote there.
    ends: ToolstackFrontend,
    handshake: Handshake,
    /// The backend's state when last looked at.
    backend_state: State,
    /// Each wait of the handshake may take this long.
    limit: Duration,
    pub(crate) shared: Arc<Shared>,
}

impl<W: FrontWorld> Control<W> {
    /// Finds the device and begins to watch it.
    pub(crate) fn open(world: W, path: &str, limit: Duration) -> Result<Self, Error> {
        let mut store = world.store()?;
        let clock = world.clock();
        let frontend = String::from(path);
        for key in [keys::BACKEND, keys::STATE] {
            store.watch(&format!("{frontend}/{key}"), TOKEN)?;
        }
        let ends = read_ends(&mut store, &frontend)?;
        store.watch(&format!("{}/{}", ends.backend, keys::STATE), TOKEN)?;
        let own = read_state(&mut store, &frontend)?;
        let backend_state = read_state(&mut store, &ends.backend)?;
        let handshake = Handshake::open(own, backend_state, limit, clock.now());
        let shared = Arc::default();
        Ok(Self { world, store, clock, frontend, ends, handshake, backend_state, limit, shared })
    }

    /// Looks at both states and does what follows, as far as that is this shell's business. [`Action::Refused`] also when the
    /// toolstack has removed the device.
    pub(crate) fn step(&mut self) -> Result<Action, Error> {
        self.has_events()?;
        loop {
            self.look()?;
            let now = self.clock.now();
            match self.handshake.advance(self.backend_state, now) {
                Action::Write(state) => {
                    if !self.write_state(state)? {
                        return Ok(Action::Refused);
                    }
                }
                Action::Lost => {
                    self.shared.epoch.fetch_add(1, Ordering::Relaxed);
                    return Ok(Action::Lost);
                }
                action => return Ok(action),
            }
        }
    }

    /// True when XenStore had something for us since the last look.
    pub(crate) fn has_events(&mut self) -> Result<bool, Error> {
        let mut events = 0;
        // A backend can make events as fast as we take them; any number of them means to look once.
        while events < 256 && self.store.next_event()?.is_some() {
            events += 1;
        }
        Ok(events > 0)
    }

    /// Steps, and sleeps in between, until `wanted` is to be done. Errors: the backend closes, or takes too long.
    pub(crate) fn until(&mut self, wanted: Action) -> Result<(), Error> {
        loop {
            match self.step()? {
                action if action == wanted => return Ok(()),
                Action::Refused => return Err(self.refused()),
                Action::TimedOut(waited_for) => return Err(self.timed_out(waited_for)),
                _ => {
                    self.sleep(None)?;
                }
            }
        }
    }

    /// Sleeps until XenStore has something, the handshake's deadline passes, or `until` does. True when XenStore has something.
    pub(crate) fn sleep(&mut self, until: Option<Duration>) -> Result<bool, Error> {
        let ends = [until, self.handshake.deadline()].into_iter().flatten().min();
        let timeout = ends.map(|end| end.saturating_sub(self.clock.now()));
        Ok(self.store.wait(timeout)?)
    }

    /// What the backend offers now.
    pub(crate) fn features(&mut self) -> Result<BackendFeatures, Error> {
        let Self { store, ends, .. } = self;
        read_record(store, &ends.backend, |lookup| BackendFeatures::parse(lookup))
    }

    /// Makes rings for every queue and tells the backend of them, together with `Initialised`. `agreement` says that grants are
    /// persistent if this end is willing.
    pub(crate) fn publish(
        &mut self,
        agreement: &Agreement,
        dialect: RingDialect,
    ) -> Result<Vec<Parts<W>>, Error> {
        let to = self.domain();
        let parts: Vec<_> = (0..agreement.queues)
            .map(|n| Parts::new(&self.world, to, n, agreement))
            .collect::<Result<_, _>>()?;
        let record = FrontendRecord::new(agreement, dialect, parts.iter().map(Parts::record).collect());

        let state = self.own_key(keys::STATE);
        let present = self.store.list(&self.frontend)?;
        let stale = record.stale(present.iter().map(String::as_str));
        let stale: Vec<_> = stale.into_iter().map(|key| self.own_key(key)).collect();
        let mut written = Vec::new();
        record.emit(|key, value| written.push((self.own_key(key), String::from(value))));
        written.push((state.clone(), String::from(State::Initialised.as_str())));

        let require = core::iter::once(Change::Require(&state));
        let remove = stale.iter().map(|key| Change::Remove(key));
        let write = written.iter().map(|(key, value)| Change::Write(key, value));
        self.store.apply(&require.chain(remove).chain(write).collect::<Vec<_>>())?;
        self.handshake.published(self.clock.now());
        Ok(parts)
    }

    /// Reads what the disk is and what the backend offers by now, and writes `Connected`.
    pub(crate) fn connect(&mut self) -> Result<(BackendDisk, BackendFeatures), Error> {
        let (disk, features) = (self.disk()?, self.features()?);
        self.resize(disk.sectors);
        if !self.write_state(State::Connected)? {
            return Err(self.refused());
        }
        self.handshake.connected(self.clock.now());
        Ok((disk, features))
    }

    /// Reads what the disk is.
    pub(crate) fn disk(&mut self) -> Result<BackendDisk, Error> {
        let Self { store, ends, .. } = self;
        read_record(store, &ends.backend, |lookup| BackendDisk::parse(lookup))
    }

    /// The links of a connection that was just made.
    pub(crate) fn links(&self, parts: Vec<Parts<W>>, agreement: &Agreement, limits: Limits) -> Vec<Link<W>> {
        let epoch = self.shared.epoch.load(Ordering::Relaxed);
        let link = |parts| Link {
            parts,
            limits,
            persistent: agreement.persistent,
            epoch,
            shared: self.shared.clone(),
            clock: self.clock.clone(),
            patience: self.limit,
        };
        parts.into_iter().map(link).collect()
    }

    /// Closes our end and waits for the backend's, each step for the handshake's limit. Whatever happens our end is closed then,
    /// unless XenStore itself fails.
    pub(crate) fn close(&mut self) -> Result<(), Error> {
        self.handshake.close(self.clock.now());
        loop {
            match self.step()? {
                Action::Ended | Action::Refused => return Ok(()),
                Action::TimedOut(waited_for) => {
                    self.write_state(State::Closed)?;
                    return Err(self.timed_out(waited_for));
                }
                _ => {
                    self.sleep(None)?;
                }
            }
        }
    }

    /// Gives the device up in the middle of connecting.
    pub(crate) fn abandon(&mut self) {
        // There is an error on its way to the caller already; this is housekeeping, as far as it goes.
        let _ = self.write_state(State::Closed);
        let _ = self.remove_keys(State::Closed);
    }

    /// Removes what connections have left in our directory, and sets our state.
    pub(crate) fn remove_keys(&mut self, then: State) -> Result<(), Error> {
        let present = match self.store.list(&self.frontend) {
            // The toolstack removed the device: nothing is left to tidy.
            Err(StoreError::NoEntry(_) | StoreError::Denied(_)) => return Ok(()),
            present => present?,
        };
        let state = self.own_key(keys::STATE);
        let ours = present.iter().filter(|key| keys::is_connection_key(key) || *key == keys::ERROR);
        let ours: Vec<_> = ours.map(|key| self.own_key(key)).collect();
        let mut changes = alloc::vec![Change::Require(&state)];
        changes.extend(ours.iter().map(|key| Change::Remove(key)));
        changes.push(Change::Write(&state, then.as_str()));
        missing_is_fine(self.store.apply(&changes))?;
        Ok(())
    }

    /// Tells people, in our own directory, why the device is not to be used.
    pub(crate) fn tell(&mut self, error: &str) {
        let (state, node) = (self.own_key(keys::STATE), self.own_key(keys::ERROR));
        // Whoever called has the error itself.
        let _ = self.store.apply(&[Change::Require(&state), Change::Write(&node, error)]);
    }

    /// The backend's domain.
    pub(crate) fn domain(&self) -> DomId {
        DomId(self.ends.backend_id)
    }

    pub(crate) fn frontend(&self) -> &str {
        &self.frontend
    }

    pub(crate) fn ends(&self) -> &ToolstackFrontend {
        &self.ends
    }

    pub(crate) fn backend_state(&self) -> State {
        self.backend_state
    }

    pub(crate) fn clock(&self) -> &W::Clock {
        &self.clock
    }

    /// True while both ends are connected.
    pub(crate) fn is_connected(&self) -> bool {
        self.handshake.is_connected()
    }

    /// Each wait of the handshake may take this long from now on.
    pub(crate) fn set_limit(&mut self, limit: Duration) {
        self.limit = limit;
        self.handshake.set_limit(limit);
    }

    /// The disk has this many sectors now; every queue sees it at once.
    pub(crate) fn resize(&self, sectors: u64) {
        self.shared.sectors.store(sectors, Ordering::Relaxed);
    }

    pub(crate) fn into_world(self) -> W {
        self.world
    }

    pub(crate) fn refused(&mut self) -> Error {
        let node = format!("{}/{}", self.ends.backend, keys::ERROR);
        let reason = self.store.read(&node).ok().filter(|text| !text.is_empty());
        let reason = reason.map(|text| format!(": {}", String::from_utf8_lossy(&text))).unwrap_or_default();
        Error::Closed { backend: self.ends.backend.clone(), reason }
    }

    fn timed_out(&self, wanted: &'static str) -> Error {
        let (backend, state) = (self.ends.backend.clone(), self.backend_state);
        Error::TimedOut { backend, state, wanted, seconds: self.limit.as_secs() }
    }

    /// Reads both states, and which backend it is while that may change.
    fn look(&mut self) -> Result<(), Error> {
        let own = read_state(&mut self.store, &self.frontend)?;
        if own != self.handshake.own() {
            self.handshake.reset_by_others(own);
        }
        match read_ends(&mut self.store, &self.frontend) {
            Ok(ends) if ends != self.ends => self.follow(ends)?,
            Ok(_) => {}
            // Removed, or in the middle of being made anew.
            Err(Error::Store(StoreError::NoEntry(_) | StoreError::Denied(_)) | Error::Record { .. }) => {}
            Err(error) => return Err(error),
        }
        self.backend_state = read_state(&mut self.store, &self.ends.backend)?;
        Ok(())
    }

    /// The toolstack gave the device another backend.
    fn follow(&mut self, ends: ToolstackFrontend) -> Result<(), Error> {
        let moved = ends.backend != self.ends.backend || ends.backend_id != self.ends.backend_id;
        let old = core::mem::replace(&mut self.ends, ends);
        if moved {
            // The watch may have gone with the node it was for.
            let _ = self.store.unwatch(&format!("{}/{}", old.backend, keys::STATE), TOKEN);
            self.store.watch(&format!("{}/{}", self.ends.backend, keys::STATE), TOKEN)?;
            self.handshake.moved();
        }
        Ok(())
    }

    /// Writes our state, but never makes a device that the toolstack has removed: false then.
    fn write_state(&mut self, state: State) -> Result<bool, Error> {
        let node = self.own_key(keys::STATE);
        missing_is_fine(self.store.apply(&[Change::Require(&node), Change::Write(&node, state.as_str())]))
    }

    fn own_key(&self, key: &str) -> String {
        format!("{}/{key}", self.frontend)
    }
}

fn missing_is_fine(applied: Result<(), StoreError>) -> Result<bool, Error> {
    match applied {
        Ok(()) => Ok(true),
        // What is missing below a directory that we may not read looks denied.
        Err(StoreError::NoEntry(_) | StoreError::Denied(_)) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// The state of the end in `directory`; unknown when there is none, or none that we may see.
fn read_state(store: &mut impl Store, directory: &str) -> Result<State, Error> {
    let node = read_node(store, directory, keys::STATE)?;
    Ok(State::of_node(node))
}

fn read_ends(store: &mut impl Store, frontend: &str) -> Result<ToolstackFrontend, Error> {
    // The one key without which there is no device at all.
    store.read(&format!("{frontend}/{}", keys::BACKEND))?;
    read_record(store, frontend, |lookup| ToolstackFrontend::parse(lookup))
}

/// Reads a typed record. A XenStore that fails in between counts, a key that is missing is the record's business.
fn read_record<S: Store, T>(
    store: &mut S,
    directory: &str,
    parse: impl FnOnce(&mut dyn FnMut(&str) -> Option<Vec<u8>>) -> Result<T, blkif_proto::RecordError>,
) -> Result<T, Error> {
    let mut failed = None;
    let parsed = parse(&mut |key| match read_node(store, directory, key) {
        Ok(value) => value,
        Err(error) => {
            failed.get_or_insert(error);
            None
        }
    });
    match failed {
        Some(error) => Err(error),
        None => parsed.map_err(|error| Error::Record { path: String::from(directory), error }),
    }
}

fn read_node(store: &mut impl Store, directory: &str, key: &str) -> Result<Option<Vec<u8>>, Error> {
    match store.read(&format!("{directory}/{key}")) {
        Ok(value) => Ok(Some(value)),
        Err(StoreError::NoEntry(_) | StoreError::Denied(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}
