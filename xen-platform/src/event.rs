//! Event channels: how one domain wakes another.

use core::time::Duration;

use crate::{DomId, Port};

/// Why an event-channel operation failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EventError {
    /// The remote port is not an unbound port that waits for this domain (`EINVAL` of `bind_interdomain`). While a killed
    /// predecessor still owns the channel this passes by itself: retry.
    #[error("event channel: the remote port does not wait for us")]
    NotUnbound,
    /// The local port is not bound on this handle.
    #[error("event channel: port {0} is not bound here")]
    NotBound(Port),
    /// No such domain, or it is dying.
    #[error("event channel: no domain {0}")]
    NoDomain(DomId),
    /// No port left.
    #[error("event channel: no port left")]
    Exhausted,
    /// The world itself failed (its errno).
    #[error("event channel: system error {0}")]
    System(i32),
}

/// One handle on event channels, owned by one thread: any number of ports, one wake-up.
///
/// Semantics are those of `/dev/xen/evtchn`: a port that was delivered stays masked until [`unmask`](Self::unmask); events
/// that arrive meanwhile are merged into one and delivered after it; events may be spurious; binding an interdomain channel
/// leaves one event pending on the binder's end.
///
/// Implementer: dropping the handle closes its ports; closing the binder's end leaves the other end unbound and bindable
/// again by the same domain. Caller: handle the ring to its end (final check included) before unmasking; take pending ports
/// until there is none before waiting on a descriptor.
pub trait EventChannels {
    /// Makes an unbound port that `remote` may bind. Errors: no such domain, no port left.
    fn alloc_unbound(&mut self, remote: DomId) -> Result<Port, EventError>;
    /// Binds a new local port to `remote`'s unbound `port`. Errors: see [`EventError::NotUnbound`].
    fn bind_interdomain(&mut self, remote: DomId, port: Port) -> Result<Port, EventError>;
    /// Closes a local port.
    fn unbind(&mut self, port: Port) -> Result<(), EventError>;
    /// Signals the other end. Not an error when nobody is bound there: such events are lost, as on Xen.
    fn notify(&mut self, port: Port) -> Result<(), EventError>;
    /// Takes one pending port, which is masked from now on; `None` when nothing is pending. Never blocks.
    fn take_pending(&mut self) -> Option<Port>;
    /// Lets a taken port be delivered again.
    fn unmask(&mut self, port: Port) -> Result<(), EventError>;
    /// Blocks until an unmasked port is pending, or `timeout` has passed (`None`: for ever). True when one is pending; may
    /// also return early with false.
    fn wait(&mut self, timeout: Option<Duration>) -> Result<bool, EventError>;

    /// True when the handle's descriptor carries ports, four bytes each in the machine's order, as `/dev/xen/evtchn` does:
    /// reading takes those that are pending, writing one unmasks it. Who has both done together with other I/O says by
    /// [`feed`](Self::feed) what was read.
    fn is_stream(&self) -> bool {
        false
    }
    /// Ports that were read from the descriptor, to be taken by [`take_pending`](Self::take_pending). Of a handle that is a
    /// stream; any other ignores them.
    fn feed(&mut self, ports: &[u8]) {
        let _ = ports;
    }
}
