//! The shared ring (docs/PROTOCOL.md section 1).

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use blkfront::SegmentChoice;
use blkif_proto::{Status, xenbus::State};
use ringbuf::Field;
use xen_platform::BackWorld;

use super::PAGE;
use crate::{
    conformance::{
        Clause, EVERY_ABI, ONE_ABI,
        rig::backend::{Backend, Job, Work, on_disk},
    },
    must,
};

/// For frontends of any kind.
pub(super) fn clauses<W: BackWorld>() -> Vec<Clause<Backend<W>>> {
    vec![
        Clause {
            name: "ring.initial-values",
            rule: "A fresh ring is zero but for both event indices, which are 1 (1.3).",
            abis: EVERY_ABI,
            check: initial_values,
        },
        Clause {
            name: "ring.every-slot",
            rule: "A frontend has as many requests under way as the ring has slots, never more, each with an id of its own (1.2, 1.4).",
            abis: EVERY_ABI,
            check: every_slot,
        },
        Clause {
            name: "ring.several-pages",
            rule: "Several ring pages are one range: slots straddle the pages (1.2).",
            abis: EVERY_ABI,
            check: several_pages,
        },
        Clause {
            name: "ring.whole-requests",
            rule: "A request of several entries becomes visible whole (3.2).",
            abis: &[blkif_proto::Abi::X86_64, blkif_proto::Abi::Arm],
            check: whole_requests,
        },
        Clause {
            name: "ring.any-order",
            rule: "Answers may come in any order; each goes to the request it names (1.4).",
            abis: EVERY_ABI,
            check: any_order,
        },
        Clause {
            name: "ring.arms-before-sleep",
            rule: "A frontend that waits asks for an event at the next response: rsp_event is its consumer index + 1 (1.4).",
            abis: ONE_ABI,
            check: arms_before_sleep,
        },
        Clause {
            name: "ring.no-lost-wakeup",
            rule: "A backend may notify only when rsp_event asks for it; no answer is overlooked (1.4).",
            abis: ONE_ABI,
            check: no_lost_wakeup,
        },
        Clause {
            name: "ring.late-event",
            rule: "An event may come long after the response that it is for (1.4).",
            abis: ONE_ABI,
            check: late_event,
        },
        Clause {
            name: "ring.spurious-events",
            rule: "Events without responses do no harm (1.4).",
            abis: ONE_ABI,
            check: spurious_events,
        },
        Clause {
            name: "ring.batched-answers",
            rule: "One event may announce any number of responses (1.4).",
            abis: ONE_ABI,
            check: batched_answers,
        },
        Clause {
            name: "ring.notifies-when-asked",
            rule: "A request that passes req_event is notified (1.4).",
            abis: ONE_ABI,
            check: notifies_when_asked,
        },
    ]
}

/// For the library, which takes orders while it is connected.
pub(super) fn library_clauses<W: BackWorld>() -> Vec<Clause<Backend<W>>> {
    vec![
        Clause {
            name: "ring.holds-off",
            rule: "Requests before req_event are published without an event, the one that passes it with one (1.4).",
            abis: ONE_ABI,
            check: holds_off,
        },
        Clause {
            name: "ring.queues-apart",
            rule: "Every queue has a ring and an event channel of its own (4.4).",
            abis: EVERY_ABI,
            check: queues_apart,
        },
    ]
}

fn initial_values<W: BackWorld>(backend: &mut Backend<W>) -> Result<()> {
    backend.offer(&[("max-ring-page-order", "1")])?;
    backend.set_state(State::InitWait)?;
    backend.launch(Job::idle().ring_pages(2))?;
    let mut connection = backend.join()?;
    let indices = [Field::ReqProd, Field::ReqEvent, Field::RspProd, Field::RspEvent];
    let values = indices.map(|field| connection.queue().index(field));
    must!(values == [0, 1, 0, 1], "req_prod, req_event, rsp_prod, rsp_event are {values:?}");
    for (page, key) in ["ring-ref0", "ring-ref1"].iter().enumerate() {
        let gref = blkif_proto::GrantRef(connection.keys[*key].parse()?);
        let bytes = connection.page(gref)?;
        let rest = &bytes[if page == 0 { 16 } else { 0 }..];
        must!(rest.iter().all(|byte| *byte == 0), "page {page} of the ring is not zero");
    }
    backend.open(&mut connection)?;
    backend.finish(connection)?.ok().map(drop)
}

