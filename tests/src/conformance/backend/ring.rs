//! The shared ring (docs/PROTOCOL.md sections 1 and 3.2).

use std::time::Duration;

use anyhow::Result;
use blkif_proto::{Op, Response, Status, xenbus::State};
use ringbuf::Field;
use xen_platform::Access;

use super::Peer;
use crate::{
    conformance::{
        Clause, EVERY_ABI,
        rig::{Connection, Wish},
    },
    must,
};

pub(super) const CLAUSES: &[Clause<Peer>] = &[
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
        name: "ring.padding-zero",
        rule: "Every byte of a response slot that the response does not use is zero (0.16, XSA-216).",
        abis: EVERY_ABI,
        check: padding_zero,
    },
];

fn every_slot(guest: &mut Peer) -> Result<()> {
    let mut connection = guest.connect(&Wish::default())?;
    let slots = u64::from(connection.queue().ring.layout().entries());
    let page = connection.pages(1, 0, Access::ReadWrite)?;
    let segments = Connection::<xen_platform::sim::World>::segments(&page);
    // Three times round, so that every slot was both first and last.
    for round in 0..3 {
        for slot in 0..slots {
            let entries = connection.request(round * slots + slot, Op::Read, slot * 8, &segments)?;
            connection.queue().push(&entries)?;
        }
        connection.queue().kick()?;
        let mut ids: Vec<u64> = Vec::new();
        for _ in 0..slots {
            let answer = connection.queue().answer()?;
            must!(answer.status == Status::OKAY, "{answer:?}");
            ids.push(answer.id);
        }
        ids.sort_unstable();
        must!(ids.iter().copied().eq(round * slots..(round + 1) * slots), "answered: {ids:?}");
    }
    connection.queue().silence(Duration::from_millis(50))
}

fn overflow_closes(guest: &mut Peer) -> Result<()> {
    let mut connection = guest.connect(&Wish::default())?;
    let slots = connection.queue().ring.layout().entries();
    connection.queue().set_index(Field::ReqProd, slots + 1);
    connection.queue().kick()?;
    guest.wait_backend(State::Closing)?;
    must!(connection.queue().index(Field::RspProd) == 0, "the backend answered out of a broken ring");
    Ok(())
}

fn padding_zero(guest: &mut Peer) -> Result<()> {
    let mut connection = guest.connect(&Wish::default())?;
    // A read without segments is an error, and its slot is full of ones.
    let mut entry = connection.request(7, Op::Read, 0, &[])?[0];
    entry[24..].fill(0xFF);
    connection.queue().send(&[entry])?;
    let answer = connection.queue().raw_answer(1)?;
    must!(Response::parse(&answer).status == Status::ERROR, "{:?}", Response::parse(&answer));
    must!(answer[9] == 0, "byte 9 is {}", answer[9]);
    must!(answer[12..16].iter().all(|byte| *byte == 0), "bytes 12 to 15 are {:?}", &answer[12..16]);
    Ok(())
}
