//! Backends that break the rules (docs/PROTOCOL.md sections 1.5, 2.5, 8.2 and 8.3).

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use blkif_proto::{Opcode, Response, Status, xenbus::State};
use ringbuf::Field;
use xen_platform::{Access, BackWorld};

use super::{BLOCKS, INDIRECT, PAGE};
use crate::{
    conformance::{
        Clause, EVERY_ABI, ONE_ABI,
        rig::backend::{Backend, Connection, Job, Taken, Work, on_disk},
    },
    must,
};

/// For frontends of any kind.
pub(super) fn clauses<W: BackWorld>() -> Vec<Clause<Backend<W>>> {
    vec![
        Clause {
            name: "hostile.unknown-id",
            rule: "An answer to nothing ends the connection (1.5, 8.3).",
            abis: EVERY_ABI,
            check: unknown_id,
        },
        Clause {
            name: "hostile.id-of-another-time",
            rule: "An answer to a request of the same slot that was answered before ends the connection (1.5, 8.3).",
            abis: ONE_ABI,
            check: id_of_another_time,
        },
        Clause {
            name: "hostile.answered-twice",
            rule: "A second answer to a request ends the connection (1.5).",
            abis: ONE_ABI,
            check: answered_twice,
        },
        Clause {
            name: "hostile.unknown-id-among-blocks",
            rule: "Without its id an answer's length is unknown: the rest of the ring is not looked at (3.2).",
            abis: ONE_ABI,
            check: unknown_id_among_blocks,
        },
        Clause {
            name: "hostile.wrong-operation",
            rule: "An answer that names another operation ends the connection, 6 to a direct request too (1.5).",
            abis: EVERY_ABI,
            check: wrong_operation,
        },
        Clause {
            name: "hostile.wrong-operation-of-indirect",
            rule: "An answer to an indirect request names the inner operation or 6, nothing else (1.5, 8.1 quirk 2).",
            abis: ONE_ABI,
            check: wrong_operation_of_indirect,
        },
        Clause {
            name: "hostile.rsp-prod-jumps",
            rule: "More responses than slots are a broken ring (0.15, 1.5).",
            abis: EVERY_ABI,
            check: rsp_prod_jumps,
        },
        Clause {
            name: "hostile.rsp-prod-ahead",
            rule: "More responses than requests are none of ours (1.5).",
            abis: ONE_ABI,
            check: rsp_prod_ahead,
        },
        Clause {
            name: "hostile.rsp-prod-goes-back",
            rule: "A producer index that goes back is a broken ring (1.5).",
            abis: ONE_ABI,
            check: rsp_prod_goes_back,
        },
        Clause {
            name: "hostile.scribbled-ring",
            rule: "A frontend remembers its requests itself: what the backend writes over the ring changes nothing (1.5).",
            abis: EVERY_ABI,
            check: scribbled_ring,
        },
        Clause {
            name: "hostile.event-storm",
            rule: "Events without end keep nobody from working, nor from stopping (1.5, XSA-391).",
            abis: ONE_ABI,
            check: event_storm,
        },
        Clause {
            name: "hostile.still-mapped",
            rule: "A page that is still mapped when its request is answered is not used again, and ends the connection (0.22, XSA-396).",
            abis: ONE_ABI,
            check: still_mapped,
        },
    ]
}

/// For the library, which tells how each piece of work has ended.
pub(super) fn library_clauses<W: BackWorld>() -> Vec<Clause<Backend<W>>> {
    vec![
        Clause {
            name: "hostile.all-work-ends",
            rule: "When the connection ends, all work under way ends with that error (1.5).",
            abis: ONE_ABI,
            check: all_work_ends,
        },
        Clause {
            name: "hostile.counts",
            rule: "Events for nothing and pages that stay mapped are counted (1.5, 8.2).",
            abis: ONE_ABI,
            check: counts,
        },
        Clause {
            name: "hostile.tells-why",
            rule: "While it closes a broken connection, the frontend's error node says why (5.5).",
            abis: ONE_ABI,
            check: tells_why,
        },
    ]
}

/// Connects with three reads under way, and takes them.
fn three_reads<W: BackWorld>(backend: &mut Backend<W>) -> Result<(Connection<W>, Vec<Taken>)> {
    let mut connection = backend.connect(Job::new(Work::reads(3, PAGE)))?;
    let taken = connection.take_all(3)?;
    Ok((connection, taken))
}

/// Errors unless the frontend gives up with these words, and closes in order.
fn gives_up<W: BackWorld>(backend: &mut Backend<W>, connection: Connection<W>, words: &str) -> Result<()> {
    backend.end(connection)?.fails_with(words)?;
    let state = backend.frontend_state()?;
    must!(state == State::Initialising, "it is {state} then");
    Ok(())
}

