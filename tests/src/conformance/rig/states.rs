//! What one end's state node went through, as far as a watch shows it.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use blkif_proto::{keys, xenbus::State};
use xen_platform::{Store, StoreError};

use super::{patience, silence};

/// A watch on a state node. Watches merge: states may be missed, but none is invented.
pub struct States<S> {
    store: S,
    node: String,
    /// The values read after each event, the first at the beginning.
    seen: Vec<State>,
}

impl<S: Store> States<S> {
    /// Watches the state of the end whose directory is `dir`.
    pub fn watch(mut store: S, dir: &str) -> Result<Self> {
        let node = format!("{dir}/{}", keys::STATE);
        store.watch(&node, "state")?;
        let mut states = Self { store, node, seen: Vec::new() };
        states.gather(silence() / 10)?;
        Ok(states)
    }

    /// What was seen so far: one entry for each event, which is at most one for each write; stops after `time` without news.
    pub fn gather(&mut self, time: Duration) -> Result<&[State]> {
        while self.store.wait(Some(time))? {
            while self.store.next_event()?.is_some() {
                let value = match self.store.read(&self.node) {
                    Err(StoreError::NoEntry(_)) => None,
                    value => Some(value?),
                };
                self.seen.push(State::of_node(value));
            }
        }
        Ok(&self.seen)
    }

    /// Forgets what was seen.
    pub fn forget(&mut self) {
        self.seen.clear();
    }

    /// Gathers until the state is `wanted`.
    pub fn until(&mut self, wanted: State) -> Result<()> {
        let deadline = Instant::now() + patience();
        while self.seen.last() != Some(&wanted) {
            ensure!(Instant::now() < deadline, "{:?} and never {wanted}", self.seen);
            self.gather(Duration::from_millis(1))?;
        }
        Ok(())
    }
}
