//! States (docs/PROTOCOL.md sections 5.1, 5.3 to 5.5): what a frontend does at each state of its backend.

use std::time::Duration;

use anyhow::{Context as _, Result};
use blkif_proto::xenbus::State;
use xen_platform::{
    BackWorld,
    wire::{Permission, Rights},
};

use super::PAGE;
use crate::{
    conformance::{
        Clause, ONE_ABI,
        rig::backend::{Backend, Job, Work},
    },
    must,
};

/// For frontends of any kind.
pub(super) fn clauses<W: BackWorld>() -> Vec<Clause<Backend<W>>> {
    vec![
        Clause {
            name: "xenbus.waits-for-initwait",
            rule: "While its backend is 0, 1, 5, 6, 7 or 8 a new frontend stays at 1 and offers nothing (5.3).",
            abis: ONE_ABI,
            check: waits_for_initwait,
        },
        Clause {
            name: "xenbus.sets-up-on-2-to-4",
            rule: "A frontend at 1 sets up its rings at backend state 2, and at 3 or 4 too (5.1, 5.3).",
            abis: ONE_ABI,
            check: sets_up_on_2_to_4,
        },
        Clause {
            name: "xenbus.waits-for-connected",
            rule: "A frontend at 3 waits for 4 whatever else but closing its backend shows (5.3).",
            abis: ONE_ABI,
            check: waits_for_connected,
        },
        Clause {
            name: "xenbus.refused",
            rule: "A backend that closes, or goes away, before it connects ends the attempt, with its own words if it has any (5.2, 5.3).",
            abis: ONE_ABI,
            check: refused,
        },
        Clause {
            name: "xenbus.connected-ignores",
            rule: "A connected frontend takes no notice of backend states 1, 2, 3, 7, 8 and 4 again: I/O goes on (0.24, 5.3).",
            abis: ONE_ABI,
            check: connected_ignores,
        },
        Clause {
            name: "xenbus.backend-gone",
            rule: "A backend that is closed, or whose directory is gone, serves no more: a frontend that does not wait for another closes its own end (5.3).",
            abis: ONE_ABI,
            check: backend_gone,
        },
        Clause {
            name: "xenbus.closing-is-served",
            rule: "While the backend is only closing, I/O goes on, and the frontend closes in order (5.3, 8.1 quirk 28).",
            abis: ONE_ABI,
            check: closing_is_served,
        },
        Clause {
            name: "xenbus.stop-sequence",
            rule: "A frontend closes by 5, waits for 5, goes to 6, waits for 6, and leaves state 1 and no keys of its own (5.4, 5.5).",
            abis: ONE_ABI,
            check: stop_sequence,
        },
        Clause {
            name: "xenbus.backend-skips-5",
            rule: "A backend that answers 5 by 6 has closed as well (5.3, 5.5).",
            abis: ONE_ABI,
            check: backend_skips_5,
        },
        Clause {
            name: "xenbus.earlier-driver",
            rule: "What an earlier driver has left connected is closed, 5 and 6, before the first connection (5.5).",
            abis: ONE_ABI,
            check: earlier_driver,
        },
        Clause {
            name: "xenbus.earlier-driver-closed",
            rule: "After an earlier driver that closed, 6 and 6, a frontend goes to 1 and waits for 2 (5.5).",
            abis: ONE_ABI,
            check: earlier_driver_closed,
        },
        Clause {
            name: "xenbus.never-silent",
            rule: "A backend that never answers ends in an error that names what was waited for (8.3).",
            abis: ONE_ABI,
            check: never_silent,
        },
        Clause {
            name: "xenbus.never-resurrects",
            rule: "A device that the toolstack has deleted is not made again by its frontend (5.1).",
            abis: ONE_ABI,
            check: never_resurrects,
        },
    ]
}

