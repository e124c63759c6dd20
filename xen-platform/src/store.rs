//! XenStore as a frontend needs it: poll style, blocking only where it says so.

use alloc::{string::String, vec::Vec};
use core::time::Duration;

/// Why a XenStore operation failed. Names follow the errno words of xenstored's wire protocol (`xs_wire.h`).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// `ENOENT`.
    #[error("xenstore: no node {0}")]
    NoEntry(String),
    /// `EACCES`.
    #[error("xenstore: access to {0} denied")]
    Denied(String),
    /// `EAGAIN`: a transaction met a conflict more often than it was worth trying.
    #[error("xenstore: transaction conflict")]
    Conflict,
    /// `EQUOTA` or `ENOSPC`.
    #[error("xenstore: quota exceeded at {0}")]
    Quota(String),
    /// `EINVAL`: malformed path, or value or message too long.
    #[error("xenstore: invalid request for {0}")]
    Invalid(String),
    /// The connection is gone.
    #[error("xenstore: connection lost")]
    Disconnected,
    /// Any other errno word of the server, or an errno of the transport.
    #[error("xenstore: {0}")]
    Other(String),
}

/// One step of an atomic [`Store::apply`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change<'a> {
    /// The node must exist, else nothing is changed and [`StoreError::NoEntry`] is the answer: never resurrect what the
    /// toolstack deleted.
    Require(&'a str),
    /// Writes a node, making its parents.
    Write(&'a str, &'a str),
    /// Removes a node and what is below it; a missing one is fine.
    Remove(&'a str),
}

/// A watch that fired.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatchEvent {
    /// The node that changed, or the watched path itself.
    pub path: String,
    /// The token the watch was set with.
    pub token: String,
}

/// A connection to XenStore. Paths are absolute, or relative to the domain's own directory, whose name changes when the guest is
/// restored or migrated. Values are bytes; blkif's are ASCII.
///
/// Implementer: never loses a watch event, may merge equal ones. Caller: takes events promptly, and expects spurious ones
/// (each watch fires once when it is set).
pub trait Store {
    /// The value of a node.
    fn read(&mut self, path: &str) -> Result<Vec<u8>, StoreError>;
    /// The names of a node's children, in no particular order.
    fn list(&mut self, path: &str) -> Result<Vec<String>, StoreError>;
    /// Makes all `changes` in one transaction, trying again on a conflict.
    fn apply(&mut self, changes: &[Change<'_>]) -> Result<(), StoreError>;
    /// Watches a node and all below it.
    fn watch(&mut self, path: &str, token: &str) -> Result<(), StoreError>;
    /// Ends a watch.
    fn unwatch(&mut self, path: &str, token: &str) -> Result<(), StoreError>;
    /// The next watch event if one is there. Never blocks.
    fn next_event(&mut self) -> Result<Option<WatchEvent>, StoreError>;
    /// Blocks until an event is there or `timeout` has passed (`None`: for ever). True when one is there.
    fn wait(&mut self, timeout: Option<Duration>) -> Result<bool, StoreError>;
}