fn every_slot<W: BackWorld>(backend: &mut Backend<W>) -> Result<()> {
    let rounds = 3;
    let mut connection = backend.connect(Job::new(Work::reads(rounds * 32, PAGE)))?;
    for round in 0..rounds {
        let taken = connection.take_all(32)?;
        let ids: BTreeSet<u64> = taken.iter().map(|taken| taken.id).collect();
        must!(ids.len() == 32, "round {round}: {} ids for 32 requests", ids.len());
        connection.silence(Duration::from_millis(10))?;
        for taken in &taken {
            connection.perform(taken)?;
            connection.respond(taken, taken.answer(Status::OKAY))?;
        }
        connection.queue().publish()?;
    }
    let outcome = backend.finish(connection)?.ok()?;
    must!(outcome.has_read(&on_disk(0, 4096 * 32 * 3)), "not what is on the disk");
    Ok(())
}

fn several_pages<W: BackWorld>(backend: &mut Backend<W>) -> Result<()> {
    backend.offer(&[("max-ring-page-order", "2")])?;
    let mut connection = backend.connect(Job::new(Work::reads(300, PAGE)).ring_pages(4))?;
    let slots = connection.queue().ring.layout().entries();
    must!(slots == 128, "a ring of 4 pages has {slots} slots");
    let first = connection.take_all(128)?;
    connection.silence(Duration::from_millis(10))?;
    let sectors: BTreeSet<u64> = first.iter().map(|taken| taken.sector).collect();
    must!(sectors.len() == 128, "{} different requests", sectors.len());
    first.iter().try_for_each(|taken| connection.serve(taken))?;
    let outcome = backend.finish(connection)?.ok()?;
    must!(outcome.has_read(&on_disk(0, 4096 * 300)), "not what is on the disk");
    Ok(())
}

fn whole_requests<W: BackWorld>(backend: &mut Backend<W>) -> Result<()> {
    let maxima = [("max-request-segments", "40"), ("max-request-size", "163840"), ("max-requests", "32")];
    backend.offer(&maxima)?;
    let job = Job::new(Work::reads(25, 40 * PAGE)).segments(SegmentChoice::Blocks);
    let mut connection = backend.connect(job)?;
    for _ in 0..25 {
        // Four entries each: whatever is visible is a multiple of that.
        let taken = connection.take()?;
        let visible = connection.queue().index(Field::ReqProd);
        must!(taken.entries.len() == 4, "{} entries for 40 segments", taken.entries.len());
        must!(visible.is_multiple_of(4), "{visible} entries are visible");
        connection.serve(&taken)?;
    }
    backend.finish(connection)?.ok().map(drop)
}

fn any_order<W: BackWorld>(backend: &mut Backend<W>) -> Result<()> {
    let mut connection = backend.connect(Job::new(Work::reads(16, PAGE)))?;
    let taken = connection.take_all(16)?;
    for taken in taken.iter().skip(1).step_by(2).chain(taken.iter().step_by(2).rev()) {
        connection.serve(taken)?;
    }
    let outcome = backend.finish(connection)?.ok()?;
    must!(outcome.has_read(&on_disk(0, 4096 * 16)), "data went to the wrong request");
    Ok(())
}

fn arms_before_sleep<W: BackWorld>(backend: &mut Backend<W>) -> Result<()> {
    let mut connection = backend.connect(Job::new(Work::reads(3, PAGE)))?;
    for (answered, taken) in (0..).zip(connection.take_all(3)?) {
        connection.queue().wait_index(Field::RspEvent, answered + 1)?;
        connection.perform(&taken)?;
        connection.respond(&taken, taken.answer(Status::OKAY))?;
        let asked = connection.queue().ring.publish().is_needed();
        must!(asked, "response {answered} passes rsp_event, and no event is asked for");
        connection.queue().ring_bell()?;
    }
    backend.finish(connection)?.ok().map(drop)
}

fn no_lost_wakeup<W: BackWorld>(backend: &mut Backend<W>) -> Result<()> {
    let mut job = Job::new(Work::reads(1000, PAGE)).depth(2);
    // The library then looks by itself only once a second.
    job.nap = Duration::from_secs(10);
    let mut connection = backend.connect(job)?;
    let mut overlooked = 0;
    for _ in 0..1000 {
        let since = Instant::now();
        let taken = connection.take()?;
        overlooked += u32::from(since.elapsed() > Duration::from_millis(800));
        connection.perform(&taken)?;
        connection.respond(&taken, taken.answer(Status::OKAY))?;
        if connection.queue().ring.publish().is_needed() {
            connection.queue().ring_bell()?;
        }
    }
    // A busy machine may hold one up; a frontend that forgets to look does it more often.
    must!(overlooked <= 1, "{overlooked} responses of 1000 were overlooked");
    backend.finish(connection)?.ok().map(drop)
}

