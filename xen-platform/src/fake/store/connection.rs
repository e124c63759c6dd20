//! One client's connection: for whom it acts, its open transactions, watches and waiting events.

use std::collections::BTreeMap;

use super::{path::NodePath, perms::Actor, quota::Quota, transaction::Draft, watch::Watch};
use crate::{DomId, event_queue::EventQueue, wire::Errno};

#[derive(Debug)]
pub(super) struct Connection {
    pub(super) actor: Actor,
    /// Where relative paths start.
    pub(super) base: NodePath,
    pub(super) watches: Vec<Watch>,
    pub(super) events: EventQueue,
    transactions: BTreeMap<u32, Draft>,
    last_transaction: u32,
}

impl Connection {
    pub(super) fn new(domain: DomId) -> Self {
        Self {
            actor: Actor { domain, target: None },
            base: NodePath::of_domain(domain),
            watches: Vec::new(),
            events: EventQueue::default(),
            transactions: BTreeMap::new(),
            last_transaction: 0,
        }
    }

    /// Opens a transaction. Errors: `ENOSPC` for one too many.
    pub(super) fn begin(&mut self, quota: &Quota) -> Result<u32, Errno> {
        Quota::check(&self.actor, self.transactions.len() + 1, quota.transactions, Errno::Nospc)?;
        loop {
            self.last_transaction = self.last_transaction.wrapping_add(1);
            let id = self.last_transaction;
            if id != 0 && !self.transactions.contains_key(&id) {
                self.transactions.insert(id, Draft::default());
                return Ok(id);
            }
        }
    }

    /// Takes a transaction's draft out; 0 is a fresh one. Errors: `ENOENT`.
    pub(super) fn take_draft(&mut self, id: u32) -> Result<Draft, Errno> {
        if id == 0 { Ok(Draft::default()) } else { self.transactions.remove(&id).ok_or(Errno::Noent) }
    }

    /// Puts a draft back that is not done yet.
    pub(super) fn keep_draft(&mut self, id: u32, draft: Draft) {
        self.transactions.insert(id, draft);
    }

    /// Whether a request may name this transaction.
    pub(super) fn knows(&self, id: u32) -> bool {
        id == 0 || self.transactions.contains_key(&id)
    }

    /// Ends all watches and transactions (`RESET_WATCHES`).
    pub(super) fn reset(&mut self) {
        self.watches.clear();
        self.transactions.clear();
        self.events = EventQueue::default();
    }
}
