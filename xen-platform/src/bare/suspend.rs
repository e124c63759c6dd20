//! What the tool stack asks of a running guest, and the most involved of it: to be saved and to go on elsewhere.
//!
//! A guest that was restored has its memory and its registers. All that Xen and the daemons knew of it is gone: event channels,
//! entries of the grant table, watches. Here the guest's own are set up again; devices find that their backends are others, and
//! connect anew.

use alloc::string::String;
use core::sync::atomic::Ordering;

use super::{
    BootError, Memory, World, crash_on_triple_fault, hypercall, map_grant_table, map_shared_info, refused,
};
use crate::{Change, Store, StoreError};

/// Where the tool stack writes what it asks for.
const SHUTDOWN: &str = "control/shutdown";
/// Where the guest says that it does as asked.
const FEATURES: [&str; 2] = ["control/feature-suspend", "control/feature-poweroff"];
const TOKEN: &str = "control";

/// What the tool stack asks for (docs/misc/xenstore-paths.pandoc, `control/shutdown`).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Request {
    /// To be saved: [`World::suspend`].
    Suspend,
    /// To end: [`shut_down`](super::shut_down).
    PowerOff,
    /// Something else.
    Other(String),
}

/// The guest's ear for the tool stack.
#[derive(Debug)]
pub struct Control<S> {
    store: S,
}

impl<S: Store> Control<S> {
    /// Listens from now on, and says so where it may. Errors: XenStore's.
    pub fn new(mut store: S) -> Result<Self, StoreError> {
        store.watch(SHUTDOWN, TOKEN)?;
        match store.apply(&FEATURES.map(|key| Change::Write(key, "1"))) {
            Ok(()) | Err(StoreError::NoEntry(_) | StoreError::Denied(_)) => Ok(Self { store }),
            Err(error) => Err(error),
        }
    }

    /// What was asked for since the last time, acknowledged. Never blocks for more than XenStore's answers, and for none while
    /// nothing is asked. Errors: XenStore's.
    pub fn next_request(&mut self) -> Result<Option<Request>, StoreError> {
        if self.store.next_event()?.is_none() {
            return Ok(None);
        }
        let asked = match self.store.read(SHUTDOWN) {
            Err(StoreError::NoEntry(_) | StoreError::Denied(_)) => return Ok(None),
            asked => asked?,
        };
        if asked.is_empty() {
            return Ok(None);
        }
        self.store.apply(&[Change::Write(SHUTDOWN, "")])?;
        Ok(Some(match &*asked {
            b"suspend" => Request::Suspend,
            b"poweroff" | b"halt" => Request::PowerOff,
            other => Request::Other(String::from_utf8_lossy(other).into_owned()),
        }))
    }
}

impl World {
    /// Has the tool stack save this guest, which it must have [asked](Request::Suspend) for, and comes back when the guest runs
    /// again. False: it goes on where it was, and all is as before (`xl save -c`).
    ///
    /// True: the guest was restored. Handles on event channels are silent from now on, what was lent is not, every watch has been
    /// set again and fires, and time goes on where it was. Whoever drives a device looks at its control side next, before anything
    /// else: it finds the backend gone, and connects to the new one.
    ///
    /// Errors: a PV guest, or one without Xen; else the guest was restored and cannot go on.
    pub fn suspend(&self) -> Result<bool, BootError> {
        let machine = &*self.machine;
        if let Memory::Pv(_) = machine.memory {
            return Err(BootError::Missing("way to save PV guests"));
        }
        let now = machine.shared.now();
        machine.shared.mark();
        let suspended = hypercall::suspend();
        map_shared_info(machine.memory, machine.shared.page())?;
        let same = machine.shared.take_mark();
        suspended.map_err(refused("being saved"))?;
        if same {
            return Ok(false);
        }
        crash_on_triple_fault();
        machine.shared.resume(now);
        machine.lives.fetch_add(1, Ordering::Relaxed);
        map_grant_table(machine.memory, machine.grants)?;
        let mut store = self.store.borrow_mut();
        store.resume().map_err(|_| BootError::Missing("XenStore any more"))?;
        Ok(true)
    }
}

#[cfg(test)]
mod tests;