const FOREIGN: &str = "no outstanding request";
const CORRUPT: &str = "ring index is corrupt";

fn unknown_id<W: BackWorld>(backend: &mut Backend<W>) -> Result<()> {
    for id in [0, 31, 32, u64::MAX, 1 << 32] {
        let (mut connection, taken) = three_reads(backend)?;
        let id = if taken.iter().any(|taken| taken.id == id) { id ^ (1 << 63) } else { id };
        connection.reply(&taken[0], Response { id, ..taken[0].answer(Status::OKAY) })?;
        gives_up(backend, connection, FOREIGN).with_context(|| format!("id {id:#x}"))?;
    }
    // All 64 bits count.
    for bit in [15, 16, 32, 63] {
        let (mut connection, taken) = three_reads(backend)?;
        let id = taken[0].id ^ (1 << bit);
        connection.reply(&taken[0], Response { id, ..taken[0].answer(Status::OKAY) })?;
        gives_up(backend, connection, FOREIGN).with_context(|| format!("id with bit {bit} changed"))?;
    }
    Ok(())
}

fn id_of_another_time<W: BackWorld>(backend: &mut Backend<W>) -> Result<()> {
    let mut connection = backend.connect(Job::new(Work::reads(3, PAGE)).depth(1))?;
    let first = connection.take()?;
    connection.serve(&first)?;
    let second = connection.take()?;
    connection.reply(&second, first.answer(Status::OKAY))?;
    gives_up(backend, connection, FOREIGN)
}

fn answered_twice<W: BackWorld>(backend: &mut Backend<W>) -> Result<()> {
    let (mut connection, taken) = three_reads(backend)?;
    connection.respond(&taken[0], taken[0].answer(Status::OKAY))?;
    connection.reply(&taken[1], taken[0].answer(Status::OKAY))?;
    gives_up(backend, connection, FOREIGN)
}

fn unknown_id_among_blocks<W: BackWorld>(backend: &mut Backend<W>) -> Result<()> {
    backend.offer(BLOCKS)?;
    let mut connection = backend.connect(Job::new(Work::reads(3, 20 * PAGE)))?;
    let taken = connection.take_all(3)?;
    connection.respond(&taken[0], Response { id: 77 << 40, ..taken[0].answer(Status::OKAY) })?;
    connection.reply(&taken[1], taken[1].answer(Status::OKAY))?;
    gives_up(backend, connection, FOREIGN)
}

fn wrong_operation<W: BackWorld>(backend: &mut Backend<W>) -> Result<()> {
    for op in [1, 3, 6, 255] {
        let (mut connection, taken) = three_reads(backend)?;
        connection.reply(&taken[0], Response { op: Opcode(op), ..taken[0].answer(Status::OKAY) })?;
        gives_up(backend, connection, "names operation").with_context(|| format!("operation {op}"))?;
    }
    Ok(())
}

fn wrong_operation_of_indirect<W: BackWorld>(backend: &mut Backend<W>) -> Result<()> {
    backend.offer(INDIRECT)?;
    let mut connection = backend.connect(Job::new(Work::reads(1, 16 * PAGE)))?;
    let taken = connection.take()?;
    must!(taken.indirect, "16 segments, and not indirect");
    connection.reply(&taken, Response { op: Opcode::WRITE, ..taken.answer(Status::OKAY) })?;
    gives_up(backend, connection, "names operation")
}

fn rsp_prod_jumps<W: BackWorld>(backend: &mut Backend<W>) -> Result<()> {
    for jump in [33, 1 << 31, u32::MAX] {
        let (mut connection, _) = three_reads(backend)?;
        connection.queue().set_index(Field::RspProd, jump);
        connection.queue().ring_bell()?;
        gives_up(backend, connection, CORRUPT).with_context(|| format!("rsp_prod = {jump}"))?;
    }
    Ok(())
}

fn rsp_prod_ahead<W: BackWorld>(backend: &mut Backend<W>) -> Result<()> {
    let (mut connection, taken) = three_reads(backend)?;
    for taken in &taken {
        connection.respond(taken, taken.answer(Status::OKAY))?;
    }
    connection.queue().set_index(Field::RspProd, 4);
    connection.queue().ring_bell()?;
    // Whichever check it is that finds it.
    let outcome = backend.end(connection)?;
    must!(outcome.error.is_some(), "4 responses to 3 requests were taken");
    Ok(())
}

fn rsp_prod_goes_back<W: BackWorld>(backend: &mut Backend<W>) -> Result<()> {
    let mut connection = backend.connect(Job::new(Work::reads(4, PAGE)).depth(1))?;
    for _ in 0..3 {
        let taken = connection.take()?;
        connection.serve(&taken)?;
    }
    connection.take()?;
    connection.queue().set_index(Field::RspProd, 1);
    connection.queue().ring_bell()?;
    gives_up(backend, connection, CORRUPT)
}

