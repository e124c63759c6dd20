//! Who may do what to a node (docs/misc/xenstore.txt, `GET_PERMS`).

use crate::{
    DomId,
    wire::{Errno, Permission, Rights},
};

/// What a request wants of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Need {
    Read,
    Write,
    /// Only the owner has it: changing permissions.
    Own,
}

/// For whom a connection acts.
#[derive(Clone, Copy, Debug)]
pub(super) struct Actor {
    pub(super) domain: DomId,
    /// The domain whose rights this one has too (`SET_TARGET`: a device model's guest).
    pub(super) target: Option<DomId>,
}

impl Actor {
    pub(super) fn privileged(&self) -> bool {
        self.domain == DomId::DOM0
    }

    fn is(&self, domain: DomId) -> bool {
        self.domain == domain || self.target == Some(domain)
    }
}

/// A node's permissions: the first entry names the owner and everybody else's rights. Never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Permissions {
    first: Permission,
    others: Vec<Permission>,
}

impl Permissions {
    pub(super) fn owned_by(owner: DomId) -> Self {
        Self { first: Permission::new(owner, Rights::None), others: Vec::new() }
    }

    /// Errors: `EINVAL` for an empty list.
    pub(super) fn new(entries: impl IntoIterator<Item = Permission>) -> Result<Self, Errno> {
        let mut entries = entries.into_iter();
        let first = entries.next().ok_or(Errno::Inval)?;
        Ok(Self { first, others: entries.collect() })
    }

    pub(super) fn owner(&self) -> DomId {
        self.first.domain
    }

    /// What a new child of such a node gets when `actor` makes it: the same, but a guest owns what it makes.
    pub(super) fn inherited(&self, actor: &Actor) -> Self {
        let mut child = self.clone();
        if !actor.privileged() {
            child.first.domain = actor.domain;
        }
        child
    }

    pub(super) fn entries(&self) -> impl Iterator<Item = Permission> + '_ {
        core::iter::once(self.first).chain(self.others.iter().copied())
    }

    pub(super) fn allow(&self, actor: &Actor, need: Need) -> bool {
        if actor.privileged() || actor.is(self.first.domain) {
            return true;
        }
        let entry = self.others.iter().find(|entry| actor.is(entry.domain)).unwrap_or(&self.first);
        match need {
            Need::Read => matches!(entry.rights, Rights::Read | Rights::Both),
            Need::Write => matches!(entry.rights, Rights::Write | Rights::Both),
            Need::Own => false,
        }
    }

    /// Drops the entries of a domain that is gone, lest its number's next bearer inherits them. True when there were any.
    pub(super) fn forget(&mut self, domain: DomId) -> bool {
        let before = self.others.len();
        self.others.retain(|entry| entry.domain != domain);
        self.others.len() != before
    }
}

#[cfg(test)]
mod tests;
