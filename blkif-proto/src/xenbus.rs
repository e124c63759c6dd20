//! Device states, and which of them may follow which.

/// State of one end of a device, as its `state` node says (Xen public header `io/xenbus.h`, `enum xenbus_state`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum State {
    /// No node, or nothing sensible in it.
    #[default]
    Unknown = 0,
    /// Just made by the toolstack, or starting again.
    Initialising = 1,
    /// Backend: features are published.
    InitWait = 2,
    /// Frontend: ring and event channel are published.
    Initialised = 3,
    /// In use. Some frontends come here without [`Initialised`](Self::Initialised), some never do.
    Connected = 4,
    /// About to close; a backend goes on serving.
    Closing = 5,
    /// Closed: nothing is shared any more.
    Closed = 6,
    /// Not used by block devices.
    Reconfiguring = 7,
    /// Not used by block devices.
    Reconfigured = 8,
}

impl State {
    /// Every state, at its own number.
    pub const ALL: [State; 9] = [
        State::Unknown,
        State::Initialising,
        State::InitWait,
        State::Initialised,
        State::Connected,
        State::Closing,
        State::Closed,
        State::Reconfiguring,
        State::Reconfigured,
    ];

    /// The state of a node's value. `None` for anything but one digit from 0 to 8.
    pub fn parse(value: impl AsRef<[u8]>) -> Option<State> {
        match value.as_ref() {
            [digit] => State::ALL.get(usize::from(digit.checked_sub(b'0')?)).copied(),
            _ => None,
        }
    }

    /// The state of a node as a peer sees it: a missing or senseless node is [`State::Unknown`], as in Linux and QEMU.
    pub fn of_node(value: Option<impl AsRef<[u8]>>) -> State {
        value.and_then(State::parse).unwrap_or(State::Unknown)
    }

    /// The node's value: one digit.
    pub const fn as_str(self) -> &'static str {
        match self {
            State::Unknown => "0",
            State::Initialising => "1",
            State::InitWait => "2",
            State::Initialised => "3",
            State::Connected => "4",
            State::Closing => "5",
            State::Closed => "6",
            State::Reconfiguring => "7",
            State::Reconfigured => "8",
        }
    }

    /// True for the two states in which a frontend has published its rings and must be served: some never leave the first
    /// (GRUB), some skip it (mini-os, OVMF, U-Boot).
    pub const fn is_served(self) -> bool {
        matches!(self, State::Initialised | State::Connected)
    }
}

impl core::fmt::Display for State {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        core::fmt::Debug::fmt(self, f)
    }
}

/// The two ends of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum End {
    /// The guest's.
    Frontend,
    /// The disk's.
    Backend,
}

impl End {
    /// True when a well-behaved end may write `to` over its own `from`. What a peer does is no concern of this: guests crash,
    /// and come back in any state (PROTOCOL.md 5.2).
    ///
    /// ```text
    /// frontend   1 ─► 3 ─► 4 ─► 5 ─► 6 ─► 1    shortcut 1 ─► 4; 5 or 6 from anywhere before
    /// backend    1 ─► 2 ─► 4 ─► 5 ─► 6 ─► 2    4 ─► 4 announces a new size, 4 ─► 2 attaches again, 5 ─► 2 for a guest that
    ///                                          came back without closing; 5 or 6 from anywhere before
    /// ```
    pub const fn allows(self, from: State, to: State) -> bool {
        use State::{Closed, Closing, Connected, InitWait, Initialised, Initialising};
        match self {
            End::Frontend => match from {
                Initialising => matches!(to, Initialised | Connected | Closing | Closed),
                Initialised => matches!(to, Connected | Closing | Closed),
                Connected => matches!(to, Closing | Closed),
                Closing => matches!(to, Closed),
                Closed => matches!(to, Initialising),
                _ => false,
            },
            End::Backend => match from {
                Initialising => matches!(to, InitWait | Closing | Closed),
                InitWait => matches!(to, Connected | Closing | Closed),
                Connected => matches!(to, InitWait | Connected | Closing | Closed),
                Closing => matches!(to, InitWait | Closed),
                Closed => matches!(to, InitWait),
                _ => false,
            },
        }
    }
}

#[cfg(test)]
mod tests;
