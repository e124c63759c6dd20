//! A connection to the store in this process.

use core::time::Duration;

use super::store::{ConnId, SharedStore};
use crate::{
    DomId, StoreError, WatchEvent,
    session::{Session, Transport},
    wire::Message,
};

/// A [`Store`](crate::Store) that works on the model directly. Closed when dropped.
pub type StoreHandle = Session<Direct>;

/// Calls into a [`SharedStore`].
#[derive(Debug)]
pub struct Direct {
    store: SharedStore,
    connection: ConnId,
}

impl StoreHandle {
    /// A connection that acts for `domain`. Errors: [`StoreError::NoEntry`] when the domain was not introduced.
    pub fn connect(store: &SharedStore, domain: DomId) -> Result<Self, StoreError> {
        let connection = store.with(|store| store.connect(domain));
        let connection = connection.ok_or_else(|| StoreError::NoEntry(format!("domain {domain}")))?;
        Ok(Session::new(Direct { store: store.clone(), connection }))
    }
}

impl Transport for Direct {
    fn call(&mut self, request: Message) -> Result<Message, StoreError> {
        self.store.with(|store| store.handle(self.connection, &request)).ok_or(StoreError::Disconnected)
    }

    fn next_event(&mut self) -> Result<Option<WatchEvent>, StoreError> {
        let (open, event) =
            self.store.with(|store| (store.is_open(self.connection), store.next_event(self.connection)));
        if open { Ok(event) } else { Err(StoreError::Disconnected) }
    }

    fn wait(&mut self, timeout: Option<Duration>) -> Result<bool, StoreError> {
        let (mut open, mut event) = (true, false);
        self.store.wait_until(timeout, |store| {
            (open, event) = (store.is_open(self.connection), store.has_event(self.connection));
            event || !open
        });
        if open { Ok(event) } else { Err(StoreError::Disconnected) }
    }

    fn watched(&mut self, _path: &str, _token: &str) {}

    fn unwatched(&mut self, _path: &str, _token: &str) {}
}

impl Drop for Direct {
    fn drop(&mut self) {
        self.store.with(|store| store.disconnect(self.connection));
    }
}
