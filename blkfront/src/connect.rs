//! The handshake, as a function of what both ends' `state` nodes say and of the time. It does no I/O: the shell
//! ([`driver`](crate::driver)) reads states, calls [`Handshake::advance`], and does what the answer says.
//!
//! ```text
//!                       ┌── what an earlier driver left ──┐
//!   own state 3, 4, 5 ─▶│ Closing(5) ─▶ Closed(6)         │─▶ Waiting(1) ─▶ Offered ─▶ Initialised(3) ─▶ Connected(4)
//!   own state 6 ───────▶└─────────────────────────────────┘        ▲                                        │   │
//!                                                                  └───────── the backend went away ────────┘   │
//!                                     Ended ◀── Closed(6) ◀── Closing(5) ◀── close() ───────────────────────────┘
//! ```
//!
//! The rules are PROTOCOL.md 5.3 and 5.5; the table test goes through them row by row.

use core::time::Duration;

use blkif_proto::xenbus::State;

/// How far the handshake is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// We are to be `Closing`, and wait for the backend to follow.
    Closing,
    /// We are to be `Closed`, and wait for the backend to follow.
    Closed,
    /// We are to be `Initialising`, and wait for the backend to wait for us.
    Waiting,
    /// The backend waits for us; the application is setting up.
    Offered,
    /// The rings are offered; we wait for the backend to connect.
    Initialised,
    /// Both are connected.
    Connected,
    /// Closed, and meant to be.
    Ended,
}

/// What the shell is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Nothing before the next change of a state, or the deadline.
    Wait,
    /// Write this state as our own, then advance again.
    Write(State),
    /// The backend waits for us: make the rings, publish them with `Initialised`, then call [`Handshake::published`].
    SetUp,
    /// The backend has connected: read the disk's keys, write `Connected`, then call [`Handshake::connected`].
    Connect,
    /// The backend's keys may have changed: read the disk's size again.
    Reread,
    /// The backend asks to close; told once.
    AskedToClose,
    /// The backend is gone, or gone again. Advancing goes on with a new connection.
    Lost,
    /// The backend closed before the device was connected.
    Refused,
    /// The deadline passed; the words say what was waited for.
    TimedOut(&'static str),
    /// Closing is done.
    Ended,
}

/// The frontend's side of one device's handshake.
#[derive(Debug)]
pub(crate) struct Handshake {
    phase: Phase,
    /// Closing leads to [`Phase::Ended`], not to a new connection.
    ending: bool,
    /// Our own state as we last wrote or read it.
    own: State,
    /// The toolstack gave the device another backend since we connected.
    replaced: bool,
    /// Told the application that the backend is `Closing`.
    told: bool,
    limit: Duration,
    /// No deadline while this is false: a backend that went away may stay away for long.
    limited: bool,
    since: Duration,
}

impl Handshake {
    /// Takes over a device whose own state node says `own`. Each wait may take `limit`.
    pub(crate) fn open(own: State, backend: State, limit: Duration, now: Duration) -> Self {
        let mut this = Self {
            phase: Phase::Waiting,
            ending: false,
            own,
            replaced: false,
            told: false,
            limit,
            limited: true,
            since: now,
        };
        this.restart(backend, now);
        this
    }

    /// What to do now that the backend's state node says `backend` ([`State::Unknown`] when there is none). Call it again after
    /// [`Action::Write`], and whenever a state changes or [`deadline`](Self::deadline) passes.
    pub(crate) fn advance(&mut self, backend: State, now: Duration) -> Action {
        match self.phase {
            Phase::Closing => self.closing(backend, now),
            Phase::Closed => self.closed(backend, now),
            Phase::Waiting => self.waiting(backend, now),
            // Nobody will look at the rings that we have offered: the toolstack made the device anew.
            Phase::Initialised if self.own != State::Initialised => self.refused(backend, now),
            Phase::Offered | Phase::Initialised => match backend {
                State::Closing | State::Closed | State::Unknown => self.refused(backend, now),
                _ if self.phase == Phase::Offered => Action::Wait,
                State::Connected => Action::Connect,
                _ => self.wait(now, "Connected"),
            },
            Phase::Connected => self.serving(backend, now),
            Phase::Ended => Action::Ended,
        }
    }

    /// The rings are published and our state is `Initialised`.
    pub(crate) fn published(&mut self, now: Duration) {
        self.own = State::Initialised;
        self.enter(Phase::Initialised, now);
    }

    /// Our state is `Connected`.
    pub(crate) fn connected(&mut self, now: Duration) {
        self.own = State::Connected;
        self.told = false;
        self.replaced = false;
        self.limited = true;
        self.enter(Phase::Connected, now);
    }

