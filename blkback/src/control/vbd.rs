//! One virtual block device's life, as a function: what is and what happened in, what to do out.
//!
//! The function never waits and never looks anywhere: directories, images and rings are what the last [`Event`] said they
//! are. It is written as rules about the present, not about the past, because watches merge: a state that a guest passed
//! through may never be seen. Source of the rules: PROTOCOL.md 5.2, 5.4, 5.5, and section 0, rules 7 to 11, 23, 26 to 31.
//!
//! ```text
//!               1 ──image, or a script that needs us at 2──▶ 2 ──frontend 3 or 4, script done──▶ rings ──▶ 4
//!               ▲                                            ▲                                             │
//!    frontend 1 │                                            └───── frontend came back without closing ────┤
//!               │                                                                                          │
//!               6 ◀──── drained ◀──── frontend 6 or gone ◀──── 5 ◀──── frontend 5, broken ring, detach ────┘
//! ```

use std::time::Duration;

use blkif_proto::xenbus::State;

mod event;

pub use event::{Action, Event, Script, Seen, StartFailure};

/// The image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Medium {
    Shut,
    Opening,
    Open,
    /// Reported; not tried again before the guest starts anew.
    Failed,
}

/// The rings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rings {
    None,
    Starting {
        since: Duration,
    },
    /// The guest's event channel was not free: a killed predecessor has it.
    Waiting {
        since: Duration,
        retry: Duration,
    },
    Served,
    Draining,
}

/// A virtual block device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vbd {
    seen: Option<Seen>,
    /// What our state node says, whoever wrote it.
    own: State,
    medium: Medium,
    rings: Rings,
    /// The frontend was there once: if it is missing now, it is gone and not late.
    met: bool,
    /// The frontend has begun anew since its rings were mapped.
    reborn: bool,
    /// The frontend has begun since we last closed.
    begun: bool,
    /// The toolstack has made the device anew under our hands.
    remade: bool,
    /// An earlier daemon may have served the frontend that is there.
    inherited: bool,
    /// When the toolstack has waited long enough for our state 2.
    overdue: Option<Duration>,
    /// When the toolstack has had time to see that a device is closed whose directory is ours to remove.
    leaving: Option<Duration>,
    /// The device is being closed for an error; rings are not served again before the frontend has closed.
    condemned: bool,
    /// The daemon ends, and since when.
    ending: Option<Duration>,
    patience: Duration,
    /// Nobody else removes devices that are closed for good.
    removes: bool,
}

/// How long state 2 waits for a slow image. libxl gives up after 10 s.
const OFFER_AFTER: Duration = Duration::from_secs(5);
/// How long a closed device's directory is left, if removing it is up to us: libxl must see the 6, and then waits 10 s.
const REMOVE_AFTER: Duration = Duration::from_secs(2);
/// How often an event channel is tried that a dying predecessor still has.
const RETRY_EVERY: Duration = Duration::from_millis(100);
/// How long it is tried.
const RETRY_FOR: Duration = Duration::from_secs(10);

impl Vbd {
    /// A device of which nothing is known. When the daemon ends, guests have `patience` to close. `removes`: the directory of
    /// one that is closed for good is ours to remove.
    pub fn new(patience: Duration, removes: bool) -> Self {
        Self {
            seen: None,
            own: State::Initialising,
            medium: Medium::Shut,
            rings: Rings::None,
            met: false,
            reborn: false,
            begun: false,
            remade: false,
            inherited: false,
            overdue: None,
            leaving: None,
            condemned: false,
            ending: None,
            patience,
            removes,
        }
    }

    /// True before its nodes were first seen.
    pub fn is_new(&self) -> bool {
        self.seen.is_none()
    }

    /// True when no script tells the toolstack how it went, but we.
    pub fn is_unscripted(&self) -> bool {
        self.seen.as_ref().is_some_and(|seen| matches!(seen.script, Script::None | Script::Ours))
    }

    /// True when an earlier daemon left it connected, and its rings are not served yet.
    pub fn is_inherited(&self) -> bool {
        self.inherited
    }

    /// The state it shows.
    pub fn state(&self) -> State {
        self.own
    }

