//! Guests that do what no honest guest does, seen from their own device (docs/PROTOCOL.md sections 1.5 and 8.2).

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use blkif_proto::{Abi, GrantRef, Opcode, Response, Segment, Status, xenbus::State};
use ringbuf::{Field, Index, Mapped, RingMem as _};
use xen_platform::{Access, EventChannels as _, FrontWorld, Lender as _, Pages};

use crate::{
    conformance::{
        Clause, EVERY_ABI, ONE_ABI,
        rig::{Connection, Guest, Raw, TRACES, Wish, bytes, descriptors, noise, whole},
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
            name: "hostile.references-to-nothing",
            rule: "A reference that was never granted, or is not any more, is an error for its request (2.4, XSA-362).",
            abis: EVERY_ABI,
            check: references_to_nothing,
        },
        Clause {
            name: "hostile.read-into-a-read-only-page",
            rule: "A read into a page granted read-only is an error and writes nothing there (2.4).",
            abis: EVERY_ABI,
            check: read_into_read_only,
        },
        Clause {
            name: "hostile.ring-page-as-data",
            rule: "A ring's own page named as data costs the guest its connection at worst (1.5).",
            abis: ONE_ABI,
            check: ring_page_as_data,
        },
        Clause {
            name: "hostile.random-requests",
            rule: "Whatever the bytes of a request are, it is answered once, in its form (0.19, 1.5, 2.4).",
            abis: EVERY_ABI,
            check: random_requests,
        },
        Clause {
            name: "hostile.random-blocks",
            rule: "The same where requests go on in further entries (3.4).",
            abis: EVERY_ABI,
            check: random_blocks,
        },
        Clause {
            name: "hostile.random-descriptors",
            rule: "Whatever a descriptor page holds, its request is answered once (2.4).",
            abis: EVERY_ABI,
            check: random_descriptors,
        },
        Clause {
            name: "hostile.random-indices",
            rule: "Whatever the indices are, the guest loses its connection at worst, and may connect anew (0.15, 1.5).",
            abis: ONE_ABI,
            check: random_indices,
        },
        Clause {
            name: "hostile.whole-ring-changes",
            rule: "A ring whose every byte changes all the time costs the guest its connection at worst (0.14, 1.5).",
            abis: EVERY_ABI,
            check: whole_ring_changes,
        },
        Clause {
            name: "hostile.ring-of-one-page-twice",
            rule: "A ring whose pages are one and the same costs the guest its connection at worst (1.2).",
            abis: ONE_ABI,
            check: one_page_twice,
        },
        Clause {
            name: "hostile.port-closes",
            rule: "A guest that closes its port has lost its signals, not its backend (1.4, XSA-331).",
            abis: ONE_ABI,
            check: port_closes,
        },
        Clause {
            name: "hostile.storm-of-events",
            rule: "A storm of events slows down nothing but itself (1.5, XSA-332).",
            abis: ONE_ABI,
            check: storm_of_events,
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
            flicker(&mut connection, guest.abi, &good, other).with_context(|| format!("{other:x?}"))?;
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
        let ended = connection.lender.reclaim(&mut pages).is_ok();
        let answer = connection.queue().answer()?;
        let fine = answer.status == Status::OKAY || ended && answer.status == Status::ERROR;
        must!(fine, "round {round}, ended {ended}: {answer:?}");
        connection.lender.reclaim(&mut pages).with_context(|| format!("round {round}, after its answer"))?;
    }
    connection.works()
}

fn references_to_nothing<W: FrontWorld>(guest: &mut Guest<W>) -> Result<()> {
    let mut connection = guest.connect(&Wish::default())?;
    let mut page = connection.pages(1, 0)?;
    let ended = page.grants()[0];
    connection.lender.reclaim(&mut page)?;
    for gref in [0, 1, 7, 8, ended.0, 0x7FFF_FFFF, 0x8000_0000, u32::MAX] {
        connection.error(&Raw::read(1, TRACES, &[Segment::page(GrantRef(gref))]))?;
        connection.error(&Raw::write(2, TRACES, &[Segment::page(GrantRef(gref)); 11]))?;
        connection.error(&Raw::indirect(Opcode::READ, 3, TRACES, 1, &[GrantRef(gref)]))?;
    }
    connection.works()
}