fn scribbled_ring<W: BackWorld>(backend: &mut Backend<W>) -> Result<()> {
    let mut connection = backend.connect(Job::new(Work::reads(64, PAGE)).depth(8))?;
    for round in 0..8 {
        let taken = connection.take_all(8)?;
        for slot in 0..32 {
            connection.queue().scribble(slot, &[0xA5 ^ round; 108]);
        }
        connection.queue().set_index(Field::RspEvent, 0xDEAD_BEEF);
        if round < 7 {
            connection.queue().set_index(Field::ReqProd, 0xDEAD_BEEF);
        }
        for taken in &taken {
            connection.perform(taken)?;
            connection.respond(taken, taken.answer(Status::OKAY))?;
        }
        connection.queue().publish()?;
        // It knows its own producer index by heart.
        if round < 7 {
            connection.queue().wait_index(Field::ReqProd, (u32::from(round) + 2) * 8)?;
        }
    }
    let outcome = backend.finish(connection)?.ok()?;
    must!(outcome.has_read(&on_disk(0, 64 * 4096)), "not what is on the disk");
    Ok(())
}

fn event_storm<W: BackWorld>(backend: &mut Backend<W>) -> Result<()> {
    let mut connection = backend.connect(Job::new(Work::reads(50, PAGE)).depth(1))?;
    let since = Instant::now();
    for _ in 0..50 {
        while connection.queue().ring.available()? == 0 {
            connection.queue().ring_bell()?;
            must!(since.elapsed() < Duration::from_secs(20), "no progress under events");
        }
        let taken = connection.take()?;
        for _ in 0..200 {
            connection.queue().ring_bell()?;
        }
        connection.serve(&taken)?;
    }
    backend.finish(connection)?.ok().map(drop)
}

fn still_mapped<W: BackWorld>(backend: &mut Backend<W>) -> Result<()> {
    for access in [Access::Read, Access::ReadWrite] {
        let mut connection = backend.connect(Job::new(Work::reads(2, 2 * PAGE)).depth(1))?;
        let taken = connection.take()?;
        let kept = connection.map(taken.segments[1].gref, access)?;
        connection.serve(&taken)?;
        gives_up(backend, connection, "still mapped").with_context(|| format!("mapped for {access:?}"))?;
        drop(kept);
    }
    Ok(())
}

fn all_work_ends<W: BackWorld>(backend: &mut Backend<W>) -> Result<()> {
    let mut connection = backend.connect(Job::new(Work::reads(40, PAGE)))?;
    let taken = connection.take_all(20)?;
    connection.serve(&taken[0])?;
    connection.reply(&taken[1], Response { id: 99 << 50, ..taken[1].answer(Status::OKAY) })?;
    let outcome = backend.end(connection)?;
    outcome.fails_with(FOREIGN)?;
    // The ring has 32 slots, and so many works are accepted at once; one more went in when the first was done.
    let ended: Vec<_> = outcome.results.iter().collect();
    must!((32..=33).contains(&ended.len()), "{} works ended", ended.len());
    must!(outcome.result(0)?.is_ok(), "the one that was answered failed");
    let all = (1..32).all(|n| matches!(outcome.result(n), Ok(Err(error)) if error.contains(FOREIGN)));
    must!(all, "not all ended with that error: {ended:?}");
    Ok(())
}

fn counts<W: BackWorld>(backend: &mut Backend<W>) -> Result<()> {
    let mut connection = backend.connect(Job::new(Work::reads(1, 2 * PAGE)))?;
    let taken = connection.take()?;
    connection.queue().ring_bell()?;
    std::thread::sleep(Duration::from_millis(20));
    connection.queue().ring_bell()?;
    std::thread::sleep(Duration::from_millis(20));
    let kept = connection.map(taken.segments[0].gref, Access::Read)?;
    connection.serve(&taken)?;
    let outcome = backend.end(connection)?;
    must!(outcome.stats.spurious >= 2, "{} spurious events", outcome.stats.spurious);
    must!(outcome.stats.quarantined >= 1, "{} pages in quarantine", outcome.stats.quarantined);
    drop(kept);
    Ok(())
}

fn tells_why<W: BackWorld>(backend: &mut Backend<W>) -> Result<()> {
    let (mut connection, taken) = three_reads(backend)?;
    connection.reply(&taken[0], Response { id: 5 << 55, ..taken[0].answer(Status::OKAY) })?;
    backend.wait_frontend(&[State::Closing])?;
    let told = backend.frontend_key("error")?.context("no error node")?;
    must!(told.contains(FOREIGN), "error = {told:?}");
    gives_up(backend, connection, FOREIGN)
}
