//! Watches: who is told of which change, and under which name.

use super::{
    connection::Connection,
    path::NodePath,
    perms::{Actor, Need},
    quota::Quota,
    transaction::Fired,
};
use crate::{
    WatchEvent,
    wire::{Errno, Message},
};

/// One watch of a connection.
#[derive(Debug)]
pub(super) struct Watch {
    path: NodePath,
    /// The path as the client wrote it; events keep its form.
    written: String,
    token: String,
}

impl Watch {
    /// The event by which this watch hears of a change, if it does.
    fn hears(&self, change: &Fired, actor: &Actor, base: &NodePath) -> Option<WatchEvent> {
        let concerned = if change.exact { self.path == change.path } else { self.path.covers(&change.path) };
        if !concerned || !change.readers.iter().any(|permissions| permissions.allow(actor, Need::Read)) {
            return None;
        }
        let path = if self.path == change.path {
            &self.written
        } else if self.written.starts_with(['/', '@']) {
            change.path.as_str()
        } else {
            change.path.relative_to(base)?
        };
        let event = WatchEvent { path: path.into(), token: self.token.clone() };
        // Too long for a message: the watched path says it too, and did fit into the request.
        Some(if Message::event(&event).is_some() { event } else { self.whole() })
    }

    fn whole(&self) -> WatchEvent {
        WatchEvent { path: self.written.clone(), token: self.token.clone() }
    }
}

impl Connection {
    /// Sets a watch, which fires at once. Errors: `EEXIST` for the same path and token, `E2BIG` for one too many.
    pub(super) fn watch(&mut self, written: &str, token: &str, quota: &Quota) -> Result<(), Errno> {
        let path = NodePath::parse(written, &self.base)?;
        if self.watches.iter().any(|watch| watch.path == path && watch.token == token) {
            return Err(Errno::Exist);
        }
        Quota::check(&self.actor, self.watches.len() + 1, quota.watches, Errno::TooBig)?;
        let watch = Watch { path, written: written.into(), token: token.into() };
        self.events.watch(written, token);
        self.events.push(watch.whole());
        self.watches.push(watch);
        Ok(())
    }

    /// Ends a watch. Errors: `ENOENT` when there is none.
    pub(super) fn unwatch(&mut self, written: &str, token: &str) -> Result<(), Errno> {
        let path = NodePath::parse(written, &self.base)?;
        let place = self.watches.iter().position(|watch| watch.path == path && watch.token == token);
        let watch = self.watches.remove(place.ok_or(Errno::Noent)?);
        self.events.unwatch(&watch.written, token);
        Ok(())
    }

    /// Queues what this connection's watches hear of the changes. True when there was anything.
    pub(super) fn tell(&mut self, changes: &[Fired]) -> bool {
        let mut told = false;
        for change in changes {
            for watch in &self.watches {
                if let Some(event) = watch.hears(change, &self.actor, &self.base) {
                    self.events.push(event);
                    told = true;
                }
            }
        }
        told
    }
}
