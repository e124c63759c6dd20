//! Changes on trial: every request works on a [`Draft`] over the tree; those outside a transaction commit it at once.

use std::collections::BTreeMap;

use super::{
    path::NodePath,
    perms::{Actor, Permissions},
    quota::Quota,
    tree::{Node, Tree},
};
use crate::{DomId, wire::Errno};

/// A change that watches are told of once it is committed.
#[derive(Debug)]
pub(super) struct Fired {
    pub(super) path: NodePath,
    /// Told only to watches of just this path: what is below a removed node.
    pub(super) exact: bool,
    /// The node's permissions before and after, or those above it; who may read by any of them may know.
    pub(super) readers: Vec<Permissions>,
}

/// What a transaction saw, and what it wants to change.
#[derive(Debug, Default)]
pub(super) struct Draft {
    /// Generation of each node when it was first looked at, `None` where there was none.
    seen: BTreeMap<NodePath, Option<u64>>,
    changed: BTreeMap<NodePath, Option<Node>>,
    /// Paths that fire, with the place in the order of changes.
    fired: BTreeMap<(NodePath, bool), usize>,
    /// By how much each domain's count of nodes changes.
    owned: BTreeMap<DomId, isize>,
    puts: u64,
}

impl Draft {
    /// A node as this draft has it; remembers that it was looked at.
    pub(super) fn get<'a>(&'a mut self, tree: &'a Tree, path: &NodePath) -> Option<&'a Node> {
        if !self.seen.contains_key(path) {
            self.seen.insert(path.clone(), tree.generation_of(path.as_str()));
        }
        self.peek(tree, path)
    }

    /// Puts a node in place or takes it away.
    pub(super) fn put(&mut self, tree: &Tree, path: &NodePath, mut node: Option<Node>) {
        let before = self.get(tree, path).map(|node| node.permissions.owner());
        self.puts += 1;
        if let Some(node) = &mut node {
            *self.owned.entry(node.permissions.owner()).or_default() += 1;
            // Unlike any committed generation of this node, and growing: listings in parts notice the change.
            node.generation = tree.generation() + self.puts;
        }
        if let Some(owner) = before {
            *self.owned.entry(owner).or_default() -= 1;
        }
        self.changed.insert(path.clone(), node);
    }

    /// Has watches told of a change once this is committed.
    pub(super) fn fire(&mut self, path: &NodePath, exact: bool) {
        let place = self.fired.len();
        self.fired.entry((path.clone(), exact)).or_insert(place);
    }

    /// Nodes looked at or changed.
    pub(super) fn nodes(&self) -> usize {
        self.seen.len()
    }

    /// Nodes that `domain` would own after the commit.
    pub(super) fn owned(&self, tree: &Tree, domain: DomId) -> usize {
        tree.owned(domain).saturating_add_signed(self.owned.get(&domain).copied().unwrap_or(0))
    }

    /// Makes the changes, all or none. Errors: `EAGAIN` when a node that was looked at has changed since; `ENOSPC` when others
    /// used up the domain's nodes meanwhile.
    pub(super) fn commit(self, tree: &mut Tree, actor: &Actor, quota: &Quota) -> Result<Vec<Fired>, Errno> {
        if self.seen.iter().any(|(path, seen)| tree.generation_of(path.as_str()) != *seen) {
            return Err(Errno::Again);
        }
        for (domain, change) in &self.owned {
            if *change > 0 {
                Quota::check(actor, self.owned(tree, *domain), quota.nodes, Errno::Nospc)?;
            }
        }
        let mut order: Vec<_> = self.fired.into_iter().collect();
        order.sort_by_key(|(_, place)| *place);
        let permissions =
            |tree: &Tree, path: &NodePath| tree.get(path.as_str()).map(|node| node.permissions.clone());
        let mut fired: Vec<_> = order
            .into_iter()
            .map(|((path, exact), _)| Fired {
                readers: permissions(tree, &path).into_iter().collect(),
                path,
                exact,
            })
            .collect();
        for (path, node) in self.changed {
            tree.put(path, node);
        }
        for change in &mut fired {
            // What came and went within one transaction may have left parents behind: those who see them must hear of it.
            let mut nearest = Some(change.path.clone());
            while let Some(path) = nearest.take() {
                change.readers.extend(permissions(tree, &path));
                nearest = path.parent().filter(|_| change.readers.is_empty());
            }
        }
        Ok(fired)
    }

    fn peek<'a>(&'a self, tree: &'a Tree, path: &NodePath) -> Option<&'a Node> {
        match self.changed.get(path) {
            Some(node) => node.as_ref(),
            None => tree.get(path.as_str()),
        }
    }
}
