//! The life of a device under states that come in any order.

use std::time::Duration;

use arbitrary::Arbitrary;
use blkback::control::vbd::{Action, Event, Script as Hotplug, Seen, StartFailure, Vbd};
use blkif_proto::xenbus::State;

#[derive(Debug, Arbitrary)]
struct Script {
    patience: u8,
    removes: bool,
    steps: Vec<Step>,
}

#[derive(Debug, Arbitrary)]
enum Step {
    Seen { own: Own, online: bool, frontend: u8, script: u8, renewed: bool },
    Opened(bool),
    Started(bool, bool),
    Drained,
    Broken,
    Resized,
    Tick,
    Shutdown,
    Wait(u16),
}

#[derive(Debug, Arbitrary)]
enum Own {
    /// As we wrote it.
    Ours,
    Gone,
    Other(u8),
}

/// What the world outside is waiting for, so that nothing is answered that was not asked.
#[derive(Default)]
struct Asked {
    open: bool,
    start: bool,
    drain: bool,
    served: bool,
    wakes: usize,
    state: Option<State>,
}

/// One start, one drain at a time; connected only with rings that are served; nothing after it was forgotten.
pub fn vbd(data: &[u8]) {
    let Some(script) = super::script::<Script>(data) else { return };
    let mut vbd = Vbd::new(Duration::from_secs(u64::from(script.patience)), script.removes);
    let mut asked = Asked::default();
    let mut now = Duration::ZERO;
    for step in script.steps.into_iter().take(300) {
        if let Step::Wait(time) = step {
            now += Duration::from_millis(u64::from(time));
            continue;
        }
        let Some(event) = asked.event(step) else { continue };
        let (next, actions) = vbd.step(event, now);
        vbd = next;
        for action in actions {
            if asked.take(action) {
                return;
            }
        }
    }
}

impl Asked {
    /// The event, if it can come at all.
    fn event(&mut self, step: Step) -> Option<Event> {
        let states = |code: u8| State::of_node(Some((code % 12).to_string()));
        match step {
            Step::Seen { own, online, frontend, script, renewed } => Some(Event::Seen(Seen {
                own: match own {
                    Own::Ours => Some(self.state.unwrap_or(State::Initialising)),
                    Own::Gone => None,
                    Own::Other(code) => Some(states(code)),
                },
                online,
                frontend: states(frontend),
                script: [Hotplug::None, Hotplug::Ours, Hotplug::Running, Hotplug::Done, Hotplug::Failed]
                    [usize::from(script) % 5],
                renewed,
            })),
            Step::Opened(well) => std::mem::take(&mut self.open)
                .then(|| Event::Opened(well.then_some(()).ok_or_else(|| "no".into()))),
            Step::Started(well, may_pass) => std::mem::take(&mut self.start).then(|| {
                self.served = well;
                let failure = StartFailure { text: "no".into(), may_pass };
                Event::Started(well.then_some(()).ok_or(failure))
            }),
            Step::Drained => std::mem::take(&mut self.drain).then(|| {
                self.served = false;
                Event::Drained
            }),
            Step::Broken => self.served.then(|| Event::Broken("an index".into())),
            Step::Resized => Some(Event::Resized),
            Step::Tick => {
                self.wakes = self.wakes.checked_sub(1)?;
                Some(Event::Tick)
            }
            Step::Shutdown => Some(Event::Shutdown),
            Step::Wait(_) => None,
        }
    }

    /// True when the device is forgotten.
    fn take(&mut self, action: Action) -> bool {
        match action {
            Action::Open => {
                assert!(!self.open, "the image is opened twice at once");
                self.open = true;
            }
            Action::Start { .. } => {
                assert!(!self.start && !self.served && !self.drain, "rings are started that are in use");
                self.start = true;
            }
            Action::Drain => {
                assert!(!self.drain, "drained twice at once");
                self.drain = true;
            }
            Action::SetState(state) => {
                assert!(state != State::Connected || self.served, "connected without rings");
                assert!(state != State::Closed || !self.served, "closed with rings mapped");
                self.state = Some(state);
            }
            Action::Wake(_) => {
                self.wakes += 1;
                assert!(self.wakes < 1000, "more and more timers");
            }
            Action::Forget => {
                assert!(!self.served && !self.start, "forgotten with rings mapped");
                return true;
            }
            _ => {}
        }
        false
    }
}
