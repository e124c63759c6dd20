//! Backends that close and come back (docs/PROTOCOL.md sections 5.3 and 5.5).

use std::time::Duration;

use anyhow::{Context as _, Result};
use blkif_proto::{Status, xenbus::State};
use ringbuf::Field;
use xen_platform::{
    BackWorld, DomId,
    wire::{Permission, Rights},
};

use super::{INDIRECT, OPERATIONS, PAGE};
use crate::{
    conformance::{
        Clause, EVERY_ABI, ONE_ABI,
        rig::backend::{Backend, Connection, Job, Range, Taken, Work, wire::op, written},
    },
    must,
};

/// For the library, which waits for another backend.
pub(super) fn library_clauses<W: BackWorld>() -> Vec<Clause<Backend<W>>> {
    vec![
        Clause {
            name: "recovery.requeued-once-in-order",
            rule: "When a backend closes and comes back, every unanswered request is sent again, once and in order (5.5).",
            abis: EVERY_ABI,
            check: requeued_once_in_order,
        },
        Clause {
            name: "recovery.answered-is-done",
            rule: "What was answered before is not sent again (5.5).",
            abis: ONE_ABI,
            check: answered_is_done,
        },
        Clause {
            name: "recovery.barrier-keeps-place",
            rule: "Barriers, flushes and discards keep their place among the writes (5.5).",
            abis: ONE_ABI,
            check: barrier_keeps_place,
        },
        Clause {
            name: "recovery.fresh-ring",
            rule: "A new connection has a fresh ring: zeroes, and indices from the start (1.3, 8.1 quirk 10).",
            abis: ONE_ABI,
            check: fresh_ring,
        },
        Clause {
            name: "recovery.features-again",
            rule: "Each connection goes by the features of its own time (0.31).",
            abis: ONE_ABI,
            check: features_again,
        },
        Clause {
            name: "recovery.old-pages-revoked",
            rule: "What was lent to the old connection is not lent any more (0.29).",
            abis: ONE_ABI,
            check: old_pages_revoked,
        },
        Clause {
            name: "recovery.submitted-meanwhile",
            rule: "Work that is submitted while the backend is away follows what it had (5.5).",
            abis: ONE_ABI,
            check: submitted_meanwhile,
        },
        Clause {
            name: "recovery.smaller-disk",
            rule: "What a disk that came back smaller cannot take fails, the rest is done (5.5).",
            abis: ONE_ABI,
            check: smaller_disk,
        },
        Clause {
            name: "recovery.fewer-queues",
            rule: "A backend that came back with fewer queues than are in use is refused, and says so (5.5).",
            abis: ONE_ABI,
            check: fewer_queues,
        },
        Clause {
            name: "recovery.several-queues",
            rule: "Every queue gets its own work back (5.5).",
            abis: ONE_ABI,
            check: several_queues,
        },
        Clause {
            name: "recovery.another-backend",
            rule: "A device that the toolstack gives to another backend (state 1, new backend) goes on there (5.5).",
            abis: ONE_ABI,
            check: another_backend,
        },
        Clause {
            name: "recovery.again-and-again",
            rule: "A backend may go and come any number of times (5.5).",
            abis: ONE_ABI,
            check: again_and_again,
        },
    ]
}

/// Closes from the backend's side until the frontend has followed, and waits for it again.
fn go_away<W: BackWorld>(backend: &mut Backend<W>, connection: Connection<W>) -> Result<()> {
    backend.set_state(State::Closing)?;
    drop(connection);
    backend.set_state(State::Closed)?;
    backend.wait_note("Lost")?;
    backend.wait_frontend(&[State::Initialising])?;
    Ok(())
}

/// Goes away and comes back with what is offered now.
fn come_back<W: BackWorld>(backend: &mut Backend<W>, connection: Connection<W>) -> Result<Connection<W>> {
    go_away(backend, connection)?;
    backend.set_state(State::InitWait)?;
    backend.accept()
}

fn sectors(taken: &[Taken]) -> Vec<u64> {
    taken.iter().map(|taken| taken.sector).collect()
}

