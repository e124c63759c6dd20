//! The backend ends and comes back (docs/PROTOCOL.md section 5.5 and rule 0.24).

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use blkif_proto::{Opcode, keys, xenbus::State};
use xen_platform::Store as _;

use crate::{
    conformance::{
        Clause, EVERY_ABI, ONE_ABI,
        rig::{CONFIG, Raw, Rig, TRACES, Wish, noise, whole},
    },
    must,
};

pub(super) fn clauses() -> Vec<Clause<Rig>> {
    vec![
        Clause {
            name: "recovery.stop-lets-guests-close",
            rule: "A backend that is told to end shows 5, serves until the guests have closed, and shows 6 (0.10, 5.5).",
            abis: ONE_ABI,
            check: stop_lets_guests_close,
        },
        Clause {
            name: "recovery.stop-does-not-wait-for-ever",
            rule: "A guest that does not close in time is left without its disk, with nothing mapped (0.29, 5.5).",
            abis: ONE_ABI,
            check: stop_does_not_wait,
        },
        Clause {
            name: "recovery.stop-answers-what-it-took",
            rule: "What was taken out of a ring is answered before the end (5.5).",
            abis: ONE_ABI,
            check: stop_answers,
        },
        Clause {
            name: "recovery.stop-leaves-waiting-guests-alone",
            rule: "A guest that never connected is not told, and the next backend takes it up where it is (5.5).",
            abis: ONE_ABI,
            check: stop_leaves_waiting_guests,
        },
        Clause {
            name: "recovery.next-one-serves",
            rule: "After a stop the guests connect to the next backend and find their data (0.11, 5.5).",
            abis: EVERY_ABI,
            check: next_one_serves,
        },
        Clause {
            name: "recovery.next-one-offers-less",
            rule: "What the next backend does not offer any more is removed before state 2 (0.26, 0.27).",
            abis: ONE_ABI,
            check: next_one_offers_less,
        },
        Clause {
            name: "recovery.guest-came-back-smaller",
            rule: "A guest that crashed may come back with fewer queues, smaller rings, another ABI and no extension (0.31, 5.2).",
            abis: EVERY_ABI,
            check: came_back_smaller,
        },
    ]
}

/// [`CONFIG`] with so many seconds for guests to close.
fn patient(seconds: u64) -> String {
    CONFIG.replace("shutdown-s = 0", &format!("shutdown-s = {seconds}"))
}

/// Stops the daemon while the guest does something.
fn while_stopping<R>(rig: &mut Rig, act: impl FnOnce() -> Result<R>) -> Result<R> {
    thread::scope(|scope| {
        let stop = scope.spawn(|| rig.world.stop_backend());
        let result = act();
        stop.join().map_err(|_| anyhow::anyhow!("stopping panicked"))??;
        result
    })
}

fn stop_lets_guests_close(rig: &mut Rig) -> Result<()> {
    rig.configure(&patient(8))?;
    let mut guest = rig.guest()?;
    let mut connection = guest.connect(&Wish::persistent())?;
    while_stopping(rig, || {
        guest.wait_backend(State::Closing)?;
        connection.works()?;
        guest.set_state(State::Closing)?;
        guest.stays(State::Closing, Duration::from_millis(30))?;
        connection.works()?;
        guest.set_state(State::Closed)?;
        guest.wait_backend(State::Closed)?;
        connection.take_rings_back()
    })
}

fn stop_does_not_wait(rig: &mut Rig) -> Result<()> {
    rig.configure(&patient(1))?;
    let mut guest = rig.guest()?;
    let mut connection = guest.connect(&Wish::persistent())?;
    connection.works()?;
    let asked = Instant::now();
    rig.world.stop_backend()?;
    must!(asked.elapsed() < Duration::from_secs(4), "it took {:?}", asked.elapsed());
    guest.wait_backend(State::Closed)?;
    connection.take_rings_back()
}

