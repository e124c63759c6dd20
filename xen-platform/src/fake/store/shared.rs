//! The store behind a lock, with everybody woken who may have got an event.

use core::fmt;
use std::{
    collections::BTreeMap,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use super::XenStore;
use crate::{DomId, StoreError, fake::StoreHandle};

type Waker = Box<dyn Fn() + Send + Sync>;

/// One store for all threads of a process. Clones are the same store.
#[derive(Clone, Default)]
pub struct SharedStore(Arc<Inner>);

#[derive(Default)]
struct Inner {
    store: Mutex<XenStore>,
    stirred: Condvar,
    wakers: Mutex<(u64, BTreeMap<u64, Waker>)>,
    /// The clock of the machine that this is a part of, in nanoseconds: it moves on where somebody waits in vain.
    clock: Arc<AtomicU64>,
}

/// Names a waker, for taking it away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WakerId(u64);

impl fmt::Debug for SharedStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SharedStore")
    }
}

impl SharedStore {
    /// Shares a store.
    pub fn new(store: XenStore) -> Self {
        Self(Arc::new(Inner { store: Mutex::new(store), ..Inner::default() }))
    }

    /// The nanoseconds that waiting has taken so far; a machine counts its own time there too.
    pub(crate) fn clock(&self) -> &Arc<AtomicU64> {
        &self.0.clock
    }

    /// A connection that acts for `domain`. Errors: [`StoreError::NoEntry`] when the domain was not introduced.
    pub fn connect(&self, domain: DomId) -> Result<StoreHandle, StoreError> {
        StoreHandle::connect(self, domain)
    }

    /// See [`XenStore::introduce`].
    pub fn introduce(&self, domain: DomId) -> bool {
        self.with(|store| store.introduce(domain))
    }

    /// See [`XenStore::release`].
    pub fn release(&self, domain: DomId) {
        self.with(|store| store.release(domain));
    }

    /// See [`XenStore::is_introduced`].
    pub fn is_introduced(&self, domain: DomId) -> bool {
        self.lock().is_introduced(domain)
    }

    /// Works on the store; then wakes those who wait for events, if there may be any. `work` must not use this value again.
    pub fn with<R>(&self, work: impl FnOnce(&mut XenStore) -> R) -> R {
        let mut store = self.lock();
        let result = work(&mut store);
        let stirred = store.take_stirred();
        drop(store);
        if stirred {
            self.0.stirred.notify_all();
            let wakers = self.0.wakers.lock().unwrap_or_else(PoisonError::into_inner);
            wakers.1.values().for_each(|wake| wake());
        }
        result
    }

    /// Has `wake` called after each change that may concern any connection. It must be quick and not use the store.
    pub fn add_waker(&self, wake: impl Fn() + Send + Sync + 'static) -> WakerId {
        let mut wakers = self.0.wakers.lock().unwrap_or_else(PoisonError::into_inner);
        wakers.0 += 1;
        let id = wakers.0;
        wakers.1.insert(id, Box::new(wake));
        WakerId(id)
    }

    /// Takes a waker away; it is not called any more once this returns.
    pub fn remove_waker(&self, waker: WakerId) {
        self.0.wakers.lock().unwrap_or_else(PoisonError::into_inner).1.remove(&waker.0);
    }

    /// Blocks until `done` says so or `timeout` has passed; its last word.
    pub(crate) fn wait_until(
        &self,
        timeout: Option<Duration>,
        mut done: impl FnMut(&XenStore) -> bool,
    ) -> bool {
        let passed = timeout.map(|timeout| u64::try_from(timeout.as_nanos()).unwrap_or(u64::MAX));
        let end = passed.map(|passed| self.0.clock.load(Relaxed).saturating_add(passed));
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        let mut store = self.lock();
        loop {
            if done(&store) {
                return true;
            }
            store = match deadline {
                None => self.0.stirred.wait(store).unwrap_or_else(PoisonError::into_inner),
                Some(deadline) => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        self.0.clock.fetch_max(end.unwrap_or_default(), Relaxed);
                        return false;
                    }
                    self.0.stirred.wait_timeout(store, left).unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }

    fn lock(&self) -> MutexGuard<'_, XenStore> {
        self.0.store.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
