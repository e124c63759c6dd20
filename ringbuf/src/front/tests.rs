use crate::{Corrupt, Field, FrontRing, Full, Heap, Index, Layout, RingMem};
use proptest::prelude::*;

const ENTRY: [u8; 112] = [0xab; 112];

fn ring(start: u32) -> (FrontRing<Heap>, Heap) {
    let memory = Heap::new(Layout::new(1, 112).unwrap());
    (FrontRing::init_at(memory.clone(), Index::new(start)), memory)
}

/// A ring with `entries` requests in flight.
fn busy(start: u32, entries: u32) -> (FrontRing<Heap>, Heap) {
    let (mut front, memory) = ring(start);
    for _ in 0..entries {
        front.push(&ENTRY).unwrap();
    }
    let _ = front.publish();
    (front, memory)
}

#[test]
fn init_starts_as_xen_does_over_old_contents() {
    let (_, memory) = busy(77, 32);
    let front = FrontRing::init(memory.clone());
    assert_eq!(memory.load(Field::ReqProd), Index::new(0));
    assert_eq!(memory.load(Field::RspProd), Index::new(0));
    assert_eq!(memory.load(Field::ReqEvent), Index::new(1));
    assert_eq!(memory.load(Field::RspEvent), Index::new(1));
    let mut slot = ENTRY;
    memory.read_slot(Index::new(5), &mut slot);
    assert_eq!(slot, [0; 112]);
    assert_eq!((front.free(), front.pushed(), front.in_flight()), (32, 0, 0));
}

#[test]
fn nothing_is_visible_before_publish() {
    let (mut front, memory) = ring(0);
    front.push(&ENTRY).unwrap();
    assert_eq!(memory.load(Field::ReqProd), Index::new(0));
    assert!(front.publish().is_needed(), "a fresh backend asks for the first request");
    assert_eq!(memory.load(Field::ReqProd), Index::new(1));
    assert!(!front.publish().is_needed(), "nothing was pushed");
}

#[test]
fn a_backend_that_polls_is_not_notified() {
    let (mut front, _memory) = busy(0, 1);
    front.push(&ENTRY).unwrap();
    assert!(!front.publish().is_needed(), "req_event is stale");
}

#[test]
fn our_own_producer_index_is_never_believed() {
    let (mut front, memory) = busy(0, 3);
    memory.store(Field::ReqProd, Index::new(1000));
    assert_eq!((front.free(), front.in_flight()), (29, 3));
    front.push(&ENTRY).unwrap();
    let _ = front.publish();
    assert_eq!(memory.load(Field::ReqProd), Index::new(4));
}

#[test]
fn a_full_ring_takes_no_more() {
    let (mut front, _memory) = busy(u32::MAX, 32);
    assert_eq!(front.push(&ENTRY), Err(Full));
    assert_eq!((front.free(), front.pushed()), (0, 0));
}

#[test]
fn the_response_is_read_once_consumed_by_stride_and_its_slots_are_free_again() {
    let (mut front, memory) = busy(30, 5);
    memory.write_slot(Index::new(30), &[1; 16]);
    memory.write_slot(Index::new(33), &[2; 16]);
    memory.store(Field::RspProd, Index::new(35));
    let mut response = [0; 16];
    assert_eq!(front.peek(&mut response), Ok(true));
    assert_eq!(response, [1; 16]);
    assert_eq!(front.consume(3), Ok(()));
    assert_eq!(front.peek(&mut response), Ok(true));
    assert_eq!(response, [2; 16]);
    assert_eq!(front.consume(2), Ok(()));
    assert_eq!(front.peek(&mut response), Ok(false));
    assert_eq!((front.free(), front.in_flight()), (32, 0));
}

