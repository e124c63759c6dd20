//! A world in which what passes between both ends is recorded or traced, if it is to be.

use std::{path::Path, sync::Arc, time::Duration};

use anyhow::Context as _;
use blkif_observe::recording::{End, Recorder};
use ringbuf::Tap;
use xen_platform::{Change, DomId, EventError, FrontWorld, GrantError, Store, StoreError, WatchEvent};

use crate::{cli::Connection, trace::Tracer};

/// A world, and what is recorded of one device in it.
pub(crate) struct Recorded<W> {
    world: W,
    recorder: Option<Arc<Recorder>>,
    tracer: Option<Arc<Tracer>>,
    /// As recordings name it.
    device: String,
}

impl<W> Recorded<W> {
    /// Records or traces, as `connection` says, what happens to the device of the frontend's directory `path`.
    pub(crate) fn new(world: W, path: &str, connection: &Connection) -> anyhow::Result<Self> {
        let program = concat!("blkfront ", env!("CARGO_PKG_VERSION"));
        let create = |folder: &Path| {
            Recorder::create(folder, End::Frontend, program)
                .with_context(|| format!("recording in {}", folder.display()))
        };
        let recorder = connection.record.as_deref().map(create).transpose()?;
        let device = name(path);
        let trace = |file: &Path| {
            let abi = connection.config(1).abi;
            Tracer::create(file, &device, abi).with_context(|| format!("tracing to {}", file.display()))
        };
        let tracer = connection.trace.as_deref().map(trace).transpose()?;
        Ok(Self { world, recorder, tracer, device })
    }

    /// The trace, to be written at the end.
    pub(crate) fn tracer(&self) -> Option<Arc<Tracer>> {
        self.tracer.clone()
    }
}

/// `/local/domain/GUEST/device/vbd/NUMBER` as `GUEST/NUMBER`.
fn name(path: &str) -> String {
    let guest = path.split('/').nth(3).unwrap_or_default();
    format!("{guest}/{}", path.rsplit('/').next().unwrap_or_default())
}

impl<W: FrontWorld> FrontWorld for Recorded<W> {
    type Lender = W::Lender;
    type Events = W::Events;
    type Store = Noted<W::Store>;
    type Clock = W::Clock;

    fn lender(&self, to: DomId) -> Result<W::Lender, GrantError> {
        self.world.lender(to)
    }

    fn events(&self) -> Result<W::Events, EventError> {
        self.world.events()
    }

    fn store(&self) -> Result<Noted<W::Store>, StoreError> {
        Ok(Noted { store: self.world.store()?, recorder: self.recorder.clone() })
    }

    fn clock(&self) -> W::Clock {
        self.world.clock()
    }

    fn tap(&self, queue: u32) -> Option<Arc<dyn Tap>> {
        if let Some(tracer) = &self.tracer {
            return Some(Arc::new(tracer.tap(queue)));
        }
        let tape = self.recorder.as_ref()?.tape(&self.device, queue);
        Some(Arc::new(tape))
    }
}

/// XenStore, of which is noted what is read and written.
pub(crate) struct Noted<S> {
    store: S,
    recorder: Option<Arc<Recorder>>,
}

impl<S> Noted<S> {
    fn note(&self, path: &str, value: Option<&[u8]>) {
        if let Some(recorder) = &self.recorder {
            recorder.node(path, value.map(String::from_utf8_lossy).as_deref());
        }
    }
}

impl<S: Store> Store for Noted<S> {
    fn read(&mut self, path: &str) -> Result<Vec<u8>, StoreError> {
        let value = self.store.read(path);
        match &value {
            Ok(value) => self.note(path, Some(value)),
            Err(StoreError::NoEntry(_)) => self.note(path, None),
            Err(_) => {}
        }
        value
    }

    fn list(&mut self, path: &str) -> Result<Vec<String>, StoreError> {
        self.store.list(path)
    }

    fn apply(&mut self, changes: &[Change<'_>]) -> Result<(), StoreError> {
        // Before the backend can see it and act.
        for change in changes {
            match change {
                Change::Require(_) => {}
                Change::Write(path, value) => self.note(path, Some(value.as_bytes())),
                Change::Remove(path) => self.note(path, None),
            }
        }
        self.store.apply(changes)
    }

    fn watch(&mut self, path: &str, token: &str) -> Result<(), StoreError> {
        self.store.watch(path, token)
    }

    fn unwatch(&mut self, path: &str, token: &str) -> Result<(), StoreError> {
        self.store.unwatch(path, token)
    }

    fn next_event(&mut self) -> Result<Option<WatchEvent>, StoreError> {
        self.store.next_event()
    }

    fn wait(&mut self, timeout: Option<Duration>) -> Result<bool, StoreError> {
        self.store.wait(timeout)
    }
}
