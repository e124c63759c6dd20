//! Every row of PROTOCOL.md 5.2, and the flows of 5.4, 5.5 and section 0, against the pure function.

mod medium;

use blkif_proto::xenbus::End;

use super::{
    Action::{
        Absolve, Announce, AnnounceSize, Approve, Drain, Forget, Offer, Open, Remove, Report, SetState, Shut,
        Start, Wake,
    },
    *,
};
use State::{Closed, Closing, Connected, InitWait, Initialised, Initialising, Unknown};

const SECOND: Duration = Duration::from_secs(1);

/// A device with its nodes: writes of its own states land in them, as in XenStore.
struct Life {
    vbd: Vbd,
    now: Duration,
    nodes: Seen,
}

impl Life {
    fn new() -> Self {
        let nodes = Seen {
            own: Some(Initialising),
            online: true,
            frontend: Initialising,
            script: Script::None,
            renewed: false,
        };
        Life { vbd: Vbd::new(10 * SECOND, false), now: Duration::ZERO, nodes }
    }

    /// A device at state 2 with its image open.
    fn waiting() -> Self {
        let mut life = Life::new();
        assert_eq!(life.look(), [Open, Wake(OFFER_AFTER)]);
        assert_eq!(life.event(Event::Opened(Ok(()))), [Offer, SetState(InitWait)]);
        assert_eq!(life.look(), []);
        life
    }

    /// A device in a driver domain, where no script is run and nobody removes what is closed.
    fn in_driver_domain() -> Self {
        let mut life = Life::new();
        life.vbd = Vbd::new(10 * SECOND, true);
        life.nodes.script = Script::Ours;
        life
    }

    /// A device that is connected.
    fn connected() -> Self {
        let mut life = Life::waiting();
        assert_eq!(life.frontend(Initialised), [Start { used: false }]);
        assert_eq!(life.event(Event::Started(Ok(()))), [Absolve, Announce, SetState(Connected)]);
        assert_eq!(life.frontend(Connected), []);
        life
    }

    fn event(&mut self, event: Event) -> Vec<Action> {
        let (vbd, actions) = self.vbd.clone().step(event, self.now);
        self.vbd = vbd;
        for action in &actions {
            if let SetState(state) = action {
                let before = self.nodes.own.expect("no write to a deleted directory");
                assert!(End::Backend.allows(before, *state), "{before} to {state}");
                self.nodes.own = Some(*state);
            }
        }
        actions
    }

    fn look(&mut self) -> Vec<Action> {
        self.event(Event::Seen(self.nodes.clone()))
    }

    fn frontend(&mut self, state: State) -> Vec<Action> {
        self.nodes.frontend = state;
        self.look()
    }

    fn toolstack(&mut self, online: bool, own: State) -> Vec<Action> {
        (self.nodes.online, self.nodes.own) = (online, Some(own));
        self.look()
    }

    fn script(&mut self, script: Script) -> Vec<Action> {
        self.nodes.script = script;
        self.look()
    }

    /// Looks until nothing follows any more, as the watch on our own writes makes us do.
    fn settle(&mut self) -> Vec<Action> {
        let mut all = Vec::new();
        loop {
            let actions = self.look();
            if actions.is_empty() || actions.contains(&Forget) {
                all.extend(actions);
                return all;
            }
            all.extend(actions);
        }
    }
}

// Rule 9, and "answer 1 to 2 for every device at once".

#[test]
fn not_connected_and_the_frontend_moves() {
    assert_eq!(Life::waiting().frontend(Initialising), []);
    assert_eq!(Life::waiting().frontend(InitWait), [], "a state that means nothing");
    assert_eq!(Life::waiting().frontend(Initialised), [Start { used: false }]);
    assert_eq!(Life::waiting().frontend(Connected), [Start { used: false }]);
    assert_eq!(Life::waiting().frontend(Closing), [SetState(Closing)]);
    assert_eq!(Life::waiting().frontend(Closed), [Shut, SetState(Closed)]);
    assert_eq!(Life::waiting().frontend(Unknown), [Shut, SetState(Closed)]);
}