    /// Takes an event in. `now` is the time since an arbitrary start.
    pub fn step(mut self, event: Event, now: Duration) -> (Self, Vec<Action>) {
        let mut actions = Vec::new();
        self.absorb(event, now, &mut actions);
        self.settle(now, &mut actions);
        (self, actions)
    }

    /// What the event says becomes part of what is.
    fn absorb(&mut self, event: Event, now: Duration, actions: &mut Vec<Action>) {
        match event {
            Event::Seen(seen) => self.see(seen),
            Event::Opened(Ok(())) => {
                self.medium = Medium::Open;
            }
            Event::Opened(Err(text)) => {
                self.medium = Medium::Failed;
                self.condemn(text, actions);
            }
            Event::Started(Ok(())) => {
                self.rings = Rings::Served;
                self.inherited = false;
                // Otherwise the device is being closed already: serve all the same, but do not go back.
                if self.own == State::InitWait && !self.is_gone() {
                    actions.extend([Action::Absolve, Action::Announce]);
                    self.set(State::Connected, actions);
                }
            }
            Event::Started(Err(failure)) => {
                let since = match self.rings {
                    Rings::Starting { since } => since,
                    _ => now,
                };
                self.rings = Rings::None;
                if failure.may_pass && now < since + RETRY_FOR {
                    actions.push(Action::Wake(now + RETRY_EVERY));
                    self.rings = Rings::Waiting { since, retry: now + RETRY_EVERY };
                } else if !self.reborn {
                    // Else the keys were those of a guest that is no more.
                    self.condemn(failure.text, actions);
                }
            }
            Event::Drained => self.rings = Rings::None,
            Event::Broken(text) => {
                self.condemn(text, actions);
                self.drained(actions);
            }
            Event::Resized => {
                if self.own == State::Connected {
                    actions.push(Action::AnnounceSize);
                }
            }
            Event::Tick => {}
            Event::Shutdown => {
                self.ending.get_or_insert(now);
                actions.push(Action::Wake(now + self.patience));
            }
        }
    }

    fn see(&mut self, seen: Seen) {
        use State::{Closed, Closing, Connected, InitWait, Initialised, Initialising, Unknown};
        let before = self.seen.as_ref().map_or(Unknown, |seen| seen.frontend);
        let frontend = seen.frontend;
        self.met |= frontend != Unknown;
        // Merged watches hide states: a guest may have closed and begun anew since we last looked.
        let begins = frontend == Initialising && !matches!(before, Unknown | Initialising)
            || frontend.is_served() && matches!(before, Closing | Closed)
            || frontend == Initialised && before == Connected
            || seen.renewed && !self.condemned;
        self.reborn |= self.rings != Rings::None && (begins || frontend == Initialising);
        self.begun |= begins || frontend == Initialising;
        if seen.online {
            self.leaving = None;
        }
        if begins {
            self.condemned = false;
            if self.medium == Medium::Failed {
                self.medium = Medium::Shut;
            }
        }
        match seen.own {
            // At our first look it is what the toolstack, or an earlier daemon, left.
            Some(own) if self.seen.is_none() => {
                self.own = adopted(own);
                // At 2 an earlier daemon may have been about to take it over from one before.
                self.inherited = matches!(own, InitWait | Connected) && frontend.is_served();
            }
            // Afterwards only the toolstack writes it: to detach, to force, or by making the device anew.
            Some(own @ (Initialising | Closing | Closed)) => {
                self.remade |= own == Initialising && self.own != Initialising;
                if own == Closed && self.own != Closed {
                    // The frontend whose rings were taken away is not the one to connect next.
                    self.begun = frontend == Initialising;
                }
                self.own = own;
            }
            _ => {}
        }
        self.seen = Some(seen);
    }

