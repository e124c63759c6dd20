//! The shared ring: indices, slots and events (docs/PROTOCOL.md section 1).

use std::time::Duration;

use anyhow::Result;
use blkif_proto::{Opcode, Response, Status, xenbus::State};
use ringbuf::Field;
use xen_platform::FrontWorld;

use crate::{
    conformance::{
        Clause, EVERY_ABI, ONE_ABI,
        rig::{Guest, Raw, Wish, silence, whole},
    },
    must,
};

pub(super) fn clauses<W: FrontWorld>() -> Vec<Clause<Guest<W>>> {
    vec![
        Clause {
            name: "ring.every-slot",
            rule: "A backend takes as many requests as the ring has slots, and answers each once (1.2, 1.4).",
            abis: EVERY_ABI,
            check: every_slot,
        },
        Clause {
            name: "ring.overflow-closes",
            rule: "More requests than slots are a broken ring: the backend stops and closes (0.15, 1.5).",
            abis: EVERY_ABI,
            check: overflow_closes,
        },
        Clause {
            name: "ring.overflow-after-use-closes",
            rule: "The limit moves with the answers: one more than free slots is a broken ring (0.15, 1.5).",
            abis: ONE_ABI,
            check: overflow_after_use_closes,
        },
        Clause {
            name: "ring.index-back-closes",
            rule: "A producer index that goes back is a broken ring (0.15, 1.5).",
            abis: ONE_ABI,
            check: index_back_closes,
        },
        Clause {
            name: "ring.broken-stays-broken",
            rule: "A ring that was broken is not consumed again, even if its indices become sensible (0.15).",
            abis: ONE_ABI,
            check: broken_stays_broken,
        },
        Clause {
            name: "ring.broken-then-new",
            rule: "A guest that broke its ring may close and connect anew (0.11, 0.15).",
            abis: EVERY_ABI,
            check: broken_then_new,
        },
        Clause {
            name: "ring.admitted-before-overflow",
            rule: "What was admitted before the ring broke is answered once or not at all, never twice (1.5).",
            abis: ONE_ABI,
            check: admitted_before_overflow,
        },
        Clause {
            name: "ring.padding-zero",
            rule: "Every byte of a response slot that the response does not use is zero (0.16, XSA-216).",
            abis: EVERY_ABI,
            check: padding_zero,
        },
        Clause {
            name: "ring.no-event-unasked",
            rule: "A backend does not signal for answers below rsp_event (1.4).",
            abis: ONE_ABI,
            check: no_event_unasked,
        },
        Clause {
            name: "ring.event-asked",
            rule: "A backend signals when rsp_prod reaches rsp_event (1.4).",
            abis: EVERY_ABI,
            check: event_asked,
        },
        Clause {
            name: "ring.event-batched",
            rule: "A frontend may ask for one signal for several answers (1.4).",
            abis: ONE_ABI,
            check: event_batched,
        },
        Clause {
            name: "ring.asks-when-idle",
            rule: "A backend that goes to sleep asks to be signalled for the very next request (1.4).",
            abis: EVERY_ABI,
            check: asks_when_idle,
        },
        Clause {
            name: "ring.hold-off-loses-nothing",
            rule: "A frontend that signals only when req_event asks for it is always served (1.4).",
            abis: EVERY_ABI,
            check: hold_off_loses_nothing,
        },
        Clause {
            name: "ring.spurious-events",
            rule: "Events without requests mean nothing (1.4).",
            abis: ONE_ABI,
            check: spurious_events,
        },
        Clause {
            name: "ring.merged-events",
            rule: "One event may stand for several publications (1.4).",
            abis: ONE_ABI,
            check: merged_events,
        },
        Clause {
            name: "ring.first-event",
            rule: "Requests published before the backend bound its port are found without an event (1.4).",
            abis: EVERY_ABI,
            check: first_event,
        },
        Clause {
            name: "ring.own-indices-are-private",
            rule: "A backend goes by its own copies of the indices it writes, whatever the guest writes there (1.5).",
            abis: ONE_ABI,
            check: own_indices_are_private,
        },
        Clause {
            name: "ring.attaches-at-rsp-prod",
            rule: "A backend starts at the ring's rsp_prod, not at 0 (1.3).",
            abis: EVERY_ABI,
            check: attaches_at_rsp_prod,
        },
        Clause {
            name: "ring.attach-overflow-refused",
            rule: "A ring that is broken when the guest connects is refused (1.3).",
            abis: ONE_ABI,
            check: attach_overflow_refused,
        },
        Clause {
            name: "ring.index-wraps",
            rule: "Indices run freely and wrap at 2^32 (1.1, 1.4).",
            abis: EVERY_ABI,
            check: index_wraps,
        },
    ]
}