fn late_event<W: BackWorld>(backend: &mut Backend<W>) -> Result<()> {
    let mut connection = backend.connect(Job::new(Work::reads(4, PAGE)))?;
    for taken in connection.take_all(4)? {
        connection.perform(&taken)?;
        connection.respond(&taken, taken.answer(Status::OKAY))?;
        let _ = connection.queue().ring.publish();
        std::thread::sleep(Duration::from_millis(10));
        connection.queue().ring_bell()?;
    }
    backend.finish(connection)?.ok().map(drop)
}

fn spurious_events<W: BackWorld>(backend: &mut Backend<W>) -> Result<()> {
    let mut connection = backend.connect(Job::new(Work::reads(4, PAGE)))?;
    for taken in connection.take_all(4)? {
        for _ in 0..100 {
            connection.queue().ring_bell()?;
        }
        connection.serve(&taken)?;
    }
    backend.finish(connection)?.ok().map(drop)
}

fn batched_answers<W: BackWorld>(backend: &mut Backend<W>) -> Result<()> {
    let mut connection = backend.connect(Job::new(Work::reads(32, PAGE)))?;
    for taken in connection.take_all(32)? {
        connection.perform(&taken)?;
        connection.respond(&taken, taken.answer(Status::OKAY))?;
    }
    connection.queue().publish()?;
    let outcome = backend.finish(connection)?.ok()?;
    must!(outcome.has_read(&on_disk(0, 4096 * 32)), "not what is on the disk");
    Ok(())
}

fn notifies_when_asked<W: BackWorld>(backend: &mut Backend<W>) -> Result<()> {
    let mut connection = backend.connect(Job::new(Work::reads(20, PAGE)).depth(1))?;
    let mut taken = connection.take()?;
    for request in 1..20 {
        connection.queue().forget_events()?;
        must!(!connection.queue().ring.arm()?, "a request before the answer to the only one");
        connection.serve(&taken)?;
        let rang = connection.queue().rings_within(Duration::from_secs(2))?;
        must!(rang, "request {request} passes req_event, and no event came");
        taken = connection.take()?;
    }
    connection.serve(&taken)?;
    backend.finish(connection)?.ok().map(drop)
}

fn holds_off<W: BackWorld>(backend: &mut Backend<W>) -> Result<()> {
    let mut connection = backend.connect(Job::idle())?;
    connection.queue().set_index(Field::ReqEvent, 3);
    connection.queue().forget_events()?;
    for request in 1..=2 {
        backend.order(Work::read(0, PAGE))?;
        connection.queue().wait_index(Field::ReqProd, request)?;
        let rang = connection.queue().rings_within(Duration::from_millis(20))?;
        must!(!rang, "an event for request {request}, which does not reach req_event");
    }
    backend.order(Work::read(0, PAGE))?;
    must!(connection.queue().rings_within(Duration::from_secs(2))?, "request 3 reaches req_event: no event");
    backend.finish(connection)?.ok().map(drop)
}

fn queues_apart<W: BackWorld>(backend: &mut Backend<W>) -> Result<()> {
    backend.offer(&[("multi-queue-max-queues", "2")])?;
    let mut connection = backend.connect(Job::new(Work::reads(8, PAGE)).queues(2))?;
    must!(connection.queues.len() == 2, "{} queues", connection.queues.len());
    // The rig's jobs go to the queues in turn. The second queue gets all its answers while the first gets none.
    for n in [1, 3, 5, 7] {
        let taken = connection.take_within(1, Duration::from_secs(2))?.context("no request on queue 1")?;
        must!(taken.sector == n * 8, "sector {} on queue 1", taken.sector);
        connection.serve(&taken)?;
        backend.wait_note(&format!("done {n}"))?;
    }
    must!(connection.queues[0].index(Field::ReqProd) == 4, "queue 0 lacks requests");
    let outcome = backend.finish(connection)?.ok()?;
    must!(outcome.has_read(&on_disk(0, 4096 * 8)), "not what is on the disk");
    Ok(())
}
