//! XenStore itself: a tree of small values with owners, watches and transactions, as xenstored serves it.
//!
//! [`XenStore`] is pure: a request goes in, its reply comes out, and watch events wait on each connection until they are
//! taken. No I/O, no clock, no threads, and the same requests always give the same replies. [`SharedStore`] puts it behind a
//! lock for the threads of one process, [`sim::xenstored`](crate::sim::xenstored) behind a Unix socket.
//!
//! ```text
//!   Message ──▶ requests ──▶ Nodes (permissions, quotas) ──▶ Draft ──commit──▶ Tree
//!                  │                                           │
//!   Message ◀──────┘            EventQueue of each connection ◀┘ Fired
//! ```
//!
//! Left out: `CONTROL`, live update, watch depth and the newer quota requests (`ENOSYS`).

mod connection;
mod nodes;
mod path;
mod perms;
mod quota;
mod requests;
mod shared;
mod transaction;
mod tree;
mod watch;

use std::collections::{BTreeMap, BTreeSet};

pub use quota::Quota;
pub use shared::{SharedStore, WakerId};

use connection::Connection;
use nodes::Nodes;
use path::NodePath;
use perms::Actor;
use transaction::{Draft, Fired};
use tree::Tree;

use crate::{DomId, WatchEvent, wire::Message};

/// Names a connection to a [`XenStore`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnId(u64);

/// The store of one simulated machine.
///
/// Memory is bounded for each guest: by [`Quota`] for what it keeps, and by merging for the events that it does not take
/// (XSA-326, XSA-349). Domain 0 is trusted.
#[derive(Debug)]
pub struct XenStore {
    tree: Tree,
    domains: BTreeSet<DomId>,
    connections: BTreeMap<ConnId, Connection>,
    last_connection: u64,
    quota: Quota,
    stirred: bool,
}

impl Default for XenStore {
    fn default() -> Self {
        Self::new(Quota::DEFAULT)
    }
}

impl XenStore {
    /// A store with `/tool/xenstored` only, and no domain but 0.
    pub fn new(quota: Quota) -> Self {
        Self {
            tree: Tree::new(),
            domains: BTreeSet::from([DomId::DOM0]),
            connections: BTreeMap::new(),
            last_connection: 0,
            quota,
            stirred: false,
        }
    }

    /// Opens a connection that acts for `domain`; domain 0 is privileged. `None` when the domain was not introduced.
    pub fn connect(&mut self, domain: DomId) -> Option<ConnId> {
        if !self.is_introduced(domain) {
            return None;
        }
        self.last_connection += 1;
        let id = ConnId(self.last_connection);
        self.connections.insert(id, Connection::new(domain));
        Some(id)
    }

    /// Closes a connection: its transactions and watches end.
    pub fn disconnect(&mut self, connection: ConnId) {
        self.connections.remove(&connection);
    }

    /// Whether a connection is open; releasing its domain closes it.
    pub fn is_open(&self, connection: ConnId) -> bool {
        self.connections.contains_key(&connection)
    }

    /// Answers a request. `None` when the connection is closed.
    pub fn handle(&mut self, connection: ConnId, request: &Message) -> Option<Message> {
        self.connections.get(&connection)?;
        Some(match self.answer(connection, request) {
            Ok(payload) => request.reply(payload),
            Err(errno) => request.refusal(errno),
        })
    }

    /// Takes the event that waits longest on a connection.
    pub fn next_event(&mut self, connection: ConnId) -> Option<WatchEvent> {
        self.connections.get_mut(&connection)?.events.pop()
    }

    /// Whether an event waits on a connection.
    pub fn has_event(&self, connection: ConnId) -> bool {
        self.connections.get(&connection).is_some_and(|connection| !connection.events.is_empty())
    }

    /// Bytes of events that wait on a connection.
    pub fn event_bytes(&self, connection: ConnId) -> usize {
        self.connections.get(&connection).map_or(0, |connection| connection.events.bytes())
    }

    /// A domain exists now and may connect. Fires `@introduceDomain`. False when it was there already.
    pub fn introduce(&mut self, domain: DomId) -> bool {
        let new = self.domains.insert(domain);
        if new {
            self.fire_special(NodePath::INTRODUCE_DOMAIN);
        }
        new
    }

    /// A domain is gone, introduced or not: its connections close, its nodes and permission entries go. Fires
    /// `@releaseDomain` if it had been introduced. Domain 0 stays.
    pub fn release(&mut self, domain: DomId) {
        if domain == DomId::DOM0 {
            return;
        }
        self.connections.retain(|_, connection| connection.actor.domain != domain);
        for connection in self.connections.values_mut() {
            connection.actor.target = connection.actor.target.filter(|target| *target != domain);
        }
        for top in self.tree.estate_of(domain) {
            self.remove_unasked(&top);
        }
        self.tree.forget(domain);
        self.stirred = true;
        if self.domains.remove(&domain) {
            self.fire_special(NodePath::RELEASE_DOMAIN);
        }
    }

    /// Whether a domain may connect.
    pub fn is_introduced(&self, domain: DomId) -> bool {
        self.domains.contains(&domain)
    }

    /// Whether events were queued or connections closed since the last call: somebody else may have to be woken.
    pub(crate) fn take_stirred(&mut self) -> bool {
        core::mem::take(&mut self.stirred)
    }

    fn remove_unasked(&mut self, path: &NodePath) {
        let mut draft = Draft::default();
        let actor = Actor { domain: DomId::DOM0, target: None };
        let mut nodes = Nodes { tree: &self.tree, draft: &mut draft, actor, quota: &self.quota };
        if nodes.remove(path).is_ok()
            && let Ok(fired) = draft.commit(&mut self.tree, &actor, &self.quota)
        {
            self.tell(&fired);
        }
    }

    fn fire_special(&mut self, name: &str) {
        let readers = self.tree.get(name).map(|node| node.permissions.clone()).into_iter().collect();
        self.tell(&[Fired { path: NodePath::special(name), exact: true, readers }]);
    }

    fn tell(&mut self, changes: &[Fired]) {
        for connection in self.connections.values_mut() {
            self.stirred |= connection.tell(changes);
        }
    }
}

#[cfg(test)]
mod tests;