fn requeued_once_in_order<W: BackWorld>(backend: &mut Backend<W>) -> Result<()> {
    let mut connection = backend.connect(Job::new(Work::writes(60, PAGE)).patient())?;
    let before = connection.take_all(20)?;
    let mut connection = come_back(backend, connection)?;
    let again = connection.take_all(32)?;
    must!(sectors(&again[..20]) == sectors(&before), "sent again: {:?}", sectors(&again));
    must!(sectors(&again).iter().copied().eq((0..32).map(|n| n * 8)), "sent again: {:?}", sectors(&again));
    connection.silence(Duration::from_millis(10))?;
    again.iter().try_for_each(|taken| connection.serve(taken))?;
    let rest = connection.take_all(28)?;
    rest.iter().try_for_each(|taken| connection.serve(taken))?;
    must!(sectors(&rest).iter().copied().eq((32..60).map(|n| n * 8)), "then: {:?}", sectors(&rest));
    connection.silence(Duration::from_millis(10))?;
    let stored: Vec<u8> = connection.disk.values().flatten().copied().collect();
    must!(stored == written(0, 60 * 4096), "not what was to be written");
    let outcome = backend.finish(connection)?.ok()?;
    must!(outcome.results.len() == 60, "{} works ended", outcome.results.len());
    must!(outcome.stats.requeued == 32, "{} requeued", outcome.stats.requeued);
    Ok(())
}

fn answered_is_done<W: BackWorld>(backend: &mut Backend<W>) -> Result<()> {
    let mut connection = backend.connect(Job::new(Work::writes(8, PAGE)).patient())?;
    let taken = connection.take_all(8)?;
    for n in [1, 2, 5] {
        connection.serve(&taken[n])?;
        backend.wait_note(&format!("done {n}"))?;
    }
    let mut connection = come_back(backend, connection)?;
    let again = connection.take_all(5)?;
    must!(sectors(&again) == [0, 24, 32, 48, 56], "sent again: {:?}", sectors(&again));
    again.iter().try_for_each(|taken| connection.serve(taken))?;
    backend.finish(connection)?.ok().map(drop)
}

fn barrier_keeps_place<W: BackWorld>(backend: &mut Backend<W>) -> Result<()> {
    backend.offer(OPERATIONS)?;
    let range = Range { sector: 16, bytes: PAGE, offset: 0 };
    let work = [
        Work::write(0, PAGE),
        Work::write(8, PAGE),
        Work::Barrier(Some(range)),
        Work::write(24, PAGE),
        Work::Flush,
        Work::Discard(64, 8, false),
        Work::write(32, PAGE),
    ];
    let mut connection = backend.connect(Job::new(work).patient())?;
    let kind = |taken: &Taken| (taken.op, taken.sector);
    let before: Vec<_> = connection.take_all(3)?.iter().map(kind).collect();
    let mut connection = come_back(backend, connection)?;
    // What is behind the barrier comes when that is answered.
    let mut order = Vec::new();
    for count in [3, 4] {
        let again = connection.take_all(count)?;
        order.extend(again.iter().map(kind));
        again.iter().try_for_each(|taken| connection.answer(taken, Status::OKAY))?;
    }
    let behind = [(op::WRITE, 24), (op::FLUSH, 0), (op::DISCARD, 64), (op::WRITE, 32)];
    must!(order == [&before[..], &behind].concat(), "sent {before:?}, and then {order:?}");
    backend.finish(connection)?.ok().map(drop)
}

fn fresh_ring<W: BackWorld>(backend: &mut Backend<W>) -> Result<()> {
    let mut connection = backend.connect(Job::idle().patient())?;
    for n in 0..5 {
        backend.order(Work::read(n * 8, PAGE))?;
        let taken = connection.take()?;
        connection.serve(&taken)?;
    }
    backend.wait_note("done 4")?;
    go_away(backend, connection)?;
    backend.set_state(State::InitWait)?;
    let mut connection = backend.join()?;
    let indices = [Field::ReqProd, Field::ReqEvent, Field::RspProd, Field::RspEvent];
    let values = indices.map(|field| connection.queue().index(field));
    must!(values == [0, 1, 0, 1], "req_prod, req_event, rsp_prod, rsp_event are {values:?}");
    let gref = blkif_proto::GrantRef(connection.keys["ring-ref"].parse()?);
    must!(connection.page(gref)?[16..].iter().all(|byte| *byte == 0), "the ring is not zero");
    backend.publish_disk()?;
    backend.set_state(State::Connected)?;
    backend.finish(connection)?.ok().map(drop)
}

