//! Rules about event channels.

use std::{os::fd::AsFd, time::Duration};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use xen_platform::{BackWorld, DomId, EventChannels, EventError, FrontWorld, Port};

use crate::lab::{Lab, Pair};

const NOW: Option<Duration> = Some(Duration::ZERO);

type FrontOf<L> = <<L as Lab>::World as FrontWorld>::Events;
type BackOf<L> = <<L as Lab>::World as BackWorld>::Events;

/// A bound channel, with the event of its binding taken.
struct Channel<L: Lab> {
    pair: Pair<L>,
    front: FrontOf<L>,
    near: Port,
    back: BackOf<L>,
    far: Port,
}

fn channel<L: Lab>(lab: &L) -> Channel<L> {
    let pair = Pair::new(lab);
    let mut front = FrontWorld::events(&pair.front).unwrap();
    let mut back = BackWorld::events(&pair.back).unwrap();
    let near = front.alloc_unbound(DomId::DOM0).unwrap();
    let far = back.bind_interdomain(pair.guest, near).unwrap();
    assert_eq!(back.take_pending(), Some(far), "binding leaves one event on the binder's end");
    assert_eq!(back.take_pending(), None);
    assert_eq!(front.take_pending(), None, "and none on the other");
    back.unmask(far).unwrap();
    Channel { pair, front, near, back, far }
}

fn readable(events: &impl AsFd) -> bool {
    poll(&mut [PollFd::new(events.as_fd(), PollFlags::POLLIN)], PollTimeout::ZERO).unwrap() > 0
}

fn events_go_both_ways(lab: &impl Lab) {
    let Channel { mut front, near, mut back, far, .. } = channel(lab);
    for _ in 0..3 {
        front.notify(near).unwrap();
        assert_eq!(back.take_pending(), Some(far));
        back.unmask(far).unwrap();
        back.notify(far).unwrap();
        assert_eq!(front.take_pending(), Some(near));
        front.unmask(near).unwrap();
        assert_eq!((front.take_pending(), back.take_pending()), (None, None));
    }
}

fn events_merge(lab: &impl Lab) {
    let Channel { mut front, near, mut back, far, .. } = channel(lab);
    (0..5).for_each(|_| front.notify(near).unwrap());
    assert_eq!((back.take_pending(), back.take_pending()), (Some(far), None));
}

fn a_taken_port_is_masked_until_unmasked(lab: &impl Lab) {
    let Channel { mut front, near, mut back, far, .. } = channel(lab);
    front.notify(near).unwrap();
    assert_eq!(back.take_pending(), Some(far));
    front.notify(near).unwrap();
    front.notify(near).unwrap();
    assert_eq!(back.take_pending(), None);
    assert!(!back.wait(NOW).unwrap());
    back.unmask(far).unwrap();
    assert!(back.wait(NOW).unwrap());
    assert_eq!((back.take_pending(), back.take_pending()), (Some(far), None), "merged, and delivered after");
    back.unmask(far).unwrap();
    assert_eq!(back.take_pending(), None);
    assert!(!back.wait(Some(Duration::from_millis(2))).unwrap());
}

fn the_descriptor_tells(lab: &impl Lab) {
    let Channel { mut front, near, mut back, far, .. } = channel(lab);
    assert!(!readable(&back));
    front.notify(near).unwrap();
    assert!(readable(&back));
    assert_eq!((back.take_pending(), back.take_pending()), (Some(far), None));
    assert!(!readable(&back));
    front.notify(near).unwrap();
    assert_eq!(back.take_pending(), None);
    assert!(!readable(&back), "what is masked must not make a waiting backend spin");
    back.unmask(far).unwrap();
    assert!(readable(&back), "what came while masked wakes after unmasking");
    assert_eq!(back.take_pending(), Some(far));
}

fn waiting_ends_with_an_event_or_in_time(lab: &(impl Lab<World: Send> + Sync)) {
    let Channel { mut front, near, mut back, far, .. } = channel(lab);
    assert!(!back.wait(Some(Duration::from_millis(5))).unwrap());
    let notifier = std::thread::scope(|scope| {
        let notifier = scope.spawn(move || {
            std::thread::sleep(Duration::from_millis(20));
            front.notify(near).unwrap();
            front
        });
        let mut woken = false;
        while !woken {
            woken = back.wait(Some(Duration::from_secs(10))).unwrap();
        }
        notifier.join()
    });
    assert!(notifier.is_ok());
    assert_eq!(back.take_pending(), Some(far));
}