fn read_into_read_only<W: FrontWorld>(guest: &mut Guest<W>) -> Result<()> {
    let mut connection = guest.connect(&Wish::default())?;
    connection.write(TRACES, &noise(1, 8 * 4096))?;
    let untouched = vec![0x5A; 4096];
    let read_only = connection.lend(&untouched, Access::Read)?;
    let writable = connection.pages(7, 0)?;
    let mut segments = whole(&writable);
    segments.insert(4, whole(&read_only)[0]);
    connection.error(&Raw::read(1, TRACES, &segments[4..5]))?;
    connection.error(&Raw::read(2, TRACES, &segments))?;
    must!(connection.indirect(Opcode::READ, TRACES, &segments)? == Status::ERROR, "indirect");
    must!(bytes(&read_only) == untouched, "a page granted read-only was written");
    connection.okay(&Raw::write(3, TRACES, &segments))?;
    connection.take_back(read_only)?;
    connection.take_back(writable)
}

fn ring_page_as_data<W: FrontWorld>(guest: &mut Guest<W>) -> Result<()> {
    for op in [Opcode::WRITE, Opcode::READ] {
        let mut connection = guest.connect(&Wish::default())?;
        connection.write(TRACES, &noise(1, 4096))?;
        let path = format!("{}/ring-ref", guest.vbd.frontend);
        let gref = GrantRef(guest.read(&path)?.context("ring-ref")?.parse()?);
        let raw = Raw::data(op, 1, TRACES, &[Segment::page(gref)]);
        connection.queue().send(&raw.entries(guest.abi))?;
        thread::sleep(Duration::from_millis(20));
        guest.restart()?;
        connection.take_rings_back()?;
    }
    guest.connect(&Wish::default())?.works()
}

/// A request of random bytes, but for its id and, most of the time, a known operation.
fn random(seed: u64, id: u64, grants: &[GrantRef]) -> Raw {
    let junk = noise(seed, 128);
    let op = if junk[0] < 224 { junk[0] % 7 } else { junk[0] };
    let mut body = junk[40..128].to_vec();
    // References that mean something get further in.
    for (n, slot) in body.chunks_mut(8).enumerate().filter(|(n, _)| junk[20 + n] < 200) {
        slot[..4].copy_from_slice(&grants[n % grants.len()].0.to_le_bytes());
        slot[4] %= 9;
        slot[5] %= 9;
    }
    let sector = u64::from_le_bytes([junk[8], junk[9] % 200, 0, 0, 0, 0, 0, junk[10] / 250]);
    let arg = if junk[1] < 200 { junk[1] % 13 } else { junk[1] };
    Raw { op: Opcode(op), arg, arg16: u16::from_le_bytes([junk[2], junk[3] % 4]), id, sector, body }
}

fn random_requests<W: FrontWorld>(guest: &mut Guest<W>) -> Result<()> {
    let mut connection = guest.connect(&Wish::default())?;
    let pages = connection.pages(16, 0)?;
    for round in 0..40 {
        let requests: Vec<Raw> =
            (0..32).map(|n| random(round * 32 + n, round * 32 + n, pages.grants())).collect();
        let answers = connection.batch(&requests).with_context(|| format!("round {round}"))?;
        for answer in answers {
            let asked = &requests[(answer.id % 32) as usize];
            must!(answer.op == asked.answer_op(), "{answer:?} to {asked:x?}");
            must!((-2..=0).contains(&answer.status.0), "{answer:?}");
        }
    }
    connection.take_back(pages)?;
    connection.works()
}

fn random_blocks<W: FrontWorld>(guest: &mut Guest<W>) -> Result<()> {
    let mut connection = guest.connect(&Wish::blocks())?;
    let pages = connection.pages(16, 0)?;
    for seed in 0..600 {
        let mut raw = random(seed, seed, pages.grants());
        // As many entries as it says, of random bytes too.
        let rest = raw.stride() as usize - 1;
        raw.body.extend(noise(seed + 10_000, rest * 112));
        let status = connection.ask(&raw).with_context(|| format!("request {seed}"))?;
        must!((-2..=0).contains(&status.0), "{status} to {raw:x?}");
    }
    connection.take_back(pages)?;
    connection.works()
}

