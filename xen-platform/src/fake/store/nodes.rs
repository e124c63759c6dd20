//! The operations on nodes, under permissions and quotas.

use super::{
    path::NodePath,
    perms::{Actor, Need, Permissions},
    quota::Quota,
    transaction::Draft,
    tree::{Node, Tree},
};
use crate::wire::Errno;

/// One actor's view of the tree through a draft. An operation that fails changes nothing.
pub(super) struct Nodes<'a> {
    pub(super) tree: &'a Tree,
    pub(super) draft: &'a mut Draft,
    pub(super) actor: Actor,
    pub(super) quota: &'a Quota,
}

impl Nodes<'_> {
    /// A node that the actor may use so. Errors: `ENOENT`, `EACCES`; where the node is missing, the nearest node above decides
    /// which of the two the actor may know.
    pub(super) fn node(&mut self, path: &NodePath, need: Need) -> Result<&Node, Errno> {
        let actor = self.actor;
        let mut at = path.clone();
        let missing = loop {
            match self.get(&at)? {
                Some(node) if !node.permissions.allow(&actor, need) => return Err(Errno::Acces),
                Some(_) => break at != *path,
                None => at = at.parent().ok_or(Errno::Noent)?,
            }
        };
        if missing { Err(Errno::Noent) } else { self.get(path)?.ok_or(Errno::Noent) }
    }

    /// Writes a value, making the node and its parents if need be.
    pub(super) fn write(&mut self, path: &NodePath, value: &[u8]) -> Result<(), Errno> {
        ordinary(path)?;
        match self.node(path, Need::Write).cloned() {
            Ok(node) => {
                let node = Node { value: value.to_vec(), ..node };
                self.fits(node.bytes())?;
                self.put(path, Some(node));
            }
            Err(Errno::Noent) => self.create(path, value)?,
            Err(errno) => return Err(errno),
        }
        self.draft.fire(path, false);
        Ok(())
    }

    /// Makes a node and its parents; one that is there stays as it is.
    pub(super) fn mkdir(&mut self, path: &NodePath) -> Result<(), Errno> {
        ordinary(path)?;
        match self.node(path, Need::Write) {
            Ok(_) => return Ok(()),
            Err(Errno::Noent) => self.create(path, &[])?,
            Err(errno) => return Err(errno),
        }
        self.draft.fire(path, false);
        Ok(())
    }

    /// Removes a node and all below it; a missing one is fine if its parent is there.
    pub(super) fn remove(&mut self, path: &NodePath) -> Result<(), Errno> {
        ordinary(path)?;
        let parent = path.parent().ok_or(Errno::Inval)?;
        match self.node(path, Need::Write) {
            Ok(_) => {}
            Err(Errno::Noent) => return self.get(&parent)?.map(drop).ok_or(Errno::Noent),
            Err(errno) => return Err(errno),
        }
        let doomed = self.subtree(path)?;
        let above = self.get(&parent)?.cloned();
        for each in &doomed {
            self.put(each, None);
            self.draft.fire(each, each != path);
        }
        if let Some(mut above) = above {
            above.children.remove(path.name());
            self.put(&parent, Some(above));
        }
        Ok(())
    }

    /// Replaces a node's permissions. Errors: `EPERM` when a guest tries to give a node away.
    pub(super) fn set_permissions(&mut self, path: &NodePath, permissions: Permissions) -> Result<(), Errno> {
        Quota::check(&self.actor, permissions.entries().count(), self.quota.permissions, Errno::Nospc)?;
        let node = self.node(path, Need::Own)?.clone();
        if !self.actor.privileged() && node.permissions.owner() != permissions.owner() {
            return Err(Errno::Perm);
        }
        self.put(path, Some(Node { permissions, ..node }));
        self.draft.fire(path, false);
        Ok(())
    }

    fn create(&mut self, path: &NodePath, value: &[u8]) -> Result<(), Errno> {
        let own = NodePath::of_domain(self.actor.domain);
        let length = path.relative_to(&own).map_or(path.as_str().len(), str::len);
        Quota::check(&self.actor, length, self.quota.path_bytes, Errno::Inval)?;
        let mut missing = vec![path.clone()];
        let mut parent = path.parent();
        let (above, mut node) = loop {
            let at = parent.ok_or(Errno::Noent)?;
            match self.get(&at)? {
                Some(node) => break (at.clone(), node.clone()),
                None => {
                    parent = at.parent();
                    missing.push(at);
                }
            }
        };
        let permissions = node.permissions.inherited(&self.actor);
        let owned = self.draft.owned(self.tree, permissions.owner()) + missing.len();
        Quota::check(&self.actor, owned, self.quota.nodes, Errno::Nospc)?;
        let top = missing.last().map_or("", NodePath::name).to_owned();
        node.children.insert(top);
        self.fits(node.bytes())?;
        self.fits(value.len())?;
        self.put(&above, Some(node));
        let mut below: Option<String> = None;
        for each in &missing {
            let mut made = Node::new(permissions.clone());
            match below.replace(each.name().to_owned()) {
                Some(child) => drop(made.children.insert(child)),
                None => made.value = value.to_vec(),
            }
            self.put(each, Some(made));
        }
        Ok(())
    }

    /// A node and all below it, parents first.
    fn subtree(&mut self, top: &NodePath) -> Result<Vec<NodePath>, Errno> {
        let mut found = vec![top.clone()];
        let mut next = 0;
        while let Some(at) = found.get(next).cloned() {
            next += 1;
            if let Some(node) = self.get(&at)? {
                let children: Vec<_> = node.children.iter().map(|name| at.child(name)).collect();
                found.extend(children);
            }
        }
        Ok(found)
    }

    fn get(&mut self, path: &NodePath) -> Result<Option<&Node>, Errno> {
        Quota::check(&self.actor, self.draft.nodes(), self.quota.transaction_nodes, Errno::Nospc)?;
        Ok(self.draft.get(self.tree, path))
    }

    fn put(&mut self, path: &NodePath, node: Option<Node>) {
        self.draft.put(self.tree, path, node);
    }

    fn fits(&self, bytes: usize) -> Result<(), Errno> {
        Quota::check(&self.actor, bytes, self.quota.node_bytes, Errno::Nospc)
    }
}

/// Special names can be watched and guarded, not written.
fn ordinary(path: &NodePath) -> Result<(), Errno> {
    if path.is_special() { Err(Errno::Inval) } else { Ok(()) }
}
