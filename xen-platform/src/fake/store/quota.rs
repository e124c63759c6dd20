//! What one guest may take of the store; numbers are xenstored's defaults (4.17 to today). Domain 0 has no limits but those
//! that bound the memory of every connection.

use super::perms::Actor;
use crate::wire::Errno;

/// Limits for each unprivileged domain or connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Quota {
    /// Nodes that a domain may own.
    pub nodes: usize,
    /// Watches of a connection.
    pub watches: usize,
    /// Open transactions of a connection.
    pub transactions: usize,
    /// Bytes of a node: its value and its children's names.
    pub node_bytes: usize,
    /// Permission entries of a node.
    pub permissions: usize,
    /// Nodes that a transaction may touch.
    pub transaction_nodes: usize,
    /// Bytes of a path, without the domain's own directory.
    pub path_bytes: usize,
}

impl Quota {
    /// xenstored's defaults.
    pub const DEFAULT: Quota = Quota {
        nodes: 1000,
        watches: 128,
        transactions: 10,
        node_bytes: 2048,
        permissions: 5,
        transaction_nodes: 1024,
        path_bytes: 2048,
    };

    /// `refusal` when an unprivileged `actor` would come to have `count` of something limited to `limit`.
    pub(super) fn check(actor: &Actor, count: usize, limit: usize, refusal: Errno) -> Result<(), Errno> {
        if actor.privileged() || count <= limit { Ok(()) } else { Err(refusal) }
    }
}

impl Default for Quota {
    fn default() -> Self {
        Self::DEFAULT
    }
}