fn every_slot<W: FrontWorld>(guest: &mut Guest<W>) -> Result<()> {
    let mut connection = guest.connect(&Wish::default())?;
    let slots = u64::from(connection.queue().ring.layout().entries());
    must!(slots == 32, "a page holds {slots} entries");
    // Three times round, so that every slot was both first and last.
    for round in 0..3 {
        let requests = connection.reads(round * slots..(round + 1) * slots)?;
        connection.batch_okay(&requests)?;
    }
    connection.queue().silence(silence())
}

fn overflow_closes<W: FrontWorld>(guest: &mut Guest<W>) -> Result<()> {
    let mut connection = guest.connect(&Wish::default())?;
    let slots = connection.queue().ring.layout().entries();
    connection.queue().set_index(Field::ReqProd, slots + 1);
    connection.queue().ring_bell()?;
    guest.refused_for("queue 0")?;
    must!(connection.queue().index(Field::RspProd) == 0, "the backend answered out of a broken ring");
    Ok(())
}

fn overflow_after_use_closes<W: FrontWorld>(guest: &mut Guest<W>) -> Result<()> {
    let mut connection = guest.connect(&Wish::default())?;
    let requests = connection.reads(0..5)?;
    connection.batch_okay(&requests)?;
    connection.queue().set_index(Field::ReqProd, 5 + 33);
    connection.queue().ring_bell()?;
    guest.refused_for("queue 0")?;
    must!(connection.queue().index(Field::RspProd) == 5, "the backend answered out of a broken ring");
    Ok(())
}

fn index_back_closes<W: FrontWorld>(guest: &mut Guest<W>) -> Result<()> {
    let mut connection = guest.connect(&Wish::default())?;
    let requests = connection.reads(0..5)?;
    connection.batch_okay(&requests)?;
    connection.queue().set_index(Field::ReqProd, 4);
    connection.queue().ring_bell()?;
    guest.refused_for("queue 0")
}

fn broken_stays_broken<W: FrontWorld>(guest: &mut Guest<W>) -> Result<()> {
    let mut connection = guest.connect(&Wish::default())?;
    connection.queue().set_index(Field::ReqProd, 1000);
    connection.queue().ring_bell()?;
    guest.wait_backend(State::Closing)?;
    let request = &connection.reads(1..2)?[0];
    connection.queue().set_index(Field::ReqProd, 0);
    connection.queue().send(&request.entries(guest.abi))?;
    connection.queue().silence(silence())
}

fn broken_then_new<W: FrontWorld>(guest: &mut Guest<W>) -> Result<()> {
    let mut connection = guest.connect(&Wish::default())?;
    connection.queue().set_index(Field::ReqProd, u32::MAX);
    connection.queue().ring_bell()?;
    guest.wait_backend(State::Closing)?;
    guest.restart()?;
    connection.take_rings_back()?;
    guest.connect(&Wish::default())?.works()
}

fn admitted_before_overflow<W: FrontWorld>(guest: &mut Guest<W>) -> Result<()> {
    let mut connection = guest.connect(&Wish::default())?;
    for request in &connection.reads(0..20)? {
        connection.queue().push(&request.entries(guest.abi))?;
    }
    connection.queue().kick()?;
    connection.queue().set_index(Field::ReqProd, 100);
    connection.queue().ring_bell()?;
    guest.wait_backend(State::Closing)?;
    let mut seen = Vec::new();
    while let Some(slot) = connection.queue().answer_within(1, silence())? {
        let answer = Response::parse(&slot);
        must!(answer.id < 20 && !seen.contains(&answer.id), "{answer:?} after {seen:?}");
        seen.push(answer.id);
    }
    Ok(())
}