    /// What follows from what is.
    fn settle(&mut self, now: Duration, actions: &mut Vec<Action>) {
        let Some(seen) = self.seen.clone() else {
            // Half made, or half deleted: there is nothing to end.
            if self.ending.is_some() {
                actions.push(Action::Forget);
            }
            return;
        };
        if self.is_gone() {
            return self.vanish(actions);
        }
        if self.ending.is_some() {
            return self.end(&seen, now, actions);
        }
        // Forced to 6, or made anew at 1: whatever is still served belongs to the past.
        if (self.own == State::Closed || self.remade) && !self.drained(actions) {
            return;
        }
        if std::mem::take(&mut self.remade) {
            (self.condemned, self.reborn, self.inherited, self.overdue) = (false, false, false, None);
            self.shut(actions);
        }
        // The toolstack clears `online` together with writing a 5, which a write of ours may have covered.
        if !seen.online && matches!(self.own, State::InitWait | State::Connected) {
            self.set(State::Closing, actions);
        }
        match seen.frontend {
            State::Closed => self.close(&seen, now, actions),
            State::Unknown if self.met || !seen.online => self.close(&seen, now, actions),
            // Served on until it has closed.
            State::Closing if self.own == State::Closed => {}
            State::Closing => self.set(State::Closing, actions),
            State::Initialised | State::Connected => self.serve(&seen, now, actions),
            _ => self.wait(&seen, now, actions),
        }
    }

    /// The frontend has published rings.
    fn serve(&mut self, seen: &Seen, now: Duration, actions: &mut Vec<Action>) {
        if self.reborn {
            if !self.drained(actions) {
                return;
            }
            self.reborn = false;
            // Also from 5, which this guest never saw.
            if seen.online && !self.condemned {
                actions.push(Action::Offer);
                self.set(State::InitWait, actions);
            }
        }
        // A guest that was there when we closed, or an earlier daemon did, is waited for to close.
        if self.condemned
            || self.own == State::Closing
            || self.own == State::Closed && !(self.begun && seen.online)
        {
            return;
        }
        self.offer(seen, now, actions);
        let ready = self.medium == Medium::Open && !matches!(seen.script, Script::Running | Script::Failed);
        let due = match self.rings {
            Rings::None => Some(now),
            Rings::Waiting { since, retry } if now >= retry => Some(since),
            _ => None,
        };
        if let (true, Some(since), State::InitWait | State::Connected) = (ready, due, self.own) {
            self.rings = Rings::Starting { since };
            self.set(State::InitWait, actions);
            actions.push(Action::Start { used: self.inherited });
        }
    }

    /// The frontend is not there yet, or is in a state that means nothing.
    fn wait(&mut self, seen: &Seen, now: Duration, actions: &mut Vec<Action>) {
        match self.own {
            // A detach without an active frontend: nobody else will move. Or a guest that died while it closed.
            State::Closing if !self.condemned || !seen.online => self.close(seen, now, actions),
            State::Closed if !seen.online => self.leave(seen, now, actions),
            State::Closed if self.begun && !self.condemned => self.offer(seen, now, actions),
            State::Initialising | State::InitWait if !self.condemned => self.offer(seen, now, actions),
            // The guest began anew while no daemon was there.
            State::Connected if self.rings == Rings::None && !self.condemned => {
                self.inherited = false;
                actions.push(Action::Offer);
                self.set(State::InitWait, actions);
            }
            _ => {}
        }
    }

    /// Opens what must be open, and shows state 2.
    fn offer(&mut self, seen: &Seen, now: Duration, actions: &mut Vec<Action>) {
        if self.medium == Medium::Shut && seen.script != Script::Running && seen.script != Script::Failed {
            self.medium = Medium::Opening;
            actions.push(Action::Open);
        }
        if self.medium == Medium::Open && seen.script == Script::Ours {
            actions.push(Action::Approve);
        }
        if !matches!(self.own, State::Initialising | State::Closed) {
            return;
        }
        // A script is only run once we are at 2; a slow image must not make the toolstack give up.
        if !self.is_unscripted()
            || self.medium == Medium::Open
            || passed(&mut self.overdue, OFFER_AFTER, now, actions)
        {
            actions.push(Action::Offer);
            self.set(State::InitWait, actions);
            self.overdue = None;
        }
    }