#[test]
fn rings_that_cannot_be_started_close_the_device() {
    let mut life = Life::waiting();
    life.frontend(Initialised);
    let failure = StartFailure { text: "ring-ref: missing".into(), may_pass: false };
    assert_eq!(
        life.event(Event::Started(Err(failure))),
        [Report("ring-ref: missing".into()), SetState(Closing)]
    );
    assert_eq!(life.settle(), []);
    assert_eq!(life.frontend(Connected), [], "ignored until it has closed");
    assert_eq!(life.frontend(Closed), [Shut, SetState(Closed)]);
    assert!(life.frontend(Initialising).contains(&Open));
}

#[test]
fn an_event_channel_that_a_dying_daemon_has_is_tried_again() {
    let busy = || Event::Started(Err(StartFailure { text: "busy".into(), may_pass: true }));
    let mut life = Life::waiting();
    life.frontend(Initialised);
    assert_eq!(life.event(busy()), [Wake(RETRY_EVERY)]);
    assert_eq!(life.look(), [], "not sooner because something else happens");
    life.now = RETRY_EVERY;
    assert_eq!(life.event(Event::Tick), [Start { used: false }]);
    life.now = RETRY_FOR;
    assert_eq!(life.event(busy()), [Report("busy".into()), SetState(Closing)]);
}

// 5.2, second column: connected.

#[test]
fn connected_and_the_frontend_moves() {
    assert_eq!(Life::connected().frontend(Initialising), [], "only with its next rings");
    assert_eq!(Life::connected().frontend(InitWait), []);
    assert_eq!(Life::connected().frontend(Connected), [], "a double watch");
    assert_eq!(Life::connected().frontend(Closing), [SetState(Closing)], "and serves on");
    assert_eq!(Life::connected().frontend(Closed), [Drain]);
    assert_eq!(Life::connected().frontend(Unknown), [Drain]);
}

#[test]
fn grub_stays_at_3_for_ever_and_closes_without_5() {
    let mut life = Life::waiting();
    life.frontend(Initialised);
    life.event(Event::Started(Ok(())));
    assert_eq!(life.look(), []);
    assert_eq!(life.frontend(Closed), [Drain]);
    assert_eq!(life.event(Event::Drained), [Shut, SetState(Closed)]);
}

#[test]
fn closed_only_after_everything_was_unmapped_and_back_for_the_next_driver() {
    let mut life = Life::connected();
    life.frontend(Closing);
    assert_eq!(life.frontend(Closed), [Drain]);
    assert_eq!(life.look(), [], "still draining");
    assert_eq!(life.event(Event::Drained), [Shut, SetState(Closed)]);
    assert!(life.frontend(Initialising).contains(&Open));
    assert_eq!(life.event(Event::Opened(Ok(()))), [Offer, SetState(InitWait)]);
    assert_eq!(life.frontend(Initialised), [Start { used: false }]);
}

#[test]
fn a_guest_that_crashed_is_served_again_without_closing() {
    for seen in [&[Initialising, Initialised][..], &[Initialised]] {
        let mut life = Life::connected();
        let actions: Vec<_> = seen.iter().flat_map(|state| life.frontend(*state)).collect();
        assert_eq!(actions, [Drain], "{seen:?}");
        let again = life.event(Event::Drained);
        assert_eq!(again, [Offer, SetState(InitWait), Start { used: false }], "{seen:?}");
        assert_eq!(life.event(Event::Started(Ok(()))), [Absolve, Announce, SetState(Connected)]);
    }
}

#[test]
fn a_guest_that_crashes_while_it_connects_is_not_blamed() {
    let mut life = Life::waiting();
    life.frontend(Initialised);
    life.frontend(Initialising);
    let failure = StartFailure { text: "ring-ref: missing".into(), may_pass: false };
    assert_eq!(life.event(Event::Started(Err(failure))), []);
    assert_eq!(life.frontend(Initialised), [Offer, Start { used: false }]);
}

