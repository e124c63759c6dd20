use State::{
    Closed, Closing, Connected, InitWait, Initialised, Initialising, Reconfigured, Reconfiguring, Unknown,
};

use super::*;

const LIMIT: Duration = Duration::from_secs(5);

fn at(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Advances until there is nothing more to write; the writes, and what came then.
fn run(handshake: &mut Handshake, backend: State) -> (Vec<State>, Action) {
    let mut written = Vec::new();
    loop {
        match handshake.advance(backend, at(0)) {
            Action::Write(state) => written.push(state),
            action => return (written, action),
        }
    }
}

fn open(own: State, backend: State) -> (Handshake, Vec<State>, Action) {
    let mut handshake = Handshake::open(own, backend, LIMIT, at(0));
    let (written, action) = run(&mut handshake, backend);
    (handshake, written, action)
}

fn connected() -> Handshake {
    let (mut handshake, _, action) = open(Initialising, InitWait);
    assert_eq!(action, Action::SetUp);
    handshake.published(at(0));
    assert_eq!(handshake.advance(Connected, at(0)), Action::Connect);
    handshake.connected(at(0));
    handshake
}

/// PROTOCOL.md 5.3, first three rows, for a frontend in `Initialising`.
#[test]
fn a_fresh_device_waits_for_a_backend_that_waits() {
    for (backend, action) in [
        (Unknown, Action::Wait),
        (Initialising, Action::Wait),
        (InitWait, Action::SetUp),
        (Initialised, Action::SetUp), // FreeBSD: as if it were InitWait
        (Connected, Action::SetUp),   // NetBSD's backend connects before it is asked
        (Closing, Action::Wait),
        (Closed, Action::Wait),
        (Reconfiguring, Action::Wait),
        (Reconfigured, Action::Wait),
    ] {
        let (_, written, got) = open(Initialising, backend);
        assert_eq!((written, got), (vec![], action), "backend {backend}");
    }
}

/// The row of `Initialised`.
#[test]
fn offered_rings_wait_for_connected() {
    for (backend, action) in [
        (Unknown, Action::Refused),
        (Initialising, Action::Wait),
        (InitWait, Action::Wait),
        (Initialised, Action::Wait),
        (Connected, Action::Connect),
        (Closing, Action::Refused),
        (Closed, Action::Refused),
        (Reconfiguring, Action::Wait),
        (Reconfigured, Action::Wait),
    ] {
        let (mut handshake, ..) = open(Initialising, InitWait);
        handshake.published(at(0));
        assert_eq!(handshake.advance(backend, at(1)), action, "backend {backend}");
    }
}

/// The row of `Connected`. A backend that goes back to `InitWait` attaches again to the same rings (5.5).
#[test]
fn a_connected_device_follows_its_backend() {
    for (backend, action) in [
        (Initialising, Action::Wait),
        (InitWait, Action::Wait),
        (Initialised, Action::Wait),
        (Connected, Action::Reread),
        (Closing, Action::AskedToClose),
        (Closed, Action::Lost),
        (Unknown, Action::Lost),
        (Reconfiguring, Action::Wait),
        (Reconfigured, Action::Wait),
    ] {
        assert_eq!(connected().advance(backend, at(1)), action, "backend {backend}");
    }
}

#[test]
fn asking_to_close_is_told_once() {
    let mut handshake = connected();
    assert_eq!(handshake.advance(Closing, at(1)), Action::AskedToClose);
    assert_eq!(handshake.advance(Closing, at(2)), Action::Wait);
    assert!(handshake.is_connected(), "I/O goes on");
    assert_eq!(handshake.advance(Closed, at(3)), Action::Lost);
}

/// PROTOCOL.md 5.5: a driver that was killed has left its state behind; the next one closes first.
#[test]
fn what_an_earlier_driver_left_is_closed_first() {
    for own in [Initialised, Connected, Closing] {
        let (mut handshake, written, action) = open(own, Connected);
        let expected = if own == Closing { vec![] } else { vec![Closing] };
        assert_eq!((written, action), (expected, Action::Wait), "own {own}");
        assert_eq!(run(&mut handshake, Closing), (vec![Closed], Action::Wait));
        assert_eq!(run(&mut handshake, Closed), (vec![Initialising], Action::Wait));
        assert_eq!(run(&mut handshake, InitWait), (vec![], Action::SetUp));
    }
}

#[test]
fn closing_takes_no_step_that_the_backend_has_passed() {
    // Own state, backend, what is written at once.
    for (own, backend, expected) in [
        (Closed, Closed, vec![Initialising]),
        (Closed, InitWait, vec![Initialising]),
        (Closed, Closing, vec![]),
        (Closed, Connected, vec![]),
        (Connected, Closed, vec![Closed, Initialising]),
        (Connected, Unknown, vec![Initialising]),
        (Connected, Initialising, vec![Initialising]),
        (Connected, Closing, vec![Closing, Closed]),
        (Initialised, InitWait, vec![Closing]),
    ] {
        let (_, written, _) = open(own, backend);
        assert_eq!(written, expected, "own {own}, backend {backend}");
    }
}

#[test]
fn the_application_closes() {
    let mut handshake = connected();
    handshake.close(at(0));
    assert_eq!(run(&mut handshake, Connected), (vec![Closing], Action::Wait));
    assert_eq!(run(&mut handshake, Closing), (vec![Closed], Action::Wait));
    assert_eq!(run(&mut handshake, Closed), (vec![], Action::Ended));
    assert_eq!(run(&mut handshake, InitWait), (vec![], Action::Ended), "and stays closed");
}

#[test]
fn closing_a_device_whose_backend_is_gone_is_short() {
    for backend in [Unknown, Closed] {
        let mut handshake = connected();
        handshake.close(at(0));
        assert_eq!(run(&mut handshake, backend), (vec![Closed], Action::Ended), "backend {backend}");
    }
}

#[test]
fn every_wait_has_a_time_limit() {
    let timed_out = |handshake: &mut Handshake, backend, wanted| {
        let deadline = handshake.deadline().expect("a wait with a limit");
        assert_eq!(handshake.advance(backend, deadline - at(1)), Action::Wait, "{wanted}");
        assert_eq!(handshake.advance(backend, deadline), Action::TimedOut(wanted));
    };
    let (mut handshake, ..) = open(Initialising, Initialising);
    timed_out(&mut handshake, Initialising, "InitWait");
    let (mut handshake, ..) = open(Initialising, InitWait);
    assert_eq!(handshake.deadline(), None, "this is the application's time");
    handshake.published(at(100));
    timed_out(&mut handshake, InitWait, "Connected");
    let mut handshake = connected();
    assert_eq!(handshake.deadline(), None);
    handshake.close(at(200));
    run(&mut handshake, Connected);
    timed_out(&mut handshake, Connected, "Closing");
    let mut handshake = connected();
    handshake.close(at(300));
    run(&mut handshake, Connected);
    run(&mut handshake, Closing);
    timed_out(&mut handshake, Closing, "Closed");
}

#[test]
fn a_backend_that_went_away_may_stay_away_for_long() {
    let mut handshake = connected();
    assert_eq!(handshake.advance(Closed, at(0)), Action::Lost);
    assert_eq!(run(&mut handshake, Closed), (vec![Closed, Initialising], Action::Wait));
    assert_eq!((handshake.deadline(), handshake.advance(Closed, at(1 << 30))), (None, Action::Wait));
    assert_eq!(run(&mut handshake, InitWait), (vec![], Action::SetUp));
    handshake.published(at(1 << 30));
    assert_eq!(handshake.advance(Connected, at(1 << 30)), Action::Connect);
    handshake.connected(at(1 << 30));
    assert_eq!(handshake.advance(Connected, at(1 << 30)), Action::Reread);
}

#[test]
fn a_backend_that_goes_away_again_in_between_is_followed() {
    for published in [false, true] {
        let mut handshake = connected();
        assert_eq!(handshake.advance(Closed, at(0)), Action::Lost);
        run(&mut handshake, Closed);
        assert_eq!(run(&mut handshake, InitWait), (vec![], Action::SetUp));
        if published {
            handshake.published(at(1));
        }
        assert_eq!(handshake.advance(Closed, at(1)), Action::Lost);
        let (written, action) = run(&mut handshake, Closed);
        assert_eq!(written, if published { vec![Closed, Initialising] } else { vec![] });
        assert_eq!(action, Action::Wait);
        assert_eq!(run(&mut handshake, InitWait), (vec![], Action::SetUp));
    }
}

#[test]
fn a_device_made_anew_by_the_toolstack_connects_again() {
    let mut handshake = connected();
    handshake.reset_by_others(Initialising);
    assert_eq!(handshake.advance(Initialising, at(1)), Action::Lost);
    assert_eq!(run(&mut handshake, Initialising), (vec![], Action::Wait));
    assert_eq!(run(&mut handshake, InitWait), (vec![], Action::SetUp));
    let mut handshake = connected();
    handshake.moved();
    assert_eq!(handshake.advance(Connected, at(1)), Action::Lost, "another backend, however well it is");
}

#[test]
fn a_device_made_anew_while_it_connects_starts_over() {
    let mut handshake = connected();
    assert_eq!(handshake.advance(Closed, at(0)), Action::Lost);
    run(&mut handshake, Closed);
    assert_eq!(run(&mut handshake, InitWait), (vec![], Action::SetUp));
    handshake.published(at(1));
    handshake.reset_by_others(Initialising);
    assert_eq!(handshake.advance(InitWait, at(1)), Action::Lost, "nobody will look at what it offered");
    assert_eq!(run(&mut handshake, InitWait), (vec![], Action::SetUp));

    let (mut first, ..) = open(Initialising, InitWait);
    first.published(at(1));
    first.reset_by_others(Initialising);
    assert_eq!(first.advance(InitWait, at(1)), Action::Refused, "whoever waits for it is told");
}

/// Whatever the two states are, advancing comes to rest, writes only legal steps, and never ends a device unasked.
#[test]
fn no_pair_of_states_goes_round_in_circles() {
    for own in State::ALL {
        for first in State::ALL {
            for second in State::ALL {
                let mut handshake = Handshake::open(own, first, LIMIT, at(0));
                for backend in [first, second, first] {
                    let (written, action) = run(&mut handshake, backend);
                    assert!(written.len() <= 3, "{own} {first} {second}: {written:?}");
                    assert_ne!(action, Action::Ended);
                }
            }
        }
    }
}