fn stop_answers(rig: &mut Rig) -> Result<()> {
    for _ in 0..5 {
        rig.start()?;
        let image = rig.image()?;
        let mut guest = rig.guest_with(&image.disk())?;
        let mut connection = guest.connect(&Wish::default())?;
        let page = connection.pages(1, 0x77)?;
        for n in 0..32 {
            let raw = Raw::write(n, TRACES + 8 * n, &whole(&page));
            connection.queue().push(&raw.entries(rig.abi))?;
        }
        connection.queue().kick()?;
        rig.world.stop_backend()?;
        // Taken and answered, or not taken at all: never taken and forgotten.
        let mut answered = 0;
        while let Some(slot) = connection.queue().answer_within(1, Duration::ZERO)? {
            let answer = blkif_proto::Response::parse(&slot);
            must!(answer.status.0 == 0, "{answer:?}");
            answered += 1;
        }
        let written =
            (0..32).filter(|n| image.read(TRACES + 8 * n, 1).is_ok_and(|byte| byte == [0x77])).count();
        must!(written == answered, "{written} writes in the image, {answered} answered");
    }
    Ok(())
}

fn stop_leaves_waiting_guests(rig: &mut Rig) -> Result<()> {
    let mut guest = rig.guest()?;
    guest.wait_backend(State::InitWait)?;
    rig.world.stop_backend()?;
    must!(guest.backend_state()? == State::InitWait, "the backend is {}", guest.backend_state()?);
    let mut connection = guest.publish(&Wish::default())?;
    rig.start()?;
    guest.wait_backend(State::Connected)?;
    connection.works()
}

fn next_one_serves(rig: &mut Rig) -> Result<()> {
    let mut guest = rig.guest()?;
    for round in 0..3 {
        let data = noise(round, 4096);
        let mut connection = guest.connect(&Wish::default())?;
        connection.write(TRACES, &data)?;
        rig.world.stop_backend()?;
        guest.wait_backend(State::Closed)?;
        connection.take_rings_back()?;
        guest.set_state(State::Closed)?;
        rig.start()?;
        guest.set_state(State::Initialising)?;
        let mut connection = guest.connect(&Wish::queues(2)).with_context(|| format!("round {round}"))?;
        must!(connection.read(TRACES, 4096)? == data, "round {round}: the data is lost");
        guest.restart()?;
    }
    Ok(())
}

fn next_one_offers_less(rig: &mut Rig) -> Result<()> {
    let mut guest = rig.guest()?;
    guest.connect(&Wish::default())?.works()?;
    guest.close()?;
    rig.world.stop_backend()?;
    rig.configure("[daemon]\nshutdown-s = 0\n[offer]\nring-pages = 1\nqueues = 1\nindirect-segments = 0\nblock-segments = 0\nflush = false\n")?;
    guest.set_state(State::Initialising)?;
    guest.wait_backend(State::InitWait)?;
    let there = guest.store.list(&guest.vbd.backend)?;
    for key in [
        keys::MAX_RING_PAGE_ORDER,
        keys::MAX_RING_PAGES,
        keys::MULTI_QUEUE_MAX_QUEUES,
        keys::FEATURE_MAX_INDIRECT_SEGMENTS,
        keys::MAX_REQUEST_SEGMENTS,
        keys::FEATURE_FLUSH_CACHE,
    ] {
        must!(!there.iter().any(|known| known == key), "{key} is still offered");
    }
    let mut connection = guest.connect(&Wish::default())?;
    connection.unsupported(&Raw::data(Opcode::FLUSH, 1, 0, &[]))?;
    connection.works()
}

fn came_back_smaller(rig: &mut Rig) -> Result<()> {
    let mut guest = rig.guest()?;
    let large = Wish { queues: 4, blocks: true, persistent: true, ..Wish::default() };
    let mut old = guest.connect(&large.pages(16, keys::RingDialect::Order))?;
    for queue in 0..4 {
        let page = old.pages(1, 0)?;
        old.ask_on(queue, &Raw::read(1, 0, &whole(&page)))?;
    }
    // A new kernel, without a word of the old one.
    guest.abi = blkif_proto::Abi::X86_32;
    guest.set_state(State::Initialising)?;
    let mut new = guest.publish(&Wish::default().without(keys::FEATURE_PERSISTENT))?;
    guest.wait_backend(State::Connected)?;
    new.works()?;
    new.works()?;
    old.take_rings_back().context("the old rings")
}