#[test]
fn a_guest_that_died_while_closing_and_came_back() {
    let mut life = Life::connected();
    life.frontend(Closing);
    assert_eq!(life.frontend(Initialising), [Drain]);
    assert_eq!(life.event(Event::Drained), [Shut, SetState(Closed)]);
    assert!(life.settle().contains(&Open));
}

#[test]
fn a_broken_ring_closes_the_device() {
    let mut life = Life::connected();
    let broken = life.event(Event::Broken("queue 0: jumped".into()));
    assert_eq!(broken, [Report("queue 0: jumped".into()), SetState(Closing), Drain]);
    assert_eq!(life.event(Event::Drained), []);
    assert_eq!(life.settle(), [], "whatever the guest publishes");
    assert_eq!(life.frontend(Closed), [Shut, SetState(Closed)]);
}

#[test]
fn a_new_size_is_announced_to_a_connected_guest_only() {
    assert_eq!(Life::connected().event(Event::Resized), [AnnounceSize]);
    assert_eq!(Life::waiting().event(Event::Resized), []);
    let mut closing = Life::connected();
    closing.frontend(Closing);
    assert_eq!(closing.event(Event::Resized), []);
}

// 5.2, third and fourth column: closing and closed.

#[test]
fn closing_and_the_frontend_moves() {
    let closing = || {
        let mut life = Life::connected();
        life.toolstack(true, Closing);
        life
    };
    assert_eq!(closing().frontend(Connected), []);
    assert_eq!(closing().frontend(Closing), []);
    assert_eq!(closing().frontend(Closed), [Drain]);
    assert_eq!(closing().frontend(Unknown), [Drain]);
}

#[test]
fn closed_and_the_frontend_moves() {
    let closed = || {
        let mut life = Life::waiting();
        life.frontend(Closed);
        life
    };
    assert_eq!(closed().frontend(Closing), []);
    assert_eq!(closed().frontend(Closed), []);
    assert_eq!(closed().frontend(Unknown), []);
    assert!(closed().frontend(Initialising).contains(&Open));
    assert_eq!(closed().toolstack(false, Closed), [Forget]);
    let mut quick = closed();
    assert!(quick.frontend(Initialised).contains(&Open), "1 was there, and over before we looked");
    assert_eq!(
        quick.event(Event::Opened(Ok(()))),
        [Offer, SetState(InitWait), Start { used: false }],
        "through 2"
    );
}

#[test]
fn windows_closes_before_it_connects() {
    let mut life = Life::waiting();
    assert_eq!(life.frontend(Closing), [SetState(Closing)]);
    assert_eq!(life.frontend(Closed), [Shut, SetState(Closed)]);
    assert!(life.frontend(Initialising).contains(&Open));
    assert_eq!(life.event(Event::Opened(Ok(()))), [Offer, SetState(InitWait)]);
}

// The toolstack: unplug, destroy, force.

#[test]
fn detach_waits_for_an_active_guest() {
    let mut life = Life::connected();
    assert_eq!(life.toolstack(false, Closing), []);
    assert_eq!(life.frontend(Closing), []);
    assert_eq!(life.frontend(Closed), [Drain]);
    assert_eq!(life.event(Event::Drained), [Shut, SetState(Closed), Forget]);
}

#[test]
fn detach_without_an_active_guest_is_done_at_once() {
    for frontend in [Initialising, Closed, Unknown] {
        let mut life = Life::waiting();
        life.frontend(frontend);
        let mut actions = life.toolstack(false, Closing);
        actions.retain(|action| *action != Shut);
        assert_eq!(actions, [SetState(Closed), Forget], "{frontend}");
    }
}

/// `online` 0 and state 5 come in one transaction; a state of ours that was on its way covers the 5.
#[test]
fn a_detach_whose_5_was_overwritten_still_closes() {
    let mut life = Life::waiting();
    assert_eq!(life.toolstack(false, InitWait), [SetState(Closing), Shut, SetState(Closed), Forget]);
    let mut life = Life::connected();
    assert_eq!(life.toolstack(false, Connected), [SetState(Closing)]);
    assert_eq!(life.frontend(Closed), [Drain]);
    assert_eq!(life.event(Event::Drained), [Shut, SetState(Closed), Forget]);
}

