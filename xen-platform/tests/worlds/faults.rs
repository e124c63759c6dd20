//! Seeded faults: they strike, and strike again in the same way.

use std::time::Duration;

use xen_platform::{
    Access, BackWorld, DomId, EventChannels, FrontWorld, GrantError, Lender, Mapper, Mapping,
    fake::{Fault, Faults, Machine},
};

const ALL: Faults =
    Faults { lost_events: 100, late_events: 100, spurious_events: 100, refused_maps: 100, dies: None };

/// Events taken at either end, and maps that succeeded, of a fixed run.
type Outcome = (Vec<(bool, bool)>, Vec<bool>);

fn run(seed: u64, faults: Faults) -> (Outcome, Vec<Fault>) {
    let machine = Machine::new(seed);
    let guest = machine.create_domain(64).unwrap();
    let (front, back) = (machine.world(guest), machine.world(DomId::DOM0));
    let (mut near, mut far) = (FrontWorld::events(&front).unwrap(), BackWorld::events(&back).unwrap());
    let port = near.alloc_unbound(DomId::DOM0).unwrap();
    let bound = far.bind_interdomain(guest, port).unwrap();
    let mut lender = front.lender(DomId::DOM0).unwrap();
    let mut pages = lender.alloc(1).unwrap();
    lender.lend(&mut pages, Access::Read).unwrap();
    let mut mapper = back.mapper().unwrap();
    let mut mapping = mapper.mapping();
    machine.set_faults(faults);
    let mut outcome = Outcome::default();
    for _ in 0..100 {
        let _ = near.notify(port);
        let _ = far.notify(bound);
        let taken = (near.take_pending().is_some(), far.take_pending().is_some());
        let _ = (near.unmask(port), far.unmask(bound));
        outcome.0.push(taken);
        outcome.1.push(mapper.map(guest, pages.grants(), Access::Read, &mut mapping).is_ok());
        mapping.clear();
    }
    (outcome, machine.faults_struck())
}

#[test]
fn a_seed_replays() {
    for seed in 0..20 {
        assert_eq!(run(seed, ALL), run(seed, ALL));
    }
    assert_ne!(run(1, ALL), run(2, ALL));
}

#[test]
fn without_faults_nothing_is_lost_or_invented() {
    let (outcome, struck) = run(1, Faults::default());
    assert!(outcome.0.iter().all(|taken| *taken == (true, true)));
    assert!(!outcome.1.contains(&false));
    assert_eq!(struck, []);
}

#[test]
fn each_kind_strikes() {
    let (outcome, struck) = run(3, ALL);
    let count = |kind: fn(&Fault) -> bool| struck.iter().filter(|fault| kind(fault)).count();
    assert!(count(|fault| matches!(fault, Fault::Lost(..))) > 5);
    assert!(count(|fault| matches!(fault, Fault::Late(..))) > 5);
    assert!(count(|fault| matches!(fault, Fault::Spurious(..))) > 5);
    let refused = outcome.1.iter().filter(|mapped| !**mapped).count();
    assert_eq!(count(|fault| matches!(fault, Fault::Refused(..))), refused);
    assert!(refused > 2);
}

#[test]
fn lost_events_never_come_and_late_ones_do() {
    let machine = Machine::new(5);
    let guest = machine.create_domain(1).unwrap();
    let (front, back) = (machine.world(guest), machine.world(DomId::DOM0));
    let (mut near, mut far) = (FrontWorld::events(&front).unwrap(), BackWorld::events(&back).unwrap());
    let port = near.alloc_unbound(DomId::DOM0).unwrap();
    far.bind_interdomain(guest, port).unwrap();
    let bound = far.take_pending().unwrap();
    far.unmask(bound).unwrap();

    machine.set_faults(Faults { lost_events: 1000, ..Faults::default() });
    near.notify(port).unwrap();
    assert!(!far.wait(Some(Duration::from_millis(1))).unwrap());

    machine.set_faults(Faults { late_events: 1000, ..Faults::default() });
    near.notify(port).unwrap();
    assert_eq!(far.take_pending(), None);
    assert!(far.wait(None).unwrap(), "whoever waits lets it arrive");
    assert_eq!(far.take_pending(), Some(bound));
    assert_eq!(machine.faults_struck(), [Fault::Lost(DomId::DOM0, bound), Fault::Late(DomId::DOM0, bound)]);
}

#[test]
fn a_peer_dies_on_schedule() {
    let dies = Some((DomId(1), 30));
    let (outcome, struck) = run(1, Faults { dies, ..Faults::default() });
    assert_eq!(struck, [Fault::Died(DomId(1))]);
    let alive = outcome.1.iter().take_while(|mapped| **mapped).count();
    assert_eq!(alive, 9, "three operations a round");
    assert!(!outcome.1[alive..].contains(&true));
}

#[test]
fn refused_copies_are_refused_whole() {
    let machine = Machine::new(1);
    let guest = machine.create_domain(1).unwrap();
    let mut mapper = machine.world(DomId::DOM0).mapper().unwrap();
    machine.set_faults(Faults { refused_maps: 1000, ..Faults::default() });
    let gref = blkif_proto::GrantRef(8);
    let local = xen_platform::grant::CopyEnd::From(b"x");
    let mut ops = [xen_platform::CopyOp { from: guest, gref, offset: 0, local, status: Ok(()) }];
    assert_eq!(mapper.copy(&mut ops), Err(GrantError::Exhausted));
    assert_eq!(machine.faults_struck(), [Fault::Refused(guest)]);
}

#[test]
fn time_passes_only_when_somebody_waits() {
    use xen_platform::Clock;
    let machine = Machine::new(1);
    let guest = machine.create_domain(1).unwrap();
    let world = machine.world(guest);
    let clock = world.clock();
    assert_eq!(clock.now(), Duration::ZERO);
    machine.advance(Duration::from_secs(60));
    let mut events = FrontWorld::events(&world).unwrap();
    assert!(!events.wait(Some(Duration::from_millis(3))).unwrap());
    assert_eq!(clock.now(), Duration::from_millis(60_003));
}
