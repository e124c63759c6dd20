//! Guests that change their memory while the backend looks at it (docs/PROTOCOL.md sections 1.5 and 8.2).

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use blkif_proto::{Abi, GrantRef, Opcode, Response, Segment, Status};
use ringbuf::{Field, Index, Mapped, RingMem as _};
use xen_platform::{Access, EventChannels as _, FrontWorld, Lender as _, Pages};

use crate::{
    conformance::{
        Clause, EVERY_ABI, ONE_ABI,
        rig::{Connection, Guest, Raw, TRACES, Wish, descriptors, noise, whole},
    },
    must,
    world::wait_until,
};

pub(super) fn clauses<W: FrontWorld>() -> Vec<Clause<Guest<W>>> {
    vec![
        Clause {
            name: "hostile.slot-changes-while-read",
            rule: "A request is copied once and then checked: its slot may change meanwhile (0.14, XSA-155).",
            abis: EVERY_ABI,
            check: slot_changes,
        },
        Clause {
            name: "hostile.descriptors-change-while-read",
            rule: "A descriptor page is copied once and then checked: it may change meanwhile (0.14, XSA-155).",
            abis: EVERY_ABI,
            check: descriptors_change,
        },
        Clause {
            name: "hostile.data-changes-while-written",
            rule: "Data that changes while it is written is the guest's own loss (6.2).",
            abis: ONE_ABI,
            check: data_changes,
        },
        Clause {
            name: "hostile.grants-end-under-way",
            rule: "Grants that end while a request is under way are an error for that request at worst (XSA-361, XSA-396).",
            abis: ONE_ABI,
            check: grants_end,
        },
        Clause {
            name: "hostile.whole-ring-changes",
            rule: "A ring whose every byte changes all the time costs the guest its connection at worst (0.14, 1.5).",
            abis: EVERY_ABI,
            check: whole_ring_changes,
        },
    ]
}

/// Runs `disturb` in a thread, again and again, while `act` runs.
fn while_disturbed(disturb: impl Fn(u64) + Sync, act: impl FnOnce() -> Result<()>) -> Result<()> {
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            for n in 0.. {
                if over.load(Ordering::Relaxed) {
                    break;
                }
                disturb(n);
            }
        });
        let result = act();
        over.store(true, Ordering::Relaxed);
        result
    })
}

/// Publishes one request that changes between `one` and `other` while the backend reads it. Its answer.
pub(super) fn flicker<W: FrontWorld>(
    connection: &mut Connection<W>,
    abi: Abi,
    one: &Raw,
    other: &Raw,
) -> Result<Response> {
    let (one, other) = (one.entries(abi)[0], other.entries(abi)[0]);
    let size = abi.entry_size();
    let queue = connection.queue();
    let next = queue.index(Field::ReqProd);
    let answered = queue.index(Field::RspProd);
    queue.push(&[one])?;
    let (mem, events, port) = (queue.ring.mem(), &mut queue.events, queue.port);
    let change = |n: u64| {
        let entry = if n.is_multiple_of(2) { &other } else { &one };
        mem.write_slot(Index::new(next), &entry[..size]);
        // The last change must not be lost on the answer, which lies in the same slot.
        thread::yield_now();
    };
    let deadline = Duration::from_secs(5);
    while_disturbed(change, || {
        mem.store(Field::ReqProd, Index::new(next.wrapping_add(1)));
        events.notify(port)?;
        wait_until("an answer", deadline, || Ok((mem.load(Field::RspProd).get() != answered).then_some(())))
    })?;
    // The ring's private half catches up with what was published behind its back.
    _ = queue.ring.publish();
    // The slot holds a request again, or the answer: only the count of answers is to be trusted.
    let mut slot = [0; _];
    ensure!(queue.ring.peek(&mut slot)?, "no answer");
    queue.ring.consume(1)?;
    Ok(Response::parse(&slot))
}

fn slot_changes<W: FrontWorld>(guest: &mut Guest<W>) -> Result<()> {
    let mut connection = guest.connect(&Wish::default())?;
    let pages = connection.pages(11, 0)?;
    let good = Raw::read(1, TRACES, &whole(&pages));
    let mut reversed = whole(&pages);
    let mut beyond = whole(&pages);
    let mut foreign = whole(&pages);
    for segment in 0..11 {
        (reversed[segment].first_sect, reversed[segment].last_sect) = (200, 100);
        beyond[segment].last_sect = 255;
        foreign[segment].gref = GrantRef(0xFFFF_FFF0);
    }
    let evil = [
        Raw { arg: 255, ..good.clone() },
        Raw { op: Opcode::INDIRECT, arg: 0, arg16: 0xFFFF, ..good.clone() },
        Raw { op: Opcode::DISCARD, ..good.clone() },
        Raw { op: Opcode(99), ..good.clone() },
        Raw { sector: u64::MAX - 3, ..good.clone() },
        Raw::read(1, TRACES, &reversed),
        Raw::read(1, TRACES, &beyond),
        Raw::read(1, TRACES, &foreign),
    ];
    for other in &evil {
        for _ in 0..8 {
            flicker(&mut connection, guest.abi, &good, other)
                .with_context(|| format!("a read that turns into {other}"))?;
        }
    }
    connection.take_back(pages)?;
    connection.works()
}