/// For the library, which tells what it sees.
pub(super) fn library_clauses<W: BackWorld>() -> Vec<Clause<Backend<W>>> {
    vec![
        Clause {
            name: "xenbus.resize",
            rule: "A size that is published with state 4 again counts at once (0.23, 5.3).",
            abis: ONE_ABI,
            check: resize,
        },
        Clause {
            name: "xenbus.tells-of-closing",
            rule: "A backend that goes to 5 is told to the application, once (5.3).",
            abis: ONE_ABI,
            check: tells_of_closing,
        },
    ]
}

const MOMENT: Duration = Duration::from_millis(15);

fn waits_for_initwait<W: BackWorld>(backend: &mut Backend<W>) -> Result<()> {
    backend.remove("state")?;
    backend.launch(Job::new(Work::reads(1, PAGE)))?;
    let others =
        [State::Initialising, State::Closing, State::Closed, State::Reconfiguring, State::Reconfigured];
    backend.frontend_stays(State::Initialising, MOMENT)?;
    for state in others {
        backend.set_state(state)?;
        backend.frontend_stays(State::Initialising, MOMENT).with_context(|| format!("at backend {state}"))?;
        let keys = backend.frontend_keys()?;
        must!(!keys.contains_key("ring-ref"), "rings are offered to a backend that is {state}");
    }
    backend.set_state(State::InitWait)?;
    let connection = backend.accept()?;
    backend.finish(connection)?.ok().map(drop)
}

fn sets_up_on_2_to_4<W: BackWorld>(backend: &mut Backend<W>) -> Result<()> {
    for state in [State::InitWait, State::Initialised, State::Connected] {
        backend.publish_disk()?;
        backend.set_state(state)?;
        backend.launch(Job::new(Work::reads(1, PAGE)))?;
        let connection = backend.accept().with_context(|| format!("at backend {state}"))?;
        backend.finish(connection)?.ok()?;
    }
    Ok(())
}

fn waits_for_connected<W: BackWorld>(backend: &mut Backend<W>) -> Result<()> {
    backend.set_state(State::InitWait)?;
    backend.launch(Job::new(Work::reads(1, PAGE)))?;
    let mut connection = backend.join()?;
    for state in [State::Initialised, State::Reconfiguring, State::Reconfigured, State::Initialising] {
        backend.set_state(state)?;
        backend.frontend_stays(State::Initialised, MOMENT).with_context(|| format!("at backend {state}"))?;
    }
    backend.open(&mut connection)?;
    backend.finish(connection)?.ok().map(drop)
}

fn refused<W: BackWorld>(backend: &mut Backend<W>) -> Result<()> {
    for state in [Some(State::Closing), Some(State::Closed), None] {
        backend.set_state(State::InitWait)?;
        backend.launch(Job::new([]))?;
        let connection = backend.join()?;
        let words = match state {
            Some(state) => {
                backend.write("error", "out of paper")?;
                backend.set_state(state)?;
                "out of paper"
            }
            None => {
                backend.remove("state")?;
                "closed"
            }
        };
        let outcome = backend.end(connection)?;
        outcome.fails_with(words).with_context(|| format!("after {state:?}"))?;
        must!(backend.frontend_state()? == State::Closed, "it is {} then", backend.frontend_state()?);
        let keys = backend.frontend_keys()?;
        must!(!keys.contains_key("ring-ref"), "its rings are still offered");
        backend.write_frontend("state", "1")?;
        backend.remove("error")?;
    }
    Ok(())
}

fn connected_ignores<W: BackWorld>(backend: &mut Backend<W>) -> Result<()> {
    let mut connection = backend.connect(Job::new(Work::reads(6, PAGE)).depth(1))?;
    let states = [
        State::Initialising,
        State::InitWait,
        State::Initialised,
        State::Reconfiguring,
        State::Reconfigured,
        State::Connected,
    ];
    for state in states {
        let taken = connection.take()?;
        backend.set_state(state)?;
        backend.frontend_stays(State::Connected, MOMENT).with_context(|| format!("at backend {state}"))?;
        connection.serve(&taken)?;
    }
    backend.finish(connection)?.ok().map(drop)
}

