//! Flushes, write barriers and discards (docs/PROTOCOL.md sections 2.4 and 2.5).

use anyhow::Result;
use blkif_proto::{GrantRef, Opcode, Segment, Status};
use xen_platform::{Access, FrontWorld};

use crate::{
    conformance::{
        Clause, EVERY_ABI, ONE_ABI,
        rig::{Connection, Guest, Raw, TRACES, Wish, noise, whole},
    },
    must,
};

pub(super) fn clauses<W: FrontWorld>() -> Vec<Clause<Guest<W>>> {
    vec![
        Clause {
            name: "flush.empty",
            rule: "A flush without segments is a pure flush; its sector and handle mean nothing (0.5, 0.17).",
            abis: EVERY_ABI,
            check: |guest| empty(guest, Opcode::FLUSH),
        },
        Clause {
            name: "flush.stale-segments",
            rule: "A flush without segments has none, whatever lies where they would (2.4, 8.4).",
            abis: EVERY_ABI,
            check: |guest| stale_segments(guest, Opcode::FLUSH),
        },
        Clause {
            name: "flush.with-data",
            rule: "A flush with segments also writes them (0.18).",
            abis: EVERY_ABI,
            check: |guest| with_data(guest, Opcode::FLUSH),
        },
        Clause {
            name: "flush.data-is-checked",
            rule: "The data of a flush is checked as a write's is (2.4).",
            abis: EVERY_ABI,
            check: |guest| data_is_checked(guest, Opcode::FLUSH),
        },
        Clause {
            name: "flush.among-writes",
            rule: "Flushes among many writes are answered like any request (2.5).",
            abis: ONE_ABI,
            check: among_writes,
        },
        Clause {
            name: "barrier.empty",
            rule: "A barrier without segments is a flush; its sector and handle mean nothing (0.17, 2.4).",
            abis: EVERY_ABI,
            check: |guest| empty(guest, Opcode::WRITE_BARRIER),
        },
        Clause {
            name: "barrier.stale-segments",
            rule: "A barrier without segments has none, whatever lies where they would (2.4, 8.4).",
            abis: EVERY_ABI,
            check: |guest| stale_segments(guest, Opcode::WRITE_BARRIER),
        },
        Clause {
            name: "barrier.with-data",
            rule: "A barrier with segments writes them (0.18).",
            abis: EVERY_ABI,
            check: |guest| with_data(guest, Opcode::WRITE_BARRIER),
        },
        Clause {
            name: "barrier.data-is-checked",
            rule: "The data of a barrier is checked as a write's is (2.4).",
            abis: EVERY_ABI,
            check: |guest| data_is_checked(guest, Opcode::WRITE_BARRIER),
        },
        Clause {
            name: "barrier.orders-writes",
            rule: "A barrier comes after every earlier write and before every later one (0.18).",
            abis: EVERY_ABI,
            check: orders_writes,
        },
        Clause {
            name: "barrier.orders-answers",
            rule: "A barrier is answered after all that came before it and before all that came after (0.18).",
            abis: ONE_ABI,
            check: orders_answers,
        },
        Clause {
            name: "barrier.refused-holds-nothing-up",
            rule: "A barrier that fails does not keep those after it from being served (0.18, 2.4).",
            abis: ONE_ABI,
            check: refused_holds_nothing_up,
        },
        Clause {
            name: "discard.answered",
            rule: "A discard is answered with its own number and leaves its neighbours alone (2.4, 2.5).",
            abis: EVERY_ABI,
            check: discard_answered,
        },
        Clause {
            name: "discard.unaligned",
            rule: "A discard may begin and end at any sector (0.20).",
            abis: EVERY_ABI,
            check: discard_unaligned,
        },
        Clause {
            name: "discard.range",
            rule: "A discard must lie on the disk, with no overflow of 64 bits; none and all of the disk are fine (0.20).",
            abis: EVERY_ABI,
            check: discard_range,
        },
        Clause {
            name: "discard.secure-not-offered",
            rule: "A secure discard where only plain ones are offered is not supported, and discards nothing (2.4).",
            abis: EVERY_ABI,
            check: secure_not_offered,
        },
        Clause {
            name: "discard.written-again",
            rule: "What was discarded can be written again (2.5).",
            abis: ONE_ABI,
            check: written_again,
        },
    ]
}

fn empty<W: FrontWorld>(guest: &mut Guest<W>, op: Opcode) -> Result<()> {
    let mut connection = guest.connect(&Wish::default())?;
    let capacity = guest.disk()?.sectors;
    for sector in [0, 1, capacity, capacity + 1, u64::MAX] {
        connection.okay(&Raw { arg16: 0xFFFF, ..Raw::data(op, 1, sector, &[]) })?;
    }
    Ok(())
}