#[test]
fn a_stride_that_the_backend_did_not_publish_is_torn() {
    let (mut front, memory) = busy(0, 5);
    memory.store(Field::RspProd, Index::new(2));
    assert_eq!(front.peek(&mut [0; 16]), Ok(true));
    let torn = Corrupt::Torn { producer: 2, consumer: 0, entries: 3 };
    assert_eq!(front.consume(3), Err(torn));
    assert_eq!(front.peek(&mut [0; 16]), Err(torn));
    assert_eq!(
        torn.to_string(),
        "peer published up to 0x00000002, but its message at 0x00000000 takes 3 entries"
    );
}

#[test]
fn a_response_that_nobody_asked_for_is_corrupt_for_good() {
    let (mut front, memory) = busy(0, 3);
    memory.store(Field::RspProd, Index::new(4));
    let jumped = Corrupt::Jumped { producer: 4, consumer: 0, room: 3 };
    assert_eq!(front.peek(&mut [0; 16]), Err(jumped));
    memory.store(Field::RspProd, Index::new(1));
    assert_eq!(front.peek(&mut [0; 16]), Err(jumped), "mending the index does not mend the peer");
    assert_eq!(front.consume(1), Err(jumped));
    assert_eq!(front.arm(), Err(jumped));
    assert_eq!(
        jumped.to_string(),
        "peer's producer index 0x00000004 is not within 3 entries of consumer index 0x00000000"
    );
}

#[test]
fn an_index_that_goes_back_is_corrupt() {
    let (mut front, memory) = busy(0, 8);
    memory.store(Field::RspProd, Index::new(6));
    assert_eq!(front.peek(&mut [0; 16]), Ok(true));
    memory.store(Field::RspProd, Index::new(2));
    assert_eq!(front.arm_after(7), Err(Corrupt::Jumped { producer: 2, consumer: 0, room: 8 }));
    assert!(front.peek(&mut [0; 16]).is_err(), "the six responses known before are not served either");
}

#[test]
fn arming_says_what_is_there_and_asks_for_the_rest() {
    let (mut front, memory) = busy(0, 4);
    assert_eq!(front.arm(), Ok(false));
    assert_eq!(memory.load(Field::RspEvent), Index::new(1));
    memory.store(Field::RspProd, Index::new(2));
    assert_eq!(front.arm_after(3), Ok(false));
    assert_eq!(memory.load(Field::RspEvent), Index::new(3));
    assert_eq!(front.arm_after(2), Ok(true));
    assert_eq!(front.arm_after(u32::MAX), Ok(false));
    assert_eq!(memory.load(Field::RspEvent), Index::new(4), "no more than what is in flight");
    assert_eq!(front.arm_after(0), Ok(true), "at least one");
}

#[test]
fn abort_takes_back_what_was_not_published() {
    let (mut front, memory) = busy(9, 2);
    front.push(&ENTRY).unwrap();
    front.push(&ENTRY).unwrap();
    assert_eq!(front.pushed(), 2);
    front.abort();
    assert_eq!((front.pushed(), front.free(), front.in_flight()), (0, 30, 2));
    assert!(!front.publish().is_needed());
    assert_eq!(memory.load(Field::ReqProd), Index::new(11));
}

proptest! {
    /// Whatever the backend writes: more than is in flight is refused, anything else is a number of responses.
    #[test]
    fn any_response_index_is_counted_or_refused(start: u32, in_flight in 0..=32u32, rsp_prod: u32, ahead in 0..=33u32) {
        for rsp_prod in [Index::new(rsp_prod), Index::new(start).plus(ahead)] {
            let (mut front, memory) = busy(start, in_flight);
            memory.store(Field::RspProd, rsp_prod);
            let responses = rsp_prod.since(Index::new(start));
            let mut collected = 0;
            let end = loop {
                match front.peek(&mut [0; 16]) {
                    Ok(true) => front.consume(1).unwrap(),
                    end => break end,
                }
                collected += 1;
            };
            if responses <= in_flight {
                prop_assert_eq!((end, collected), (Ok(false), responses));
            } else {
                prop_assert!(end.is_err(), "{:?}", end);
                prop_assert_eq!(collected, 0);
            }
        }
    }
}
