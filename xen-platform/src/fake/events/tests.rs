use super::*;

const FRONT: DomId = DomId(1);
const BACK: DomId = DomId(0);
const OWNER: Owner = 1;

fn channel() -> (EventTable, End, End) {
    let mut table = EventTable::default();
    let front = table.alloc_unbound(FRONT, BACK, OWNER).unwrap();
    let back = table.bind(BACK, FRONT, front.port, 2).unwrap();
    assert_eq!((front.channel, front.side), (back.channel, back.side.other()));
    (table, (FRONT, front.port), (BACK, back.port))
}

#[test]
fn binding_leaves_an_event_on_the_binders_end() {
    let (mut table, front, back) = channel();
    assert!(!table.take(front));
    assert!(table.take(back));
    assert!(!table.take(back));
}

#[test]
fn only_the_named_domain_may_bind_and_only_once() {
    let mut table = EventTable::default();
    let port = table.alloc_unbound(FRONT, BACK, OWNER).unwrap().port;
    assert_eq!(table.bind(DomId(2), FRONT, port, OWNER), Err(EventError::NotUnbound));
    assert_eq!(table.bind(BACK, FRONT, Port(port.0 + 1), OWNER), Err(EventError::NotUnbound));
    assert_eq!(table.bind(BACK, DomId(2), port, OWNER), Err(EventError::NotUnbound));
    table.bind(BACK, FRONT, port, OWNER).unwrap();
    assert_eq!(table.bind(BACK, FRONT, port, OWNER), Err(EventError::NotUnbound));
}

#[test]
fn either_end_waits_for_the_same_domain_after_the_other_closed() {
    let (mut table, front, back) = channel();
    assert_eq!(table.close(back), None);
    assert_eq!(table.peer(front), None);
    assert_eq!(table.bind(DomId(2), FRONT, front.1, OWNER), Err(EventError::NotUnbound));
    let again = table.bind(BACK, FRONT, front.1, OWNER).unwrap();
    assert_eq!(table.peer(front), Some((BACK, again.port)));

    let first = table.close(front);
    assert_eq!(first, None, "the other end is still open");
    let waiting = table.bind(FRONT, BACK, again.port, OWNER).unwrap();
    assert_eq!((waiting.channel, waiting.side), (again.channel, Side::First));
}

#[test]
fn a_channel_is_over_when_both_ends_are_closed() {
    let (mut table, front, back) = channel();
    assert_eq!(table.close(front), None);
    assert!(table.close(back).is_some());
    assert_eq!(table.close(back), None);
    assert_eq!(table.len(), 0);
}

#[test]
fn what_was_taken_stays_masked_and_merges_what_comes() {
    let (mut table, _, back) = channel();
    assert!(table.take(back));
    table.set_pending(back);
    table.set_pending(back);
    assert!(!table.is_deliverable(back) && !table.take(back));
    table.unmask(back).unwrap();
    assert!(table.take(back));
    table.unmask(back).unwrap();
    assert!(!table.take(back), "two events while masked are one");
}

#[test]
fn ports_are_the_lowest_free_ones_and_end() {
    let mut table = EventTable::default();
    let mut open = || table.alloc_unbound(FRONT, BACK, OWNER);
    assert_eq!(
        [open().unwrap().port, open().unwrap().port, open().unwrap().port],
        [Port(1), Port(2), Port(3)]
    );
    table.close((FRONT, Port(2)));
    let reused = table.alloc_unbound(FRONT, BACK, OWNER).unwrap().port;
    assert_eq!(reused, Port(2));
    let opened = (0..MAX_PORTS).map_while(|_| table.alloc_unbound(FRONT, BACK, OWNER).ok()).count();
    assert_eq!(opened, MAX_PORTS as usize - 4);
    assert_eq!(table.alloc_unbound(FRONT, BACK, OWNER), Err(EventError::Exhausted));
    assert!(table.alloc_unbound(BACK, FRONT, OWNER).is_ok(), "each domain has ports of its own");
}

#[test]
fn ends_are_found_by_domain_and_by_owner() {
    let (table, front, back) = channel();
    assert_eq!(table.ends_where(Some(FRONT), None), [front]);
    assert_eq!(table.ends_where(None, Some(2)), [back]);
    assert_eq!(table.ends_where(Some(FRONT), Some(2)), []);
}