fn features_again<W: BackWorld>(backend: &mut Backend<W>) -> Result<()> {
    backend.offer(INDIRECT)?;
    backend.offer(&[("feature-persistent", "1"), ("max-ring-page-order", "2")])?;
    let job = Job::new([Work::write(0, 40 * PAGE)]).persistent().ring_pages(4).patient();
    let mut connection = backend.connect(job)?;
    must!(connection.take()?.indirect, "40 pages, and not indirect");
    go_away(backend, connection)?;
    for key in ["feature-max-indirect-segments", "feature-persistent", "max-ring-page-order"] {
        backend.remove(key)?;
    }
    backend.set_state(State::InitWait)?;
    let mut connection = backend.accept()?;
    must!(!connection.keys.contains_key("ring-page-order"), "a ring of several pages");
    let taken = connection.take_all(4)?;
    must!(taken.iter().all(|taken| !taken.indirect && taken.segments.len() <= 11), "{taken:?}");
    connection.must_be_lent(taken[0].segments[0].gref, Some(xen_platform::Access::Read))?;
    taken.iter().try_for_each(|taken| connection.serve(taken))?;
    let stored: Vec<u8> = connection.disk.values().flatten().copied().collect();
    must!(stored == written(0, 40 * 4096), "not what was to be written");
    backend.finish(connection)?.ok().map(drop)
}

fn old_pages_revoked<W: BackWorld>(backend: &mut Backend<W>) -> Result<()> {
    backend.offer(&[("feature-persistent", "1")])?;
    let mut connection = backend.connect(Job::idle().persistent().patient())?;
    backend.order(Work::write(0, PAGE))?;
    let taken = connection.take()?;
    let old = [taken.segments[0].gref, blkif_proto::GrantRef(connection.keys["ring-ref"].parse()?)];
    connection.serve(&taken)?;
    backend.wait_note("done 0")?;
    let mut connection = come_back(backend, connection)?;
    let ring = blkif_proto::GrantRef(connection.keys["ring-ref"].parse()?);
    backend.wait_note("Reconnected")?;
    for gref in old.into_iter().filter(|gref| *gref != ring) {
        connection.must_be_lent(gref, None)?;
    }
    backend.finish(connection)?.ok().map(drop)
}

fn submitted_meanwhile<W: BackWorld>(backend: &mut Backend<W>) -> Result<()> {
    let mut connection = backend.connect(Job::idle().patient())?;
    for n in 0..3 {
        backend.order(Work::write(n * 8, PAGE))?;
    }
    connection.take_all(3)?;
    go_away(backend, connection)?;
    for n in 3..6 {
        backend.order(Work::write(n * 8, PAGE))?;
    }
    std::thread::sleep(Duration::from_millis(10));
    backend.set_state(State::InitWait)?;
    let mut connection = backend.accept()?;
    let again = connection.take_all(6)?;
    must!(sectors(&again) == [0, 8, 16, 24, 32, 40], "sent again: {:?}", sectors(&again));
    again.iter().try_for_each(|taken| connection.serve(taken))?;
    backend.finish(connection)?.ok().map(drop)
}

fn smaller_disk<W: BackWorld>(backend: &mut Backend<W>) -> Result<()> {
    let work = [Work::read(8000, PAGE), Work::read(0, PAGE)];
    let mut connection = backend.connect(Job::new(work).patient())?;
    connection.take_all(2)?;
    go_away(backend, connection)?;
    backend.disk_key("sectors", "4096");
    backend.set_state(State::InitWait)?;
    let mut connection = backend.accept()?;
    let taken = connection.take()?;
    must!(taken.sector == 0, "a read at sector {} of 4096", taken.sector);
    connection.serve(&taken)?;
    let outcome = backend.finish(connection)?;
    let told = outcome.result(0)?;
    must!(told.is_err_and(|error| error.contains("past the end")), "the first read ended with {told:?}");
    must!(outcome.result(1)?.is_ok(), "the second read failed");
    Ok(())
}