fn stale_segments<W: FrontWorld>(guest: &mut Guest<W>, op: Opcode) -> Result<()> {
    let mut connection = guest.connect(&Wish::default())?;
    let before = noise(1, 4096);
    connection.write(TRACES, &before)?;
    let page = connection.pages(1, 0x55)?;
    connection.okay(&Raw { arg: 0, ..Raw::data(op, 1, TRACES, &whole(&page)) })?;
    connection.okay(&Raw { arg: 0, body: vec![0xFF; 88], ..Raw::data(op, 2, TRACES, &[]) })?;
    connection.take_back(page)?;
    must!(connection.read(TRACES, 4096)? == before, "stale segments were written");
    Ok(())
}

fn with_data<W: FrontWorld>(guest: &mut Guest<W>, op: Opcode) -> Result<()> {
    let mut connection = guest.connect(&Wish::default())?;
    for segments in [1, 2, 11] {
        let data = noise(segments as u64, segments * 4096);
        let pages = connection.lend(&data, Access::Read)?;
        connection.okay(&Raw::data(op, 1, TRACES, &whole(&pages)))?;
        connection.take_back(pages)?;
        must!(
            connection.read(TRACES, data.len())? == data,
            "{segments} segments of a {op} are not on the disk"
        );
    }
    Ok(())
}

fn data_is_checked<W: FrontWorld>(guest: &mut Guest<W>, op: Opcode) -> Result<()> {
    let mut connection = guest.connect(&Wish::default())?;
    let before = connection.read(TRACES, 4096)?;
    let page = connection.pages(1, 0x55)?;
    let segment = whole(&page)[0];
    connection.error(&Raw::data(op, 1, u64::MAX, &[segment]))?;
    connection.error(&Raw::data(op, 2, TRACES, &[Segment { last_sect: 8, ..segment }]))?;
    connection.error(&Raw::data(op, 3, TRACES, &[Segment { first_sect: 7, last_sect: 6, ..segment }]))?;
    connection.error(&Raw::data(op, 4, TRACES, &[Segment { gref: GrantRef(u32::MAX), ..segment }]))?;
    connection.error(&Raw { arg: 12, ..Raw::data(op, 5, TRACES, &[segment; 11]) })?;
    connection.take_back(page)?;
    must!(connection.read(TRACES, 4096)? == before, "a refused {op} was written");
    connection.works()
}

fn among_writes<W: FrontWorld>(guest: &mut Guest<W>) -> Result<()> {
    let mut connection = guest.connect(&Wish::default())?;
    for _ in 0..10 {
        let segments = connection.segments(1, 0x55)?;
        let request = |n| match n % 4 {
            3 => Raw::data(Opcode::FLUSH, n, u64::MAX, &[]),
            _ => Raw::write(n, TRACES + 8 * n, &segments),
        };
        connection.batch_okay(&(0..32).map(request).collect::<Vec<_>>())?;
    }
    Ok(())
}

/// One-page writes of single bytes to one place, all in one batch; the barriers are where `barrier` says.
fn stack<W: FrontWorld>(
    connection: &mut Connection<W>,
    count: u64,
    barrier: impl Fn(u64) -> bool,
) -> Result<Vec<Raw>> {
    (0..count)
        .map(|n| {
            let op = if barrier(n) { Opcode::WRITE_BARRIER } else { Opcode::WRITE };
            Ok(Raw::data(op, n, TRACES, &connection.segments(1, u8::try_from(n)?)?))
        })
        .collect()
}

fn orders_writes<W: FrontWorld>(guest: &mut Guest<W>) -> Result<()> {
    let mut connection = guest.connect(&Wish::default())?;
    // One write to one place after another, each but the first a barrier or behind one: the last must win.
    for round in 0..20 {
        let behind_writes = stack(&mut connection, 12, |n| n == 11)?;
        connection.batch_okay(&behind_writes)?;
        must!(connection.read(TRACES, 512)?[0] == 11, "round {round}: a write overtook a barrier");

        let before_a_write = stack(&mut connection, 2, |n| n == 0)?;
        connection.batch_okay(&before_a_write)?;
        must!(connection.read(TRACES, 512)?[0] == 1, "round {round}: a barrier was overtaken by a write");

        let alternating = stack(&mut connection, 30, |n| n % 2 == 1)?;
        connection.batch_okay(&alternating)?;
        must!(connection.read(TRACES, 512)?[0] == 29, "round {round}: barriers overtook each other");
    }
    Ok(())
}

fn orders_answers<W: FrontWorld>(guest: &mut Guest<W>) -> Result<()> {
    let mut connection = guest.connect(&Wish::default())?;
    for _ in 0..20 {
        let requests = stack(&mut connection, 32, |n| n == 13 || n == 20)?;
        let answers = connection.batch_okay(&requests)?;
        let place = |id| answers.iter().position(|answer| answer.id == id).unwrap_or(usize::MAX);
        must!(
            place(13) == 13 && place(20) == 20,
            "barriers 13 and 20 of 32 were answered as numbers {} and {}",
            place(13),
            place(20)
        );
    }
    Ok(())
}