fn backend_gone<W: BackWorld>(backend: &mut Backend<W>) -> Result<()> {
    for state in [Some(State::Closed), None] {
        let mut connection = backend.connect(Job::new(Work::reads(2, PAGE)))?;
        connection.take_all(2)?;
        drop(connection);
        match state {
            Some(state) => backend.set_state(state)?,
            None => {
                let dir = backend.vbd.backend.clone();
                backend.store.transact(|t| t.remove(&dir))?;
            }
        }
        backend.outcome()?.fails_with("backend is gone").with_context(|| format!("after {state:?}"))?;
        let keys = backend.frontend_keys()?;
        must!(!keys.contains_key("ring-ref"), "its rings are still offered");
        must!(keys["state"] == "1", "it is at {} then", keys["state"]);
    }
    Ok(())
}

fn closing_is_served<W: BackWorld>(backend: &mut Backend<W>) -> Result<()> {
    let mut connection = backend.connect(Job::new(Work::reads(20, PAGE)).depth(1))?;
    for n in 0..20 {
        let taken = connection.take()?;
        if n == 5 {
            backend.write("online", "0")?;
            backend.set_state(State::Closing)?;
            backend.frontend_stays(State::Connected, MOMENT)?;
        }
        connection.serve(&taken)?;
    }
    backend.wait_frontend(&[State::Closing, State::Closed])?;
    backend.finish(connection)?.ok().map(drop)
}

fn stop_sequence<W: BackWorld>(backend: &mut Backend<W>) -> Result<()> {
    let before = backend.frontend_keys()?;
    let offer = [("multi-queue-max-queues", "2"), ("max-ring-page-order", "1")];
    backend.offer(&offer)?;
    let mut connection = backend.connect(Job::new(Work::reads(1, PAGE)).queues(2).ring_pages(2))?;
    let taken = connection.take()?;
    connection.serve(&taken)?;
    backend.wait_frontend(&[State::Closing])?;
    backend.frontend_stays(State::Closing, MOMENT)?;
    backend.set_state(State::Closing)?;
    backend.wait_frontend(&[State::Closed])?;
    backend.frontend_stays(State::Closed, MOMENT)?;
    drop(connection);
    backend.set_state(State::Closed)?;
    backend.outcome()?.ok()?;
    let after = backend.frontend_keys()?;
    must!(after == before, "the frontend's directory is\n  {after:?}, and was\n  {before:?}");
    Ok(())
}

fn backend_skips_5<W: BackWorld>(backend: &mut Backend<W>) -> Result<()> {
    let mut connection = backend.connect(Job::new(Work::reads(1, PAGE)))?;
    let taken = connection.take()?;
    connection.serve(&taken)?;
    backend.wait_frontend(&[State::Closing])?;
    drop(connection);
    backend.set_state(State::Closed)?;
    backend.outcome()?.ok()?;
    must!(backend.frontend_state()? == State::Initialising, "it is {}", backend.frontend_state()?);
    Ok(())
}

fn earlier_driver<W: BackWorld>(backend: &mut Backend<W>) -> Result<()> {
    for left in [State::Initialised, State::Connected, State::Closing] {
        backend.write_frontend("state", left.as_str())?;
        backend.write_frontend("ring-ref", "8")?;
        backend.set_state(State::Connected)?;
        backend.launch(Job::new(Work::reads(1, PAGE)))?;
        backend.wait_frontend(&[State::Closing]).with_context(|| format!("found at {left}"))?;
        backend.frontend_stays(State::Closing, MOMENT)?;
        backend.set_state(State::Closing)?;
        backend.wait_frontend(&[State::Closed])?;
        backend.frontend_stays(State::Closed, MOMENT)?;
        backend.set_state(State::Closed)?;
        backend.wait_frontend(&[State::Initialising])?;
        backend.frontend_stays(State::Initialising, MOMENT)?;
        backend.set_state(State::InitWait)?;
        let connection = backend.accept()?;
        backend.finish(connection)?.ok()?;
    }
    Ok(())
}

