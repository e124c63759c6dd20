//! Backends that end and take up the same rings again (docs/PROTOCOL.md sections 0.24 and 5.5).

use std::time::Duration;

use anyhow::Result;
use blkif_proto::xenbus::State;
use xen_platform::BackWorld;

use super::PAGE;
use crate::{
    conformance::{
        Clause, EVERY_ABI, ONE_ABI,
        rig::backend::{Backend, Connection, Job, Work, on_disk},
    },
    must,
};

/// For frontends of any kind.
pub(super) fn clauses<W: BackWorld>() -> Vec<Clause<Backend<W>>> {
    vec![
        Clause {
            name: "restart.in-place",
            rule: "A backend that ends and starts again at state 2, then 4, takes up the same ring where it was answered last (0.24, 5.5).",
            abis: EVERY_ABI,
            check: announced,
        },
        Clause {
            name: "restart.after-kill",
            rule: "A backend that was killed leaves state 4; its frontend just waits (5.5).",
            abis: ONE_ABI,
            check: after_kill,
        },
    ]
}

/// Lets the backend die without a word and start again; it re-attaches to the ring at `rsp_prod`.
fn reattach<W: BackWorld>(
    backend: &mut Backend<W>,
    connection: Connection<W>,
    at: Option<State>,
) -> Result<Connection<W>> {
    drop(connection);
    if let Some(state) = at {
        backend.set_state(state)?;
    }
    backend.frontend_stays(State::Connected, Duration::from_millis(20))?;
    let connection = backend.join()?;
    backend.set_state(State::Connected)?;
    Ok(connection)
}

fn in_place<W: BackWorld>(backend: &mut Backend<W>, at: Option<State>) -> Result<()> {
    let mut connection = backend.connect(Job::new(Work::reads(40, PAGE)))?;
    for taken in connection.take_all(10)? {
        connection.serve(&taken)?;
    }
    // These are lost with the process; they are still in the ring.
    let lost = connection.take_all(5)?;
    let mut connection = reattach(backend, connection, at)?;
    let next = connection.take()?;
    must!(next.sector == lost[0].sector, "it goes on at sector {}, not with request 10", next.sector);
    connection.serve(&next)?;
    let outcome = backend.finish(connection)?.ok()?;
    must!(outcome.has_read(&on_disk(0, 40 * 4096)), "not what is on the disk");
    Ok(())
}

fn announced<W: BackWorld>(backend: &mut Backend<W>) -> Result<()> {
    in_place(backend, Some(State::InitWait))
}

fn after_kill<W: BackWorld>(backend: &mut Backend<W>) -> Result<()> {
    in_place(backend, None)
}