fn fewer_queues<W: BackWorld>(backend: &mut Backend<W>) -> Result<()> {
    backend.offer(&[("multi-queue-max-queues", "2")])?;
    let connection = backend.connect(Job::idle().queues(2).patient())?;
    go_away(backend, connection)?;
    backend.remove("multi-queue-max-queues")?;
    backend.set_state(State::InitWait)?;
    backend.end(None)?.fails_with("1 of 2 queues")
}

fn several_queues<W: BackWorld>(backend: &mut Backend<W>) -> Result<()> {
    backend.offer(&[("multi-queue-max-queues", "2")])?;
    let mut connection = backend.connect(Job::new(Work::writes(10, PAGE)).queues(2).patient())?;
    let on = |connection: &mut Connection<W>, queue: usize| -> Result<Vec<Taken>> {
        let mut taken = Vec::new();
        while taken.len() < 5 {
            let next = connection.take_within(queue, Duration::from_secs(2))?;
            taken.push(next.with_context(|| format!("queue {queue} lacks work"))?);
        }
        Ok(taken)
    };
    let before = [on(&mut connection, 0)?, on(&mut connection, 1)?];
    let mut connection = come_back(backend, connection)?;
    let again = [on(&mut connection, 0)?, on(&mut connection, 1)?];
    for (before, again) in before.iter().zip(&again) {
        must!(sectors(before) == sectors(again), "sent {:?}, then {:?}", sectors(before), sectors(again));
        again.iter().try_for_each(|taken| connection.serve(taken))?;
    }
    backend.finish(connection)?.ok().map(drop)
}

fn another_backend<W: BackWorld>(backend: &mut Backend<W>) -> Result<()> {
    let mut connection = backend.connect(Job::new(Work::writes(4, PAGE)).patient())?;
    connection.take_all(4)?;
    drop(connection);
    let (old, new) = (backend.vbd.backend.clone(), backend.vbd.backend.replace("/vbd/", "/vbd3/"));
    let (guest, frontend) = (backend.vbd.guest, backend.vbd.frontend.clone());
    backend.store.transact(|t| {
        t.remove(&old)?;
        t.mkdir(&new)?;
        let rights = [Permission::new(DomId::DOM0, Rights::None), Permission::new(guest, Rights::Read)];
        t.set_permissions(&new, &rights)?;
        t.write(&format!("{new}/state"), "1")?;
        t.write(&format!("{frontend}/backend"), &new)?;
        t.write(&format!("{frontend}/state"), "1")
    })?;
    backend.vbd.backend = new;
    backend.wait_note("Lost")?;
    backend.set_state(State::InitWait)?;
    let mut connection = backend.accept()?;
    let again = connection.take_all(4)?;
    must!(sectors(&again) == [0, 8, 16, 24], "sent again: {:?}", sectors(&again));
    again.iter().try_for_each(|taken| connection.serve(taken))?;
    backend.finish(connection)?.ok().map(drop)
}

fn again_and_again<W: BackWorld>(backend: &mut Backend<W>) -> Result<()> {
    let mut connection = backend.connect(Job::new(Work::writes(10, PAGE)).patient())?;
    for round in 0..5 {
        let taken = connection.take_all(10 - 2 * round)?;
        taken[..2].iter().try_for_each(|taken| connection.serve(taken))?;
        for n in 0..2 {
            backend.wait_note(&format!("done {}", 2 * round + n))?;
        }
        let lost = backend.notes()?.iter().filter(|note| *note == "Lost").count();
        must!(lost == round, "lost {lost} times in round {round}");
        if round < 4 {
            backend.set_state(State::Closing)?;
            drop(connection);
            backend.set_state(State::Closed)?;
            backend.wait_frontend(&[State::Initialising])?;
            backend.set_state(State::InitWait)?;
            connection = backend.accept()?;
        } else {
            return backend.finish(connection)?.ok().map(drop);
        }
    }
    Ok(())
}
