//! Guests that do what no honest guest does, seen from their own device (docs/PROTOCOL.md sections 1.5 and 8.2).

use std::thread;

use anyhow::{Context as _, Result};
use blkif_proto::{GrantRef, Opcode, Segment, Status, xenbus::State};
use ringbuf::Field;
use xen_platform::{Access, EventChannels as _, FrontWorld, Lender as _};

use crate::{
    conformance::{
        Clause, EVERY_ABI, ONE_ABI,
        rig::{Guest, Raw, TRACES, Wish, bytes, noise, silence, whole},
    },
    must,
};

pub(super) fn clauses<W: FrontWorld>() -> Vec<Clause<Guest<W>>> {
    vec![
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

fn references_to_nothing<W: FrontWorld>(guest: &mut Guest<W>) -> Result<()> {
    let mut connection = guest.connect(&Wish::default())?;
    let mut page = connection.pages(1, 0)?;
    let ended = page.grants()[0];
    connection.lender.reclaim(&mut page)?;
    connection.lender.release(page);
    // Low ones are those of a real guest's console and XenStore.
    for gref in [ended.0, 60_000, 0x7FFF_FFFF, 0x8000_0000, u32::MAX] {
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
        thread::sleep(silence() / 2);
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
            must!(answer.op == asked.answer_op(), "{} for an answer to {asked}", answer.op);
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
        thread::sleep(silence() / 10);
        let state = guest.backend_state()?;
        must!(matches!(state, State::Connected | State::Closing), "the backend is {state}");
        guest.restart().with_context(|| format!("seed {seed}"))?;
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
    thread::sleep(silence() / 2);
    for request in connection.reads(0..128)? {
        connection.queue().push(&request.entries(guest.abi))?;
    }
    connection.queue().kick()?;
    thread::sleep(silence() / 2);
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
    thread::sleep(silence() / 4);
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