/// Watches merge: a guest that crashed right after it had connected may be seen at 3, and again at 3.
#[test]
fn a_guest_with_other_rings_has_begun_anew() {
    let mut life = Life::waiting();
    assert_eq!(life.frontend(Initialised), [Start { used: false }]);
    assert_eq!(life.event(Event::Started(Ok(()))), [Absolve, Announce, SetState(Connected)]);
    assert_eq!(life.frontend(Initialised), []);
    life.nodes.renewed = true;
    assert_eq!(life.look(), [Drain]);
    life.nodes.renewed = false;
    assert_eq!(life.event(Event::Drained), [Offer, SetState(InitWait), Start { used: false }]);
}

#[test]
fn a_guest_that_broke_its_rings_is_not_served_for_naming_others() {
    let mut life = Life::connected();
    life.event(Event::Broken("index".into()));
    life.event(Event::Drained);
    life.nodes.renewed = true;
    assert_eq!(life.look(), []);
}

#[test]
fn destroy_deletes_the_frontend_first() {
    let mut life = Life::connected();
    life.nodes.frontend = Unknown;
    assert_eq!(life.toolstack(false, Closing), [Drain]);
    assert_eq!(life.event(Event::Drained), [Shut, SetState(Closed), Forget]);
}

#[test]
fn a_deleted_directory_is_never_written_to() {
    let mut life = Life::connected();
    life.nodes.own = None;
    assert_eq!(life.look(), [Drain]);
    assert_eq!(life.event(Event::Drained), [Shut, Forget]);
    let mut life = Life::waiting();
    life.nodes.own = None;
    assert_eq!(life.look(), [Shut, Forget]);
}

#[test]
fn forced_to_6_tears_down_at_once() {
    let mut life = Life::connected();
    assert_eq!(life.toolstack(false, Closed), [Drain]);
    assert_eq!(life.event(Event::Drained), []);
    life.nodes.own = None;
    assert_eq!(life.look(), [Shut, Forget]);
}

#[test]
fn forced_to_6_stays_there_until_the_frontend_begins_anew() {
    let mut life = Life::connected();
    assert_eq!(life.toolstack(true, Closed), [Drain]);
    assert_eq!(life.event(Event::Drained), []);
    assert_eq!(life.settle(), [], "the frontend at 4 is the old one");
    assert_eq!(life.frontend(Initialising), [Offer, SetState(InitWait)]);
    assert_eq!(life.frontend(Initialised), [Start { used: false }]);
}

#[test]
fn a_device_made_anew_under_our_hands_starts_anew() {
    let mut life = Life::connected();
    life.nodes.frontend = Initialising;
    assert_eq!(life.toolstack(true, Initialising), [Drain]);
    assert_eq!(life.event(Event::Drained), [Shut, Open, Wake(OFFER_AFTER)], "as at first");
}

// The daemon: found state, shutdown.

#[test]
fn an_earlier_daemons_device() {
    let found = |own, frontend| {
        let mut life = Life::new();
        life.nodes = Seen { own: Some(own), online: true, frontend, script: Script::None, renewed: false };
        let actions = life.look();
        (life, actions)
    };
    let (mut life, actions) = found(Connected, Connected);
    assert_eq!(actions, [Open]);
    assert_eq!(life.event(Event::Opened(Ok(()))), [SetState(InitWait), Start { used: true }]);
    assert_eq!(life.event(Event::Started(Ok(()))), [Absolve, Announce, SetState(Connected)]);

    // That one may have been killed while it took the rings over from one before.
    let (mut life, actions) = found(InitWait, Initialised);
    assert_eq!(actions, [Open]);
    assert_eq!(life.event(Event::Opened(Ok(()))), [Start { used: true }]);
    let (mut life, _) = found(InitWait, Initialising);
    life.event(Event::Opened(Ok(())));
    assert_eq!(life.frontend(Initialised), [Start { used: false }]);

    let (_, actions) = found(Connected, Initialising);
    assert_eq!(actions, [Offer, SetState(InitWait)], "the guest began anew meanwhile");
    assert_eq!(found(Connected, Closed).1, [SetState(Closed)]);
    assert_eq!(found(Closed, Connected).1, [], "closed with the guest still there: it must close too");
    assert_eq!(found(Closed, Initialising).1, [Open, Wake(OFFER_AFTER)]);
    assert_eq!(found(Closing, Initialising).1, [SetState(Closed)]);
}