    /// The frontend has closed, or is gone.
    fn close(&mut self, seen: &Seen, now: Duration, actions: &mut Vec<Action>) {
        if !self.drained(actions) {
            return;
        }
        (self.reborn, self.begun, self.inherited) = (false, seen.frontend == State::Initialising, false);
        // Before the toolstack hears of it, and may want the image for another guest.
        self.shut(actions);
        self.set(State::Closed, actions);
        self.leave(seen, now, actions);
    }

    /// Closed: lets the image go, and the device too if it is not to exist any more.
    fn leave(&mut self, seen: &Seen, now: Duration, actions: &mut Vec<Action>) {
        self.shut(actions);
        if !seen.online {
            self.part(seen, now, actions);
        }
    }

    /// Nothing more is to be done for the device, but by whoever deletes its directory.
    fn part(&mut self, seen: &Seen, now: Duration, actions: &mut Vec<Action>) {
        if self.removes && self.own == State::Closed && !seen.online {
            if !passed(&mut self.leaving, REMOVE_AFTER, now, actions) {
                return;
            }
            actions.push(Action::Remove);
        }
        actions.push(Action::Forget);
    }

    /// The directory is gone: nothing may be written.
    fn vanish(&mut self, actions: &mut Vec<Action>) {
        if self.drained(actions) {
            self.shut(actions);
            actions.push(Action::Forget);
        }
    }

    /// The daemon ends: guests are told, and waited for so long.
    fn end(&mut self, seen: &Seen, now: Duration, actions: &mut Vec<Action>) {
        let late = self.ending.is_some_and(|since| now >= since + self.patience);
        let closed = matches!(seen.frontend, State::Closed | State::Unknown);
        if self.rings != Rings::None {
            // A guest that does not close in time is left without its disk.
            if !closed && !late {
                return self.set(State::Closing, actions);
            }
            if !self.drained(actions) {
                return;
            }
        }
        self.shut(actions);
        // A guest that never came is not told: the next daemon takes it up where it is.
        if closed || !matches!(self.own, State::Initialising | State::InitWait) {
            self.set(State::Closed, actions);
        }
        self.part(seen, now, actions);
    }

    fn condemn(&mut self, text: String, actions: &mut Vec<Action>) {
        self.condemned = true;
        if self.is_gone() {
            return;
        }
        actions.push(Action::Report(text));
        if self.own == State::Closed {
            // There is no way from 6 to 5 but through 2, and a guest that waits at 1 must see us move.
            self.set(State::InitWait, actions);
        }
        self.set(State::Closing, actions);
    }

    /// The directory was deleted: nothing may be written.
    fn is_gone(&self) -> bool {
        self.seen.as_ref().is_some_and(|seen| seen.own.is_none())
    }

    /// Ends the rings if they are there; true when they are gone.
    fn drained(&mut self, actions: &mut Vec<Action>) -> bool {
        match self.rings {
            Rings::None => {}
            Rings::Waiting { .. } => self.rings = Rings::None,
            Rings::Served => {
                self.rings = Rings::Draining;
                actions.push(Action::Drain);
            }
            // Answered first.
            Rings::Starting { .. } | Rings::Draining => {}
        }
        self.rings == Rings::None
    }

    fn shut(&mut self, actions: &mut Vec<Action>) {
        if self.medium == Medium::Open {
            actions.push(Action::Shut);
        }
        if self.medium != Medium::Opening {
            self.medium = Medium::Shut;
        }
    }

    /// Writes a state, never one that is there already: a guest takes that for news.
    fn set(&mut self, state: State, actions: &mut Vec<Action>) {
        if self.own != state {
            self.own = state;
            actions.push(Action::SetState(state));
        }
    }
}

/// True once `after` has passed since the first time it was asked.
fn passed(due: &mut Option<Duration>, after: Duration, now: Duration, actions: &mut Vec<Action>) -> bool {
    let due = *due.get_or_insert_with(|| {
        actions.push(Action::Wake(now + after));
        now + after
    });
    now >= due
}

/// What our state node means at our first look.
fn adopted(own: State) -> State {
    match own {
        State::InitWait | State::Connected | State::Closing | State::Closed => own,
        _ => State::Initialising,
    }
}

#[cfg(test)]
mod tests;
