//! Answers that say no (docs/PROTOCOL.md sections 2.1 and 2.5).

use anyhow::Result;
use blkif_proto::Status;
use xen_platform::BackWorld;

use super::{OPERATIONS, PAGE};
use crate::{
    conformance::{
        Clause, EVERY_ABI, ONE_ABI,
        rig::backend::{Backend, Job, Work},
    },
    must,
};

/// For frontends of any kind.
pub(super) fn clauses<W: BackWorld>() -> Vec<Clause<Backend<W>>> {
    vec![Clause {
        name: "status.error",
        rule: "An answer of ERROR, EOPNOTSUPP or an unknown status fails the work, not the connection (2.1, 2.5).",
        abis: EVERY_ABI,
        check: error,
    }]
}

/// For the library, which tells how each piece of work has ended.
pub(super) fn library_clauses<W: BackWorld>() -> Vec<Clause<Backend<W>>> {
    vec![
        Clause {
            name: "status.each-its-own",
            rule: "Each work gets the status of its own answer (2.1).",
            abis: EVERY_ABI,
            check: each_its_own,
        },
        Clause {
            name: "status.unsupported-at-run-time",
            rule: "A backend may answer EOPNOTSUPP to what it has offered; whoever waits is told so (2.5).",
            abis: ONE_ABI,
            check: unsupported_at_run_time,
        },
    ]
}

fn error<W: BackWorld>(backend: &mut Backend<W>) -> Result<()> {
    for (status, words) in
        [(-1, "I/O error"), (-2, "not support"), (-77, "unknown status -77"), (1, "status 1")]
    {
        for work in [Work::read(0, PAGE), Work::write(0, PAGE)] {
            let mut connection = backend.connect(Job::new([work]))?;
            let taken = connection.take()?;
            connection.answer(&taken, Status(status))?;
            backend.finish(connection)?.fails_with(words)?;
        }
    }
    Ok(())
}

fn each_its_own<W: BackWorld>(backend: &mut Backend<W>) -> Result<()> {
    let mut connection = backend.connect(Job::new(Work::reads(8, PAGE)))?;
    let mut taken = connection.take_all(8)?;
    taken.sort_by_key(|taken| taken.sector);
    for (n, taken) in taken.iter().enumerate().rev() {
        let status = if n % 3 == 0 { Status::ERROR } else { Status::OKAY };
        connection.answer(taken, status)?;
    }
    let outcome = backend.finish(connection)?;
    for n in 0..8 {
        must!(outcome.result(n)?.is_err() == (n % 3 == 0), "work {n} ended with {:?}", outcome.result(n)?);
    }
    Ok(())
}

fn unsupported_at_run_time<W: BackWorld>(backend: &mut Backend<W>) -> Result<()> {
    backend.offer(OPERATIONS)?;
    // The barrier is the last, as nothing is sent behind it.
    let work = [Work::read(0, PAGE), Work::Flush, Work::Discard(0, 8, false), Work::Barrier(None)];
    let mut connection = backend.connect(Job::new(work))?;
    // What is behind the barrier comes when that is answered.
    for count in [3, 1] {
        for taken in connection.take_all(count)? {
            let status = if taken.op == 0 { Status::OKAY } else { Status::NOT_SUPPORTED };
            connection.answer(&taken, status)?;
        }
    }
    let outcome = backend.finish(connection)?;
    for (n, what) in work.iter().enumerate().skip(1) {
        let told = outcome.result(n)?;
        must!(told.is_err_and(|error| error.contains("not support")), "{what:?} ended with {told:?}");
    }
    must!(outcome.result(0)?.is_ok(), "the read failed too");
    Ok(())
}