#[test]
fn shutdown_lets_guests_close() {
    let mut life = Life::connected();
    assert_eq!(life.event(Event::Shutdown), [Wake(10 * SECOND), SetState(Closing)]);
    assert_eq!(life.frontend(Closing), []);
    assert_eq!(life.frontend(Closed), [Drain]);
    assert_eq!(life.event(Event::Drained), [Shut, SetState(Closed), Forget]);
}

#[test]
fn shutdown_does_not_wait_for_ever() {
    let mut life = Life::connected();
    life.event(Event::Shutdown);
    life.now = 10 * SECOND;
    assert_eq!(life.event(Event::Tick), [Drain]);
    assert_eq!(life.event(Event::Drained), [Shut, SetState(Closed), Forget]);
}

#[test]
fn shutdown_forgets_a_device_whose_nodes_never_made_sense() {
    assert_eq!(Life::new().event(Event::Shutdown), [Wake(10 * SECOND), Forget]);
}

#[test]
fn shutdown_leaves_guests_alone_that_never_came() {
    let mut life = Life::waiting();
    let actions = life.event(Event::Shutdown);
    assert_eq!(actions, [Wake(10 * SECOND), Shut, Forget]);
    assert_eq!(life.nodes.own, Some(InitWait), "for the next daemon");
}

/// Whatever comes in whatever order: no illegal transition, no write to a deleted directory (both asserted by `Life`), no
/// second start or drain before the first is over.
#[test]
fn any_order_of_events_keeps_the_rules() {
    let mut seed = 1u64;
    let mut next = |n: u32| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        u32::try_from(seed >> 33).unwrap() % n
    };
    for _ in 0..3_000 {
        let mut life = Life::new();
        let (mut opening, mut starting, mut served, mut draining) = (false, false, false, false);
        let mut deleted = false;
        for _ in 0..60 {
            life.now += Duration::from_millis(next(300).into());
            let actions = match next(12) {
                0..=4 => {
                    let state = State::ALL[next(7) as usize];
                    life.frontend(state)
                }
                5 if !deleted => {
                    let own = [Closing, Closed][next(2) as usize];
                    life.toolstack(next(2) == 0, own)
                }
                6 => {
                    let all = [Script::None, Script::Ours, Script::Running, Script::Done, Script::Failed];
                    life.script(all[next(5) as usize])
                }
                7 if next(10) == 0 => {
                    deleted = true;
                    life.nodes.own = None;
                    life.look()
                }
                8 if opening => {
                    opening = false;
                    let result = if next(4) == 0 { Err("x".into()) } else { Ok(()) };
                    life.event(Event::Opened(result))
                }
                9 if starting => {
                    starting = false;
                    served = next(4) != 0;
                    let failure = StartFailure { text: "x".into(), may_pass: next(2) == 0 };
                    life.event(Event::Started(if served { Ok(()) } else { Err(failure) }))
                }
                10 if draining => {
                    draining = false;
                    life.event(Event::Drained)
                }
                11 if served && next(8) == 0 => life.event(Event::Broken("x".into())),
                _ => life.event(Event::Tick),
            };
            for action in actions {
                match action {
                    Open => opening = true,
                    Start { .. } => {
                        assert!(!starting && !served && !draining);
                        starting = true;
                    }
                    Drain => {
                        assert!(served && !draining);
                        (served, draining) = (false, true);
                    }
                    SetState(Closed) => assert!(!served && !draining, "closed with rings mapped"),
                    SetState(_) | Offer | Approve | Announce | Report(_) => {
                        assert!(life.nodes.own.is_some(), "write to a deleted directory");
                    }
                    Forget => assert!(!served && !draining),
                    _ => {}
                }
            }
        }
    }
}