fn padding_zero<W: FrontWorld>(guest: &mut Guest<W>) -> Result<()> {
    let mut connection = guest.connect(&Wish::default())?;
    let segments = connection.segments(1, 0)?;
    // The slot is full of ones, so whatever is zero in it afterwards was written.
    for (arg, status) in [(0, Status::ERROR), (1, Status::ERROR), (12, Status::ERROR), (1, Status::OKAY)] {
        let okay = status == Status::OKAY;
        let mut request = Raw { arg, ..Raw::read(u64::MAX, if okay { 0 } else { u64::MAX }, &segments) };
        request.body.resize(88, 0xFF);
        connection.queue().send(&request.entries(guest.abi))?;
        let answer = connection.queue().raw_answer(1)?;
        must!(Response::parse(&answer).status == status, "{:?} to {request}", Response::parse(&answer));
        let padding = [&answer[9..10], &answer[12..guest.abi.response_size()]].concat();
        must!(padding.iter().all(|byte| *byte == 0), "bytes of the request are left: {padding:x?}");
    }
    Ok(())
}

fn no_event_unasked<W: FrontWorld>(guest: &mut Guest<W>) -> Result<()> {
    let mut connection = guest.connect(&Wish::default())?;
    let requests = connection.reads(0..8)?;
    connection.queue().quiet()?;
    connection.queue().set_index(Field::RspEvent, 100);
    for request in &requests {
        connection.queue().send(&request.entries(guest.abi))?;
        connection.queue().polled_answer()?;
    }
    must!(!connection.queue().wait_event(silence())?, "a signal that nobody asked for");
    Ok(())
}

fn event_asked<W: FrontWorld>(guest: &mut Guest<W>) -> Result<()> {
    let mut connection = guest.connect(&Wish::default())?;
    for id in 0..8 {
        let request = &connection.reads(id..id + 1)?[0];
        connection.queue().quiet()?;
        must!(!connection.queue().ring.arm()?, "an answer to nothing");
        connection.queue().send(&request.entries(guest.abi))?;
        must!(connection.queue().wait_event(Duration::from_secs(2))?, "no signal for answer {id}");
        connection.queue().polled_answer()?;
    }
    Ok(())
}

fn event_batched<W: FrontWorld>(guest: &mut Guest<W>) -> Result<()> {
    let mut connection = guest.connect(&Wish::default())?;
    let requests = connection.reads(0..3)?;
    connection.queue().quiet()?;
    connection.queue().set_index(Field::RspEvent, 3);
    for request in &requests[..2] {
        connection.queue().send(&request.entries(guest.abi))?;
        connection.queue().polled_answer()?;
    }
    must!(!connection.queue().wait_event(silence())?, "a signal before the third answer");
    connection.queue().send(&requests[2].entries(guest.abi))?;
    must!(connection.queue().wait_event(Duration::from_secs(2))?, "no signal at the third answer");
    Ok(())
}

fn asks_when_idle<W: FrontWorld>(guest: &mut Guest<W>) -> Result<()> {
    let mut connection = guest.connect(&Wish::default())?;
    connection.queue().wait_index(Field::ReqEvent, 1)?;
    for id in 0..4 {
        let requests = connection.reads(id * 3..(id + 1) * 3)?;
        connection.batch_okay(&requests)?;
        let produced = connection.queue().index(Field::ReqProd);
        connection.queue().wait_index(Field::ReqEvent, produced + 1)?;
    }
    Ok(())
}