fn descriptors_change<W: FrontWorld>(guest: &mut Guest<W>) -> Result<()> {
    let mut connection = guest.connect(&Wish::default())?;
    let pages = connection.pages(64, 0)?;
    let good = descriptors(&whole(&pages));
    let segment = whole(&pages)[0];
    let evil = [
        Segment { gref: GrantRef(0xFFFF_FFF0), ..segment },
        Segment { last_sect: 255, ..segment },
        Segment { first_sect: 255, last_sect: 0, ..segment },
    ];
    for other in evil {
        let evil = descriptors(&[other; 64]);
        let described = connection.lend(&good, Access::ReadWrite)?;
        let raw = Raw::indirect(Opcode::READ, 1, TRACES, 64, described.grants());
        let shared = described.mem();
        let change = |n: u64| _ = shared.write(if n.is_multiple_of(2) { &evil } else { &good });
        while_disturbed(change, || {
            for _ in 0..40 {
                let status = connection.ask(&raw)?;
                must!(matches!(status, Status::OKAY | Status::ERROR), "{status}");
            }
            Ok(())
        })?;
        connection.take_back(described)?;
    }
    connection.take_back(pages)?;
    connection.works()
}

fn data_changes<W: FrontWorld>(guest: &mut Guest<W>) -> Result<()> {
    let mut connection = guest.connect(&Wish::default())?;
    let pages = connection.pages(11, 0)?;
    let (shared, segments) = (pages.mem(), whole(&pages));
    let change = |n: u64| _ = shared.write(&[n as u8; 11 * 4096]);
    while_disturbed(change, || {
        for id in 0..60 {
            connection.okay(&Raw::write(id, TRACES, &segments))?;
            connection.okay(&Raw::read(id, TRACES, &segments))?;
        }
        Ok(())
    })?;
    connection.take_back(pages)?;
    connection.works()
}

fn grants_end<W: FrontWorld>(guest: &mut Guest<W>) -> Result<()> {
    let mut connection = guest.connect(&Wish::default())?;
    let mut pages = connection.pages(11, 0)?;
    for round in 0..300_u32 {
        connection.lender.lend(&mut pages, Access::ReadWrite)?;
        let op = Opcode((round % 2) as u8);
        let raw = Raw::data(op, round.into(), TRACES, &whole(&pages));
        connection.queue().send(&raw.entries(guest.abi))?;
        // Earlier and later in the request's life.
        for _ in 0..round % 50 * 20 {
            std::hint::spin_loop();
        }
        // Also where a page is in use, and all stay lent in the end: some were not for a moment.
        _ = connection.lender.reclaim(&mut pages);
        let answer = connection.queue().answer()?;
        must!(matches!(answer.status, Status::OKAY | Status::ERROR), "round {round}: {answer:?}");
        connection.lender.reclaim(&mut pages).with_context(|| format!("round {round}, after its answer"))?;
    }
    connection.works()
}

/// Scribbles over a ring, indices included.
fn scribble(mem: &Mapped<Pages>, n: u64) {
    let junk = noise(n, 112);
    mem.write_slot(Index::new(n as u32), &junk);
    if n.is_multiple_of(64) {
        mem.store(Field::ReqProd, Index::new(u32::from(junk[0]) % 40));
        mem.store(Field::RspEvent, Index::new(u32::from(junk[1])));
    }
}

fn whole_ring_changes<W: FrontWorld>(guest: &mut Guest<W>) -> Result<()> {
    for wish in [Wish::default(), Wish::blocks(), Wish::persistent()] {
        let mut connection = guest.connect(&wish)?;
        let queue = connection.queue();
        let (mem, events, port) = (queue.ring.mem(), &mut queue.events, queue.port);
        while_disturbed(
            |n| scribble(mem, n),
            || {
                for _ in 0..150 {
                    events.notify(port)?;
                    thread::sleep(Duration::from_micros(200));
                }
                Ok(())
            },
        )?;
        guest.restart()?;
        connection.take_rings_back()?;
    }
    guest.connect(&Wish::default())?.works()
}
