//! What lenders and mappers ask of the hypervisor, however they reach it.

use std::sync::Arc;

use super::{guest::Guest, runs::Run};
use crate::{DomId, GrantError};

/// One process's line to the hypervisor. Nothing here is on the data path except the two questions at the end.
pub(crate) trait Hypervisor: Send + Sync {
    /// The domain this process runs in.
    fn dom(&self) -> DomId;
    /// Memory and table of a domain that is alive.
    fn guest(&self, dom: DomId) -> Result<Arc<Guest>, GrantError>;
    /// As [`guest`](Self::guest), for mapping its pages: also tells the number under which this process counts its mappings.
    fn guest_to_map(&self, dom: DomId) -> Result<(Arc<Guest>, u32), GrantError>;
    /// Pages of this process's domain, for it alone, zeroed.
    fn reserve(&self, pages: u32) -> Result<Run, GrantError>;
    /// Gives reserved pages back, none of which is lent.
    fn unreserve(&self, pages: Run);
    /// True once this process was killed: its counts are not its own any more.
    fn is_crashed(&self) -> bool;
    /// True when this map or copy is to fail on purpose.
    fn refuses(&self, from: DomId) -> bool;
}
