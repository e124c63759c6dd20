//! Scripts, driver domains and images: what must be there before a guest is connected, and who says so.

use super::*;

#[test]
fn a_script_is_run_at_state_2_and_waited_for_before_the_image_is_opened() {
    let mut life = Life::new();
    life.nodes.script = Script::Running;
    assert_eq!(life.look(), [Offer, SetState(InitWait)]);
    assert_eq!(life.frontend(Initialised), [], "the frontend is first");
    assert_eq!(life.script(Script::Done), [Open]);
    assert_eq!(life.event(Event::Opened(Ok(()))), [Start { used: false }]);
}

#[test]
fn the_script_first_then_the_frontend() {
    let mut life = Life::new();
    life.nodes.script = Script::Running;
    life.look();
    assert_eq!(life.script(Script::Done), [Open]);
    assert_eq!(life.event(Event::Opened(Ok(()))), []);
    assert_eq!(life.frontend(Connected), [Start { used: false }], "mini-os comes at 4");
}

#[test]
fn a_failed_script_is_never_connected() {
    let mut life = Life::new();
    life.nodes.script = Script::Running;
    life.look();
    life.script(Script::Failed);
    assert_eq!(life.frontend(Initialised), []);
    assert_eq!(life.toolstack(false, Closing), []);
    assert_eq!(life.frontend(Unknown), [SetState(Closed), Forget]);
}

#[test]
fn a_script_that_leaves_the_image_to_us_hears_how_it_went() {
    let asked = || {
        let mut life = Life::new();
        life.nodes.script = Script::Running;
        life.look();
        assert_eq!(life.script(Script::Ours), [Open]);
        life
    };
    let mut life = asked();
    assert_eq!(life.event(Event::Opened(Ok(()))), [Approve]);
    assert_eq!(life.script(Script::Done), [], "said once");
    assert_eq!(life.frontend(Initialised), [Start { used: false }]);

    let mut life = asked();
    let refused = life.event(Event::Opened(Err("in use".into())));
    assert_eq!(refused, [Report("in use".into()), SetState(Closing)]);
    assert!(life.vbd.is_unscripted(), "the report goes where the script's would");
    assert_eq!(life.script(Script::Failed), []);
    assert_eq!(life.frontend(Initialised), []);
}

// 7.2 B: a driver domain.

#[test]
fn a_driver_domain_says_itself_that_the_disk_is_connected() {
    let mut life = Life::in_driver_domain();
    assert_eq!(
        life.look(),
        [Open, Wake(OFFER_AFTER)],
        "not at 2 before the image is open: the toolstack looks at nothing else"
    );
    assert_eq!(life.event(Event::Opened(Ok(()))), [Approve, Offer, SetState(InitWait)]);
    life.script(Script::Done);
    assert_eq!(life.frontend(Initialised), [Start { used: false }]);
}

#[test]
fn a_driver_domain_removes_what_is_closed_for_good_and_nothing_else() {
    let closed = || {
        let mut life = Life::in_driver_domain();
        life.look();
        life.event(Event::Opened(Ok(())));
        life.script(Script::Done);
        assert_eq!(life.frontend(Closed), [Shut, SetState(Closed)], "it may come back");
        life
    };
    let mut detached = closed();
    assert_eq!(
        detached.toolstack(false, Closing),
        [SetState(Closed), Wake(REMOVE_AFTER)],
        "the toolstack is to see it"
    );
    assert_eq!(detached.look(), []);
    detached.now = REMOVE_AFTER;
    assert_eq!(detached.event(Event::Tick), [Remove, Forget]);
    let mut again = closed();
    again.toolstack(false, Closed);
    again.now = REMOVE_AFTER;
    again.nodes.frontend = Initialising;
    assert!(!again.toolstack(true, Initialising).contains(&Remove), "made anew in time");
    assert_eq!(closed().event(Event::Shutdown), [Wake(10 * SECOND), Forget], "the next daemon serves it");
    let mut deleted = closed();
    deleted.nodes.own = None;
    assert_eq!(deleted.look(), [Forget]);
}

#[test]
fn a_driver_domain_removes_what_was_closed_while_no_daemon_was_there() {
    for own in [Closing, Closed] {
        let mut life = Life::in_driver_domain();
        life.nodes.frontend = Unknown;
        life.toolstack(false, own);
        life.now = REMOVE_AFTER;
        assert_eq!(life.event(Event::Tick), [Remove, Forget]);
    }
}

#[test]
fn a_slow_image_does_not_keep_the_toolstack_waiting() {
    let mut life = Life::new();
    assert_eq!(life.look(), [Open, Wake(OFFER_AFTER)]);
    life.now = OFFER_AFTER / 2;
    assert_eq!(life.event(Event::Tick), []);
    life.now = OFFER_AFTER;
    assert_eq!(life.event(Event::Tick), [Offer, SetState(InitWait)]);
    assert_eq!(life.frontend(Initialised), [], "not before the image is open");
    assert_eq!(life.event(Event::Opened(Ok(()))), [Start { used: false }]);
}

#[test]
fn a_missing_image_closes_the_device_and_says_so() {
    let mut life = Life::new();
    life.look();
    let failed = Event::Opened(Err("no image".into()));
    assert_eq!(life.event(failed), [Report("no image".into()), SetState(Closing)]);
    assert_eq!(life.settle(), [], "it stays for the toolstack to read");
    assert_eq!(life.toolstack(false, Closing), [SetState(Closed), Forget]);
}

#[test]
fn a_missing_image_is_tried_again_when_the_guest_starts_anew() {
    let mut life = Life::new();
    life.look();
    life.event(Event::Opened(Err("no image".into())));
    assert_eq!(life.frontend(Closing), []);
    assert_eq!(life.frontend(Closed), [SetState(Closed)]);
    assert!(life.frontend(Initialising).contains(&Open));
    // Windows spins while the backend is 6 or 1: it must see us move.
    let again = life.event(Event::Opened(Err("no image".into())));
    assert_eq!(again, [Report("no image".into()), SetState(InitWait), SetState(Closing)]);
}

// 5.2, first column: not connected.
