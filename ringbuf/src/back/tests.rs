use crate::{BackRing, Corrupt, Field, FrontRing, Full, Heap, Index, Layout, RingMem};
use proptest::prelude::*;

const RESPONSE: [u8; 16] = [0xcd; 16];

/// A fresh ring from `start` on which a frontend claims to have published up to `req_prod`.
fn memory(start: u32, req_prod: Index) -> Heap {
    let memory = Heap::new(Layout::new(1, 112).unwrap());
    drop(FrontRing::init_at(memory.clone(), Index::new(start)));
    memory.store(Field::ReqProd, req_prod);
    memory
}

fn ring(requests: u32) -> (BackRing<Heap>, Heap) {
    let memory = memory(0, Index::new(requests));
    (BackRing::attach(memory.clone()).unwrap(), memory)
}

#[test]
fn attach_begins_at_the_first_unanswered_request() {
    let memory = memory(0, Index::new(9));
    memory.store(Field::RspProd, Index::new(5));
    let mut back = BackRing::attach(memory.clone()).unwrap();
    assert_eq!(back.available(), Ok(4));
    assert_eq!(
        (back.consumed(), back.responded(), back.published()),
        (Index::new(5), Index::new(5), Index::new(5))
    );
    assert_eq!(memory.load(Field::RspProd), Index::new(5), "attaching writes nothing");
    assert_eq!(memory.load(Field::ReqEvent), Index::new(1));
}

#[test]
fn attach_refuses_more_requests_than_slots() {
    let refused = BackRing::attach(memory(7, Index::new(7 + 33))).err();
    assert_eq!(refused, Some(Corrupt::Jumped { producer: 40, consumer: 7, room: 32 }));
    assert!(BackRing::attach(memory(7, Index::new(6))).is_err(), "backwards");
    assert!(BackRing::attach(memory(7, Index::new(7 + 32))).is_ok());
}

#[test]
fn a_successor_skips_what_was_consumed_before_it() {
    let (mut back, memory) = ring(6);
    back.consume(4).unwrap();
    back.respond(&RESPONSE, 1).unwrap();
    let _ = back.publish();
    let (consumed, published) = (back.consumed(), back.published());
    drop(back);

    let mut successor = BackRing::attach(memory).unwrap();
    successor.consume(consumed.since(published)).unwrap();
    assert_eq!((successor.consumed(), successor.unanswered()), (consumed, 3));
    assert_eq!(successor.available(), Ok(2));
}

#[test]
fn a_frontend_may_use_a_slot_again_only_after_the_answer_was_published() {
    let (mut back, memory) = ring(32);
    back.consume(32).unwrap();
    back.respond(&RESPONSE, 32).unwrap();
    memory.store(Field::ReqProd, Index::new(33));
    assert_eq!(back.available(), Err(Corrupt::Jumped { producer: 33, consumer: 32, room: 0 }));

    let (mut back, memory) = ring(32);
    back.consume(32).unwrap();
    back.respond(&RESPONSE, 32).unwrap();
    let _ = back.publish();
    memory.store(Field::ReqProd, Index::new(33));
    assert_eq!(back.available(), Ok(1));
}

#[test]
fn a_request_whose_entries_are_not_all_there_is_torn() {
    let (mut back, memory) = ring(2);
    let mut entry = [0; 112];
    assert_eq!(back.read(1, &mut entry), Ok(()));
    let torn = Corrupt::Torn { producer: 2, consumer: 0, entries: 3 };
    assert_eq!(back.read(2, &mut entry), Err(torn));
    memory.store(Field::ReqProd, Index::new(3));
    assert_eq!(back.available(), Err(torn), "later entries do not mend it");

    let (mut back, _memory) = ring(2);
    assert_eq!(back.consume(3), Err(torn));
    let (mut back, _memory) = ring(2);
    assert!(back.read(u32::MAX, &mut entry).is_err());
}

#[test]
fn entries_that_came_after_the_last_look_belong_to_the_request() {
    let (mut back, memory) = ring(1);
    assert_eq!(back.available(), Ok(1));
    memory.store(Field::ReqProd, Index::new(4));
    assert_eq!(back.read(3, &mut [0; 112]), Ok(()));
    assert_eq!(back.consume(4), Ok(()));
}

#[test]
fn nothing_is_answered_twice() {
    let (mut back, memory) = ring(3);
    assert_eq!(back.respond(&RESPONSE, 1), Err(Full), "nothing was consumed");
    back.consume(3).unwrap();
    assert_eq!(back.respond(&RESPONSE, 4), Err(Full));
    assert_eq!(back.respond(&RESPONSE, 3), Ok(()));
    assert_eq!(back.respond(&RESPONSE, 1), Err(Full));
    assert!(back.publish().is_needed());
    assert_eq!(memory.load(Field::RspProd), Index::new(3));
    assert!(!back.publish().is_needed());
}