    /// Somebody else (the toolstack) has set our own state, as it does when it makes the device anew.
    pub(crate) fn reset_by_others(&mut self, own: State) {
        self.own = own;
    }

    /// The device has another backend; whoever was connected is not any more.
    pub(crate) fn moved(&mut self) {
        self.replaced = true;
    }

    /// The application wants to close the device for good.
    pub(crate) fn close(&mut self, now: Duration) {
        self.ending = true;
        self.limited = true;
        self.enter(Phase::Closing, now);
    }

    /// Changes how long each wait may take.
    pub(crate) fn set_limit(&mut self, limit: Duration) {
        self.limit = limit;
    }

    /// True while both ends are connected.
    pub(crate) fn is_connected(&self) -> bool {
        self.phase == Phase::Connected
    }

    /// Our own state as it should be in XenStore.
    pub(crate) fn own(&self) -> State {
        self.own
    }

    /// When [`advance`](Self::advance) is due even if nothing changes.
    pub(crate) fn deadline(&self) -> Option<Duration> {
        let waits = !matches!(self.phase, Phase::Offered | Phase::Connected | Phase::Ended);
        (waits && self.limited).then(|| self.since.saturating_add(self.limit))
    }

    /// Begins a connection, from whatever the own state is.
    fn restart(&mut self, backend: State, now: Duration) {
        let phase = match (self.own, backend) {
            (State::Initialising, _) => Phase::Waiting,
            (State::Closed, _) => Phase::Closed,
            // Nobody is connected at the other end, so nobody has to be told.
            (_, State::Unknown | State::Initialising) => Phase::Waiting,
            (_, State::Closed) => Phase::Closed,
            _ => Phase::Closing,
        };
        self.enter(phase, now);
    }

    fn closing(&mut self, backend: State, now: Duration) -> Action {
        match backend {
            // It is as far as we want it, or has nothing to close.
            State::Closed | State::Unknown | State::Initialising => {
                self.enter(Phase::Closed, now);
                self.closed(backend, now)
            }
            _ if self.own != State::Closing => self.write(State::Closing),
            State::Closing => {
                self.enter(Phase::Closed, now);
                self.closed(backend, now)
            }
            _ => self.wait(now, "Closing"),
        }
    }

    fn closed(&mut self, backend: State, now: Duration) -> Action {
        if self.own != State::Closed {
            return self.write(State::Closed);
        }
        match backend {
            State::Closing | State::Connected | State::Initialised => self.wait(now, "Closed"),
            // While we are closed a backend that was never connected may stay where it is.
            _ if self.ending => {
                self.enter(Phase::Ended, now);
                Action::Ended
            }
            _ => {
                self.enter(Phase::Waiting, now);
                self.waiting(backend, now)
            }
        }
    }

    fn waiting(&mut self, backend: State, now: Duration) -> Action {
        if self.own != State::Initialising {
            return self.write(State::Initialising);
        }
        match backend {
            State::InitWait | State::Initialised | State::Connected => {
                self.enter(Phase::Offered, now);
                Action::SetUp
            }
            _ => self.wait(now, "InitWait"),
        }
    }

    fn serving(&mut self, backend: State, now: Duration) -> Action {
        // The toolstack made the device anew while we were not looking.
        let replaced = self.replaced || self.own != State::Connected;
        match backend {
            _ if replaced => self.lost(backend, now),
            State::Closed | State::Unknown => self.lost(backend, now),
            State::Closing if !self.told => {
                self.told = true;
                Action::AskedToClose
            }
            State::Connected => Action::Reread,
            // InitWait among them: a backend that starts again takes up the same rings (PROTOCOL.md 5.5).
            _ => Action::Wait,
        }
    }

    /// The backend does not take what we offered. While it comes and goes after we were connected once, so do we.
    fn refused(&mut self, backend: State, now: Duration) -> Action {
        if self.limited { Action::Refused } else { self.lost(backend, now) }
    }

    fn lost(&mut self, backend: State, now: Duration) -> Action {
        self.limited = false;
        self.restart(backend, now);
        Action::Lost
    }

    fn enter(&mut self, phase: Phase, now: Duration) {
        self.phase = phase;
        self.since = now;
    }

    fn write(&mut self, state: State) -> Action {
        self.own = state;
        Action::Write(state)
    }

    fn wait(&self, now: Duration, wanted: &'static str) -> Action {
        match self.deadline() {
            Some(deadline) if now >= deadline => Action::TimedOut(wanted),
            _ => Action::Wait,
        }
    }
}

#[cfg(test)]
mod tests;