fn refused_holds_nothing_up<W: FrontWorld>(guest: &mut Guest<W>) -> Result<()> {
    let mut connection = guest.connect(&Wish::default())?;
    let page = connection.pages(1, 0x55)?;
    let requests: Vec<Raw> = (0..32)
        .map(|n| match n % 3 {
            0 => Raw::write(n, TRACES, &whole(&page)),
            1 => Raw::data(Opcode::WRITE_BARRIER, n, u64::MAX, &whole(&page)),
            _ => Raw::data(Opcode::WRITE_BARRIER, n, 0, &[Segment::page(GrantRef(u32::MAX))]),
        })
        .collect();
    for answer in connection.batch(&requests)? {
        let wanted = if answer.id % 3 == 0 { Status::OKAY } else { Status::ERROR };
        must!(answer.status == wanted, "{answer:?}");
    }
    connection.take_back(page)?;
    connection.works()
}

fn discard_answered<W: FrontWorld>(guest: &mut Guest<W>) -> Result<()> {
    let mut connection = guest.connect(&Wish::default())?;
    let data = noise(1, 48 * 512);
    connection.write(TRACES, &data)?;
    connection.okay(&Raw::discard(1, TRACES + 16, 16))?;
    let after = connection.read(TRACES, data.len())?;
    must!(after[..16 * 512] == data[..16 * 512], "the sectors before a discard were changed");
    must!(after[32 * 512..] == data[32 * 512..], "the sectors after a discard were changed");
    Ok(())
}

fn discard_unaligned<W: FrontWorld>(guest: &mut Guest<W>) -> Result<()> {
    let mut connection = guest.connect(&Wish::default())?;
    let data = noise(2, 48 * 512);
    for (first, count) in [(1, 1), (7, 2), (3, 17), (15, 30)] {
        connection.write(TRACES, &data)?;
        connection.okay(&Raw::discard(1, TRACES + first as u64, count as u64))?;
        let (after, end) = (connection.read(TRACES, data.len())?, (first + count) * 512);
        let whole = after[..first * 512] == data[..first * 512] && after[end..] == data[end..];
        must!(whole, "neighbours of a discard of {count} sectors from {first} were changed");
    }
    Ok(())
}

fn discard_range<W: FrontWorld>(guest: &mut Guest<W>) -> Result<()> {
    let mut connection = guest.connect(&Wish::default())?;
    let capacity = guest.disk()?.sectors;
    let data = noise(3, 4096);
    connection.write(capacity - 8, &data)?;
    for (sector, sectors) in [
        (0, capacity + 1),
        (capacity - 8, 9),
        (capacity, 1),
        (u64::MAX, 1),
        (1, u64::MAX),
        (u64::MAX, u64::MAX),
        (capacity - 1, u64::MAX),
        (1 << 63, 1 << 63),
        (0, 1 << 55),
        (1 << 55, 8),
    ] {
        connection.error(&Raw::discard(1, sector, sectors))?;
    }
    must!(connection.read(capacity - 8, 4096)? == data, "a refused discard has discarded");
    connection.okay(&Raw::discard(2, 0, 0))?;
    connection.okay(&Raw::discard(3, capacity - 1, 0))?;
    must!(connection.read(capacity - 8, 4096)? == data, "a discard of nothing has discarded");
    connection.okay(&Raw::discard(4, capacity - 1, 1))?;
    connection.okay(&Raw::discard(5, 0, capacity))
}

fn secure_not_offered<W: FrontWorld>(guest: &mut Guest<W>) -> Result<()> {
    let mut connection = guest.connect(&Wish::default())?;
    let offered = guest.offers()?.operations.discard;
    must!(offered.is_some_and(|discard| !discard.secure), "offered: {offered:?}");
    let data = noise(4, 4096);
    connection.write(TRACES, &data)?;
    connection.unsupported(&Raw { arg: 1, ..Raw::discard(1, TRACES, 8) })?;
    must!(connection.read(TRACES, 4096)? == data, "a refused discard has discarded");
    Ok(())
}

fn written_again<W: FrontWorld>(guest: &mut Guest<W>) -> Result<()> {
    let mut connection = guest.connect(&Wish::default())?;
    let capacity = guest.disk()?.sectors;
    for round in 0..5 {
        connection.okay(&Raw::discard(1, 0, capacity))?;
        let data = noise(round, 30 * 4096);
        connection.write(TRACES, &data)?;
        must!(connection.read(TRACES, data.len())? == data, "round {round}");
    }
    Ok(())
}