fn earlier_driver_closed<W: BackWorld>(backend: &mut Backend<W>) -> Result<()> {
    backend.write_frontend("state", State::Closed.as_str())?;
    backend.set_state(State::Closed)?;
    backend.launch(Job::new(Work::reads(1, PAGE)))?;
    backend.wait_frontend(&[State::Initialising])?;
    backend.frontend_stays(State::Initialising, MOMENT)?;
    backend.set_state(State::InitWait)?;
    let connection = backend.accept()?;
    backend.finish(connection)?.ok().map(drop)
}

fn never_silent<W: BackWorld>(backend: &mut Backend<W>) -> Result<()> {
    let job = || Job::new(Work::reads(1, PAGE)).timeout(Duration::from_millis(100));
    backend.launch(job())?;
    backend.outcome()?.fails_with("waited for InitWait")?;

    backend.set_state(State::InitWait)?;
    backend.launch(job())?;
    backend.outcome()?.fails_with("waited for Connected")?;
    backend.write_frontend("state", "1")?;

    for (follows, wanted) in [(None, "waited for Closing"), (Some(State::Closing), "waited for Closed")] {
        let mut connection = backend.connect(job())?;
        let taken = connection.take()?;
        connection.serve(&taken)?;
        backend.wait_frontend(&[State::Closing])?;
        if let Some(state) = follows {
            backend.set_state(state)?;
        }
        backend.outcome()?.fails_with(wanted)?;
        backend.write_frontend("state", "1")?;
    }
    Ok(())
}

fn never_resurrects<W: BackWorld>(backend: &mut Backend<W>) -> Result<()> {
    let mut connection = backend.connect(Job::new(Work::reads(2, PAGE)).depth(1))?;
    let taken = connection.take()?;
    let (frontend, guest) = (backend.vbd.frontend.clone(), backend.vbd.guest);
    let folder = format!("/local/domain/{guest}/device/vbd");
    backend.store.transact(|t| {
        // It is not for lack of rights.
        t.set_permissions(&folder, &[Permission::new(guest, Rights::None)])?;
        t.remove(&frontend)
    })?;
    connection.serve(&taken)?;
    // Whether it calls this a failure is its own affair.
    let _ = backend.end(connection)?;
    must!(!backend.exists(&format!("{frontend}/state"))?, "{frontend} is there again");
    must!(!backend.exists(&frontend)?, "{frontend} is there again");
    Ok(())
}

fn resize<W: BackWorld>(backend: &mut Backend<W>) -> Result<()> {
    let mut connection = backend.connect(Job::idle())?;
    for sectors in [16384, 4096] {
        backend.write("sectors", &sectors.to_string())?;
        backend.set_state(State::Connected)?;
        backend.wait_note(&format!("Resized({sectors} "))?;
        backend.order(Work::read(sectors, PAGE))?;
        backend.order(Work::read(sectors - 8, PAGE))?;
        let taken = connection.take()?;
        must!(taken.sector == sectors - 8, "a read at sector {} of {sectors}", taken.sector);
        connection.serve(&taken)?;
    }
    let outcome = backend.finish(connection)?;
    let refused = |number| outcome.result(number).is_ok_and(|result| result.is_err());
    must!(refused(0) && refused(2), "a read past the end was accepted: {:?}", outcome.results);
    must!(outcome.result(1)?.is_ok() && outcome.result(3)?.is_ok(), "{:?}", outcome.results);
    Ok(())
}

fn tells_of_closing<W: BackWorld>(backend: &mut Backend<W>) -> Result<()> {
    let mut connection = backend.connect(Job::idle())?;
    backend.set_state(State::Closing)?;
    backend.wait_note("Closing")?;
    backend.order(Work::read(0, PAGE))?;
    let taken = connection.take()?;
    connection.serve(&taken)?;
    backend.wait_note("done 0")?;
    let told = backend.notes()?.iter().filter(|note| *note == "Closing").count();
    must!(told == 1, "told {told} times");
    backend.finish(connection)?.ok().map(drop)
}