fn hold_off_loses_nothing<W: FrontWorld>(guest: &mut Guest<W>) -> Result<()> {
    let mut connection = guest.connect(&Wish::default())?;
    let page = connection.pages(1, 0)?;
    for round in 0..400_u64 {
        for n in 0..1 + round % 3 {
            let request = Raw::read(n, n * 8, &whole(&page));
            connection.queue().push(&request.entries(guest.abi))?;
        }
        let queue = connection.queue();
        if queue.ring.publish().is_needed() {
            queue.ring_bell()?;
        }
        for _ in 0..1 + round % 3 {
            queue.answer()?;
        }
        // Around the moment at which the backend stops polling and falls asleep.
        std::thread::sleep(Duration::from_micros(round % 80));
    }
    Ok(())
}

fn spurious_events<W: FrontWorld>(guest: &mut Guest<W>) -> Result<()> {
    let mut connection = guest.connect(&Wish::default())?;
    for _ in 0..200 {
        connection.queue().ring_bell()?;
    }
    connection.queue().silence(silence())?;
    must!(connection.queue().index(Field::RspProd) == 0, "answers to nothing");
    connection.works()?;
    connection.queue().ring_bell()?;
    connection.works()
}

fn merged_events<W: FrontWorld>(guest: &mut Guest<W>) -> Result<()> {
    let mut connection = guest.connect(&Wish::default())?;
    connection.queue().wait_index(Field::ReqEvent, 1)?;
    for request in &connection.reads(0..9)? {
        connection.queue().push(&request.entries(guest.abi))?;
        _ = connection.queue().ring.publish();
    }
    connection.queue().ring_bell()?;
    for _ in 0..9 {
        connection.queue().answer()?;
    }
    Ok(())
}

fn first_event<W: FrontWorld>(guest: &mut Guest<W>) -> Result<()> {
    guest.wait_backend(State::InitWait)?;
    let mut connection = guest.publish(&Wish::default().state(State::Initialising))?;
    for request in &connection.reads(0..9)? {
        connection.queue().push(&request.entries(guest.abi))?;
    }
    _ = connection.queue().ring.publish();
    guest.set_state(State::Initialised)?;
    for _ in 0..9 {
        connection.queue().answer()?;
    }
    Ok(())
}

fn own_indices_are_private<W: FrontWorld>(guest: &mut Guest<W>) -> Result<()> {
    let mut connection = guest.connect(&Wish::default())?;
    connection.works()?;
    let (answered, page) = (connection.queue().index(Field::RspProd), connection.pages(1, 0)?);
    for (n, lie) in [0, 7, 1000, u32::MAX].into_iter().enumerate() {
        connection.queue().set_index(Field::RspProd, lie);
        connection.queue().set_index(Field::ReqEvent, lie);
        let request = Raw::read(1, 0, &whole(&page));
        connection.queue().push(&request.entries(guest.abi))?;
        connection.queue().kick()?;
        let next = answered + 1 + u32::try_from(n)?;
        connection.queue().wait_index(Field::RspProd, next)?;
        must!(connection.queue().polled_answer()?.status == Status::OKAY, "index {lie}");
    }
    connection.works()
}

fn attaches_at_rsp_prod<W: FrontWorld>(guest: &mut Guest<W>) -> Result<()> {
    let mut connection = guest.connect(&Wish { start: 77, ..Wish::default() })?;
    connection.works()?;
    let requests = connection.reads(0..32)?;
    connection.batch_okay(&requests).map(drop)
}

fn attach_overflow_refused<W: FrontWorld>(guest: &mut Guest<W>) -> Result<()> {
    guest.wait_backend(State::InitWait)?;
    let mut connection = guest.publish(&Wish::default().state(State::Initialising))?;
    connection.queue().set_index(Field::ReqProd, 33);
    guest.set_state(State::Initialised)?;
    guest.refused_for("queue 0")
}

fn index_wraps<W: FrontWorld>(guest: &mut Guest<W>) -> Result<()> {
    let mut connection = guest.connect(&Wish { start: u32::MAX - 40, ..Wish::default() })?;
    for round in 0..3 {
        let requests = connection.reads(round * 32..(round + 1) * 32)?;
        connection.batch_okay(&requests)?;
    }
    let flush = Raw::data(Opcode::FLUSH, 1, 0, &[]);
    connection.okay(&flush)?;
    connection.works()
}