fn only_the_named_domain_may_bind(lab: &impl Lab) {
    let Channel { pair, mut front, near, mut back, .. } = channel(lab);
    let port = front.alloc_unbound(DomId::DOM0).unwrap();
    let stranger = lab.world(lab.guest());
    let mut strange = BackWorld::events(&stranger).unwrap();
    assert_eq!(strange.bind_interdomain(pair.guest, port), Err(EventError::NotUnbound));
    for other in [near, Port(0), Port(port.0 + 1), Port(u32::MAX)] {
        assert_eq!(back.bind_interdomain(pair.guest, other), Err(EventError::NotUnbound), "{other}");
    }
    assert!(back.bind_interdomain(pair.guest, port).is_ok());
}

fn a_port_that_is_not_ours_is_refused(lab: &impl Lab) {
    let Channel { pair, mut front, near, .. } = channel(lab);
    let mut other = FrontWorld::events(&pair.front).unwrap();
    for port in [near, Port(0), Port(4000), Port(u32::MAX)] {
        assert_eq!(other.notify(port), Err(EventError::NotBound(port)));
        assert_eq!(other.unmask(port), Err(EventError::NotBound(port)));
        assert_eq!(other.unbind(port), Err(EventError::NotBound(port)));
    }
    front.unbind(near).unwrap();
    assert_eq!(front.notify(near), Err(EventError::NotBound(near)));
}

fn events_to_nobody_are_lost(lab: &impl Lab) {
    let pair = Pair::new(lab);
    let mut front = FrontWorld::events(&pair.front).unwrap();
    let near = front.alloc_unbound(DomId::DOM0).unwrap();
    front.notify(near).unwrap();
    assert_eq!(front.take_pending(), None);
}

fn the_binders_end_can_be_bound_again(lab: &impl Lab) {
    let Channel { pair, mut front, near, mut back, far } = channel(lab);
    back.unbind(far).unwrap();
    front.notify(near).unwrap();
    let again = back.bind_interdomain(pair.guest, near).unwrap();
    assert_eq!((back.take_pending(), back.take_pending()), (Some(again), None));
    back.unmask(again).unwrap();
    back.notify(again).unwrap();
    assert_eq!(front.take_pending(), Some(near));
    front.notify(near).unwrap();
    assert_eq!(back.take_pending(), Some(again));
    drop(back);
    let mut other = BackWorld::events(&pair.back).unwrap();
    let third = other.bind_interdomain(pair.guest, near).unwrap();
    assert_eq!(other.take_pending(), Some(third));
    assert_eq!(lab.leaks().ports, 2);
}

fn many_ports_all_arrive(lab: &impl Lab) {
    let pair = Pair::new(lab);
    let mut front = FrontWorld::events(&pair.front).unwrap();
    let mut back = BackWorld::events(&pair.back).unwrap();
    let near: Vec<Port> = (0..100).map(|_| front.alloc_unbound(DomId::DOM0).unwrap()).collect();
    let mut far: Vec<Port> =
        near.iter().map(|port| back.bind_interdomain(pair.guest, *port).unwrap()).collect();
    for _ in 0..2 {
        near.iter().for_each(|port| front.notify(*port).unwrap());
        let mut taken = Vec::new();
        while let Some(port) = back.take_pending() {
            taken.push(port);
        }
        taken.sort();
        far.sort();
        assert_eq!(taken, far);
        taken.iter().for_each(|port| back.unmask(*port).unwrap());
    }
    drop((front, back));
    assert_eq!(lab.leaks().ports, 0);
}

fn a_busy_port_does_not_starve_the_others(lab: &impl Lab) {
    let pair = Pair::new(lab);
    let mut front = FrontWorld::events(&pair.front).unwrap();
    let mut back = BackWorld::events(&pair.back).unwrap();
    let near = [0; 2].map(|_| front.alloc_unbound(DomId::DOM0).unwrap());
    let far = near.map(|port| back.bind_interdomain(pair.guest, port).unwrap());
    let mut seen = Vec::new();
    for _ in 0..4 {
        near.iter().for_each(|port| front.notify(*port).unwrap());
        let taken = back.take_pending().unwrap();
        seen.push(taken);
        back.unmask(taken).unwrap();
    }
    assert!(far.iter().all(|port| seen.contains(port)), "{seen:?} of {far:?}");
}

crate::in_both_worlds!(
    events_go_both_ways,
    events_merge,
    a_taken_port_is_masked_until_unmasked,
    the_descriptor_tells,
    waiting_ends_with_an_event_or_in_time,
    only_the_named_domain_may_bind,
    a_port_that_is_not_ours_is_refused,
    events_to_nobody_are_lost,
    the_binders_end_can_be_bound_again,
    many_ports_all_arrive,
    a_busy_port_does_not_starve_the_others,
);
