//! Event channels: who is bound to whom, what is pending and what is masked.
//!
//! ```text
//!            alloc_unbound            bind_interdomain               close (binder)
//!   closed ───────────────▶ unbound ──────────────────▶ interdomain ───────────────▶ unbound ─▶ ..
//! ```
//!
//! The rules are those of Xen's `event_channel.c`: a port waits for one domain; binding it leaves one event pending on the
//! binder's end; closing one end of a bound channel leaves the other waiting for the same domain again.

use std::collections::BTreeMap;

use crate::{DomId, EventError, Port};

/// One end of a channel.
pub(crate) type End = (DomId, Port);

/// A process that owns ports.
pub(crate) type Owner = u64;

/// What a channel is called while either of its ends is open.
pub(crate) type ChannelId = u64;

/// Which of a channel's two sides an end is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    First,
    Second,
}

impl Side {
    pub(crate) fn other(self) -> Self {
        match self {
            Side::First => Side::Second,
            Side::Second => Side::First,
        }
    }
}

/// A port that was made: its number, and where its events come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Opened {
    pub(crate) port: Port,
    pub(crate) channel: ChannelId,
    pub(crate) side: Side,
}

/// Xen's limit for guests with two-level events on 64 bits (`EVTCHN_2L_NR_CHANNELS`).
const MAX_PORTS: u32 = 4096;

/// All event channels of a machine.
#[derive(Debug, Default)]
pub(crate) struct EventTable {
    ends: BTreeMap<End, Channel>,
    next: ChannelId,
}

#[derive(Debug)]
struct Channel {
    owner: Owner,
    id: ChannelId,
    side: Side,
    remote: DomId,
    /// The other end's port, while it is bound.
    peer: Option<Port>,
    pending: bool,
    masked: bool,
}

impl EventTable {
    /// A port of `dom` that `remote` may bind.
    pub(crate) fn alloc_unbound(
        &mut self,
        dom: DomId,
        remote: DomId,
        owner: Owner,
    ) -> Result<Opened, EventError> {
        self.next += 1;
        let channel = Channel::new(owner, self.next, Side::First, remote, None);
        self.open(dom, channel)
    }

    /// A port of `dom`, bound to `remote`'s `port`.
    pub(crate) fn bind(
        &mut self,
        dom: DomId,
        remote: DomId,
        port: Port,
        owner: Owner,
    ) -> Result<Opened, EventError> {
        let waiting = self.ends.get(&(remote, port)).filter(|end| end.remote == dom && end.peer.is_none());
        let waiting = waiting.ok_or(EventError::NotUnbound)?;
        let mut channel = Channel::new(owner, waiting.id, waiting.side.other(), remote, Some(port));
        channel.pending = true;
        let opened = self.open(dom, channel)?;
        if let Some(waiting) = self.ends.get_mut(&(remote, port)) {
            waiting.peer = Some(opened.port);
        }
        Ok(opened)
    }

    /// Closes an end; gives the channel's name when nothing of it is left.
    pub(crate) fn close(&mut self, end: End) -> Option<ChannelId> {
        let closed = self.ends.remove(&end)?;
        match closed.peer.and_then(|port| self.ends.get_mut(&(closed.remote, port))) {
            Some(peer) => {
                peer.peer = None;
                None
            }
            None => Some(closed.id),
        }
    }

    /// The ends that a domain has, or that a process has.
    pub(crate) fn ends_where(&self, dom: Option<DomId>, owner: Option<Owner>) -> Vec<End> {
        let matches = |end: &End, channel: &Channel| {
            dom.is_none_or(|dom| dom == end.0) && owner.is_none_or(|owner| owner == channel.owner)
        };
        self.ends.iter().filter(|(end, channel)| matches(end, channel)).map(|(end, _)| *end).collect()
    }

    /// The process that owns an end.
    pub(crate) fn owner(&self, end: End) -> Option<Owner> {
        self.ends.get(&end).map(|channel| channel.owner)
    }

    /// The end that is signalled when `end` is notified; `None` when nobody is bound there.
    pub(crate) fn peer(&self, end: End) -> Option<End> {
        let channel = self.ends.get(&end)?;
        Some((channel.remote, channel.peer?))
    }

    /// The number of open ends.
    pub(crate) fn len(&self) -> usize {
        self.ends.len()
    }

    /// The open end at `index`, in the order of domains and ports.
    pub(crate) fn nth(&self, index: usize) -> Option<End> {
        self.ends.keys().nth(index).copied()
    }

    /// Makes an end pending.
    pub(crate) fn set_pending(&mut self, end: End) {
        if let Some(channel) = self.ends.get_mut(&end) {
            channel.pending = true;
        }
    }

    /// True when an event would be delivered at `end`.
    pub(crate) fn is_deliverable(&self, end: End) -> bool {
        self.ends.get(&end).is_some_and(|channel| channel.pending && !channel.masked)
    }

    /// Delivers the event of an end, which masks it; false when there is none or the end is masked.
    pub(crate) fn take(&mut self, end: End) -> bool {
        match self.ends.get_mut(&end) {
            Some(channel) if channel.pending && !channel.masked => {
                channel.pending = false;
                channel.masked = true;
                true
            }
            _ => false,
        }
    }

    /// Lets an end be delivered again; `None` where there is no such end.
    pub(crate) fn unmask(&mut self, end: End) -> Option<()> {
        self.ends.get_mut(&end)?.masked = false;
        Some(())
    }

    /// Gives a channel's end the lowest free port of its domain. Port 0 is never used, as on Xen.
    fn open(&mut self, dom: DomId, channel: Channel) -> Result<Opened, EventError> {
        let used = self.ends.range((dom, Port(0))..=(dom, Port(u32::MAX))).map(|((_, port), _)| port.0);
        let free = used.zip(1..).find(|(used, candidate)| used != candidate).map(|(_, candidate)| candidate);
        let count = || self.ends.range((dom, Port(0))..=(dom, Port(u32::MAX))).count();
        let port = free.or_else(|| u32::try_from(count() + 1).ok()).filter(|port| *port < MAX_PORTS);
        let port = Port(port.ok_or(EventError::Exhausted)?);
        let opened = Opened { port, channel: channel.id, side: channel.side };
        self.ends.insert((dom, port), channel);
        Ok(opened)
    }
}

impl Channel {
    fn new(owner: Owner, id: ChannelId, side: Side, remote: DomId, peer: Option<Port>) -> Self {
        Self { owner, id, side, remote, peer, pending: false, masked: false }
    }
}

#[cfg(test)]
mod tests;