#[test]
fn a_response_leaves_the_rest_of_its_slot_alone() {
    let (mut back, memory) = ring(1);
    memory.write_slot(Index::new(0), &[0x77; 112]);
    back.consume(1).unwrap();
    back.respond(&RESPONSE, 1).unwrap();
    let mut slot = [0; 112];
    memory.read_slot(Index::new(0), &mut slot);
    assert_eq!(slot[..16], RESPONSE);
    assert_eq!(slot[16..], [0x77; 96]);
}

#[test]
fn our_own_producer_index_is_never_believed() {
    let (mut back, memory) = ring(2);
    back.consume(2).unwrap();
    memory.store(Field::RspProd, Index::new(999));
    back.respond(&RESPONSE, 1).unwrap();
    let _ = back.publish();
    assert_eq!(memory.load(Field::RspProd), Index::new(1));
}

#[test]
fn arming_asks_for_the_next_request_and_looks_again() {
    let (mut back, memory) = ring(2);
    back.consume(2).unwrap();
    assert_eq!(back.arm(), Ok(false));
    assert_eq!(memory.load(Field::ReqEvent), Index::new(3));
    memory.store(Field::ReqProd, Index::new(3));
    assert_eq!(back.arm(), Ok(true));
    back.consume(1).unwrap();
    memory.store(Field::ReqProd, Index::new(1));
    assert!(matches!(back.arm(), Err(Corrupt::Jumped { .. })), "the look is a checked one");
}

/// What a hostile frontend and a correct backend do, in any order.
#[derive(Debug, Clone)]
enum Step {
    Write(Field, Index),
    Forward(u32),
    Read(u32),
    Consume(u32),
    Respond(u32),
    Publish,
    Arm,
}

fn step(start: u32) -> impl Strategy<Value = Step> {
    let field = prop::sample::select(vec![Field::ReqProd, Field::ReqEvent, Field::RspProd, Field::RspEvent]);
    let near = (-40i32..80).prop_map(move |by| start.wrapping_add_signed(by));
    let index = prop_oneof![any::<u32>(), near].prop_map(Index::new);
    prop_oneof![
        1 => (field, index).prop_map(|(field, index)| Step::Write(field, index)),
        6 => (0..40u32).prop_map(Step::Forward),
        4 => prop_oneof![0..40u32, Just(u32::MAX)].prop_map(Step::Read),
        6 => prop_oneof![0..20u32, Just(u32::MAX)].prop_map(Step::Consume),
        6 => prop_oneof![0..20u32, Just(u32::MAX)].prop_map(Step::Respond),
        3 => Just(Step::Publish),
        2 => Just(Step::Arm),
    ]
}

proptest! {
    #[test]
    fn a_hostile_frontend_gets_no_further_than_one_ring(
        (start, steps) in any::<u32>().prop_flat_map(|start| (Just(start), prop::collection::vec(step(start), 0..100)))
    ) {
        let memory = memory(start, Index::new(start));
        let mut back = BackRing::attach(memory.clone()).unwrap();
        let mut offence = None;
        for step in steps {
            let before = (back.consumed(), back.published(), back.unanswered());
            let outcome = match step {
                Step::Write(field, index) => { memory.store(field, index); Ok(()) }
                Step::Forward(by) => { memory.store(Field::ReqProd, back.consumed().plus(by)); Ok(()) }
                Step::Read(ahead) => back.read(ahead, &mut [0; 112]),
                Step::Consume(entries) => back.consume(entries),
                Step::Respond(entries) => {
                    prop_assert_eq!(back.respond(&RESPONSE, entries).is_ok(), entries <= before.2);
                    Ok(())
                }
                Step::Publish => { let _ = back.publish(); Ok(()) }
                Step::Arm => back.arm().map(drop),
            };
            let unpublished = back.consumed().since(back.published());
            prop_assert!(unpublished <= 32, "{} entries taken from a ring of 32", unpublished);
            match (outcome, offence) {
                (Err(now), Some(first)) => prop_assert_eq!(now, first, "the first offence counts"),
                (Err(now), None) => offence = Some(now),
                (Ok(()), _) => {}
            }
            if let Some(first) = offence {
                prop_assert_eq!(back.available(), Err(first));
                prop_assert_eq!(back.consumed(), before.0, "nothing is consumed from a corrupt ring");
            }
        }
    }

    #[test]
    fn any_request_index_is_counted_or_refused(start: u32, req_prod: u32, ahead in 0..=33u32) {
        for req_prod in [Index::new(req_prod), Index::new(start).plus(ahead)] {
            let requests = req_prod.since(Index::new(start));
            match BackRing::attach(memory(start, req_prod)) {
                Ok(mut back) => prop_assert_eq!(back.available(), Ok(requests)),
                Err(corrupt) => {
                    prop_assert!(requests > 32);
                    let jumped = Corrupt::Jumped { producer: req_prod.get(), consumer: start, room: 32 };
                    prop_assert_eq!(corrupt, jumped);
                }
            }
        }
    }
}