fn random_descriptors<W: FrontWorld>(guest: &mut Guest<W>) -> Result<()> {
    let mut connection = guest.connect(&Wish::default())?;
    let pages = connection.pages(16, 0)?;
    for seed in 0..150 {
        let mut junk = noise(seed, 2 * 4096);
        for (n, slot) in junk.chunks_mut(8).enumerate().filter(|(n, _)| seed % 3 != 0 || n % 100 != 7) {
            slot[..4].copy_from_slice(&pages.grants()[n % 16].0.to_le_bytes());
            slot[4] %= 4;
            slot[5] = 4 + slot[5] % if n % 50 == 3 { 5 } else { 4 };
        }
        let described = connection.lend(&junk, Access::ReadWrite)?;
        let raw = Raw::indirect(Opcode((seed % 2) as u8), seed, TRACES, 700, described.grants());
        let status = connection.ask(&raw)?;
        must!((-1..=0).contains(&status.0), "{status} to {raw:x?}");
        connection.take_back(described)?;
    }
    connection.take_back(pages)?;
    connection.works()
}

fn random_indices<W: FrontWorld>(guest: &mut Guest<W>) -> Result<()> {
    let fields = [Field::ReqProd, Field::ReqEvent, Field::RspProd, Field::RspEvent];
    for seed in 0..24 {
        let mut connection = guest.connect(&Wish::default())?;
        connection.works()?;
        let junk = noise(seed, 64);
        for (n, word) in junk.chunks(4).enumerate() {
            let mut value = u32::from_le_bytes([word[0], word[1], word[2], word[3]]);
            if seed % 2 == 0 {
                value %= 100;
            }
            connection.queue().set_index(fields[n % 4], value);
            connection.queue().ring_bell()?;
        }
        thread::sleep(Duration::from_millis(3));
        let state = guest.backend_state()?;
        must!(matches!(state, State::Connected | State::Closing), "the backend is {state}");
        guest.restart().with_context(|| format!("seed {seed}"))?;
        connection.take_rings_back()?;
    }
    guest.connect(&Wish::default())?.works()
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

fn one_page_twice<W: FrontWorld>(guest: &mut Guest<W>) -> Result<()> {
    guest.wait_backend(State::InitWait)?;
    let wish = Wish::default().pages(4, blkif_proto::keys::RingDialect::Order).state(State::Initialising);
    let mut connection = guest.publish(&wish)?;
    let path = format!("{}/ring-ref0", guest.vbd.frontend);
    let first = guest.read(&path)?.context("ring-ref0")?;
    guest.change(&[("ring-ref1", Some(&first)), ("ring-ref3", Some(&first)), ("state", Some("3"))])?;
    thread::sleep(Duration::from_millis(20));
    for request in connection.reads(0..128)? {
        connection.queue().push(&request.entries(guest.abi))?;
    }
    connection.queue().kick()?;
    thread::sleep(Duration::from_millis(20));
    guest.restart()?;
    connection.take_rings_back()?;
    guest.connect(&Wish::default())?.works()
}

fn port_closes<W: FrontWorld>(guest: &mut Guest<W>) -> Result<()> {
    let mut connection = guest.connect(&Wish::default())?;
    connection.works()?;
    let requests = connection.reads(0..32)?;
    for request in &requests {
        connection.queue().push(&request.entries(guest.abi))?;
    }
    connection.queue().kick()?;
    let queue = connection.queue();
    queue.events.unbind(queue.port)?;
    thread::sleep(Duration::from_millis(10));
    guest.restart()?;
    connection.take_rings_back()?;
    guest.connect(&Wish::default())?.works()
}

fn storm_of_events<W: FrontWorld>(guest: &mut Guest<W>) -> Result<()> {
    let mut connection = guest.connect(&Wish::default())?;
    let pages = connection.pages(1, 0)?;
    for _ in 0..20_000 {
        connection.queue().ring_bell()?;
    }
    // Requests among them are served as ever.
    for id in 0..200 {
        let raw = Raw::read(id, 0, &whole(&pages));
        connection.queue().push(&raw.entries(guest.abi))?;
        _ = connection.queue().ring.publish();
        for _ in 0..20 {
            connection.queue().ring_bell()?;
        }
        connection.queue().answer()?;
    }
    connection.take_back(pages)?;
    connection.works()
}
