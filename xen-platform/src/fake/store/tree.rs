//! The committed nodes.

use std::collections::{BTreeMap, BTreeSet};

use super::{path::NodePath, perms::Permissions};
use crate::DomId;

/// One node.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) value: Vec<u8>,
    pub(super) permissions: Permissions,
    /// Names of the nodes directly below.
    pub(super) children: BTreeSet<String>,
    /// Changes whenever anything above changes; never the same for two versions of a path.
    pub(super) generation: u64,
}

impl Node {
    pub(super) fn new(permissions: Permissions) -> Self {
        Self { value: Vec::new(), permissions, children: BTreeSet::new(), generation: 0 }
    }

    /// What counts against a guest's limit for a node, in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.value.len() + self.children.iter().map(|name| name.len() + 1).sum::<usize>()
    }
}

/// All nodes by path; each node's parent is there and lists it.
#[derive(Debug)]
pub(super) struct Tree {
    nodes: BTreeMap<NodePath, Node>,
    owned: BTreeMap<DomId, usize>,
    generation: u64,
}

impl Tree {
    /// What xenstored starts with: `/`, `/tool/xenstored` and the special names, all for domain 0 alone.
    pub(super) fn new() -> Self {
        let mut tree = Self { nodes: BTreeMap::new(), owned: BTreeMap::new(), generation: 0 };
        let mut path = NodePath::root();
        let mut put = |path: &NodePath, child: Option<&str>| {
            let mut node = Node::new(Permissions::owned_by(DomId::DOM0));
            node.children.extend(child.map(String::from));
            tree.put(path.clone(), Some(node));
        };
        for name in ["tool", "xenstored"] {
            put(&path, Some(name));
            path = path.child(name);
        }
        put(&path, None);
        for name in [NodePath::INTRODUCE_DOMAIN, NodePath::RELEASE_DOMAIN] {
            put(&NodePath::special(name), None);
        }
        tree
    }

    pub(super) fn get(&self, path: &str) -> Option<&Node> {
        self.nodes.get(path)
    }

    /// The generation of a node, `None` where there is none.
    pub(super) fn generation_of(&self, path: &str) -> Option<u64> {
        self.get(path).map(|node| node.generation)
    }

    /// The generation of the latest change anywhere.
    pub(super) fn generation(&self) -> u64 {
        self.generation
    }

    /// Nodes that a domain owns.
    pub(super) fn owned(&self, domain: DomId) -> usize {
        self.owned.get(&domain).copied().unwrap_or(0)
    }

    /// Puts a node in place or takes it away. The caller keeps parents' children in step.
    pub(super) fn put(&mut self, path: NodePath, node: Option<Node>) {
        self.generation += 1;
        let owner = node.as_ref().map(|node| node.permissions.owner());
        let before = match node {
            Some(node) => self.nodes.insert(path, Node { generation: self.generation, ..node }),
            None => self.nodes.remove(&path),
        };
        if let Some(count) = before.and_then(|before| self.owned.get_mut(&before.permissions.owner())) {
            *count -= 1;
        }
        if let Some(owner) = owner {
            *self.owned.entry(owner).or_default() += 1;
        }
        self.owned.retain(|_, count| *count > 0);
    }

    /// The topmost nodes that a domain owns, to be removed with it.
    pub(super) fn estate_of(&self, domain: DomId) -> Vec<NodePath> {
        let mut tops: Vec<NodePath> = Vec::new();
        for (path, node) in &self.nodes {
            if node.permissions.owner() == domain && !tops.iter().any(|top| top.covers(path)) {
                tops.push(path.clone());
            }
        }
        tops
    }

    /// Takes a dead domain's entries out of every other node's permissions.
    pub(super) fn forget(&mut self, domain: DomId) {
        for node in self.nodes.values_mut() {
            if node.permissions.forget(domain) {
                self.generation += 1;
                node.generation = self.generation;
            }
        }
    }

    /// Paths and nodes in order, special names included.
    #[cfg(test)]
    pub(super) fn iter(&self) -> impl Iterator<Item = (&NodePath, &Node)> {
        self.nodes.iter()
    }
}
