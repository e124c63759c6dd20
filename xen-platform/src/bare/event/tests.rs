use super::*;
use crate::bare::{
    hypercall::tests::{PEER, PORT},
    tests::{pend, world},
};

#[test]
fn ports_are_bound_and_errors_named() {
    let bed = world();
    let mut events = Events::new(bed.world.machine.clone());
    assert_eq!(events.alloc_unbound(PEER), Ok(PORT));
    assert_eq!(events.alloc_unbound(DomId(9)), Err(EventError::NoDomain(DomId(9))));
    assert_eq!(events.bind_interdomain(PEER, Port(1)), Err(EventError::NotUnbound));
    let bound = events.bind_interdomain(PEER, Port(9)).unwrap();
    assert_eq!(events.notify(bound), Ok(()));
    assert_eq!(events.notify(Port(1)), Err(EventError::NotBound(Port(1))));
    assert_eq!(events.unbind(bound), Ok(()));
    assert_eq!(events.unbind(bound), Err(EventError::NotBound(bound)));
}

#[test]
fn a_handle_takes_its_own_ports_in_turn() {
    let bed = world();
    let mut events = Events::new(bed.world.machine.clone());
    let ports = [events.alloc_unbound(PEER).unwrap(), events.bind_interdomain(PEER, Port(9)).unwrap()];
    assert_eq!(events.take_pending(), None);
    for port in ports.into_iter().chain([Port(3)]) {
        pend(bed.shared_info, port);
    }
    assert_eq!(events.take_pending(), Some(ports[0]));
    events.unmask(ports[0]).unwrap();
    pend(bed.shared_info, ports[0]);
    assert_eq!(events.take_pending(), Some(ports[1]), "the other one is next");
    assert_eq!(events.take_pending(), Some(ports[0]));
    assert_eq!(events.take_pending(), None, "one is masked, one is not ours");
}

#[test]
fn a_port_that_was_masked_by_its_last_owner_is_open() {
    let bed = world();
    bed.world.machine.shared.mask(PORT);
    let mut events = Events::new(bed.world.machine.clone());
    events.alloc_unbound(PEER).unwrap();
    pend(bed.shared_info, PORT);
    assert_eq!(events.wait(None), Ok(true));
}

#[test]
fn waiting_ends_with_an_event_or_the_time() {
    let bed = world();
    let mut events = Events::new(bed.world.machine.clone());
    let port = events.alloc_unbound(PEER).unwrap();
    assert_eq!(events.wait(Some(Duration::from_millis(1))), Ok(false));
    assert_eq!(events.wait(Some(Duration::ZERO)), Ok(false));
    pend(bed.shared_info, port);
    assert_eq!(events.wait(None), Ok(true));
    assert_eq!(events.take_pending(), Some(port));
    pend(bed.shared_info, port);
    assert_eq!(events.wait(Some(Duration::from_millis(1))), Ok(false), "masked ports do not wake");
}

#[test]
fn a_handle_has_no_more_ports_than_a_poll() {
    let bed = world();
    let mut events = Events::new(bed.world.machine.clone());
    for _ in 0..128 {
        events.alloc_unbound(PEER).unwrap();
    }
    assert_eq!(events.alloc_unbound(PEER), Err(EventError::Exhausted));
    assert_eq!(events.wait(Some(Duration::from_millis(1))), Ok(false));
}
