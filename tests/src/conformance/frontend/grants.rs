//! What a frontend lends, and how long (docs/PROTOCOL.md sections 0.21, 0.22, 6.1 and 8.2).

use anyhow::Result;
use blkif_proto::{GrantRef, xenbus::State};
use xen_platform::{Access, BackWorld};

use super::{INDIRECT, PAGE};
use crate::{
    conformance::{
        Clause, ONE_ABI,
        rig::backend::{Backend, Job, Mapping, Range, Taken, Work, written},
    },
    must,
    world::wait_until,
};

/// For frontends of any kind.
pub(super) fn clauses<W: BackWorld>() -> Vec<Clause<Backend<W>>> {
    vec![
        Clause {
            name: "grants.access",
            rule: "Without persistent grants the pages of a write are lent read-only, those of a read writable (6.1).",
            abis: ONE_ABI,
            check: access,
        },
        Clause {
            name: "grants.revoked-when-answered",
            rule: "Without persistent grants nothing of a request is lent any more when it is done (0.22).",
            abis: ONE_ABI,
            check: revoked_when_answered,
        },
        Clause {
            name: "grants.descriptors-read-only",
            rule: "Descriptor pages are lent read-only, unless grants are persistent (6.1).",
            abis: ONE_ABI,
            check: descriptors_read_only,
        },
        Clause {
            name: "grants.persistent",
            rule: "Persistent grants are writable, stay mapped over the answer, and are used again (0.21, 6.1).",
            abis: ONE_ABI,
            check: persistent,
        },
        Clause {
            name: "grants.persistent-by-both",
            rule: "Grants are persistent only if both ends say so (6.1).",
            abis: ONE_ABI,
            check: persistent_by_both,
        },
        Clause {
            name: "grants.no-neighbours",
            rule: "A page that is lent holds the data of its request and zeroes (8.2, XSA-403).",
            abis: ONE_ABI,
            check: no_neighbours,
        },
        Clause {
            name: "grants.untrusted",
            rule: "A backend that the toolstack does not trust gets no persistent grants (4.4, 8.2).",
            abis: ONE_ABI,
            check: untrusted,
        },
    ]
}

/// For the library, of which something is left when it has closed.
pub(super) fn library_clauses<W: BackWorld>() -> Vec<Clause<Backend<W>>> {
    vec![Clause {
        name: "grants.nothing-left",
        rule: "A frontend that has closed has taken back all pages and closed all ports (5.3).",
        abis: ONE_ABI,
        check: nothing_left,
    }]
}

fn grefs(taken: &Taken) -> Vec<GrantRef> {
    taken.segments.iter().map(|segment| segment.gref).collect()
}

fn access<W: BackWorld>(backend: &mut Backend<W>) -> Result<()> {
    for (work, lent) in
        [(Work::write(0, 2 * PAGE), Access::Read), (Work::read(0, 2 * PAGE), Access::ReadWrite)]
    {
        let mut connection = backend.connect(Job::new([work]))?;
        let taken = connection.take()?;
        grefs(&taken).into_iter().try_for_each(|gref| connection.must_be_lent(gref, Some(lent)))?;
        connection.serve(&taken)?;
        backend.finish(connection)?.ok()?;
    }
    Ok(())
}

fn revoked_when_answered<W: BackWorld>(backend: &mut Backend<W>) -> Result<()> {
    for work in [Work::write(0, 4 * PAGE), Work::read(0, 4 * PAGE)] {
        let mut connection = backend.connect(Job::new([work]))?;
        let taken = connection.take()?;
        connection.serve(&taken)?;
        // It closes when its work is done.
        backend.wait_frontend(&[State::Closing, State::Closed])?;
        grefs(&taken).into_iter().try_for_each(|gref| connection.must_be_lent(gref, None))?;
        backend.finish(connection)?.ok()?;
    }
    Ok(())
}

fn descriptors_read_only<W: BackWorld>(backend: &mut Backend<W>) -> Result<()> {
    backend.offer(INDIRECT)?;
    let mut connection = backend.connect(Job::new([Work::read(0, 32 * PAGE)]))?;
    let taken = connection.take()?;
    must!(taken.descriptors.len() == 1, "{} descriptor pages", taken.descriptors.len());
    connection.must_be_lent(taken.descriptors[0], Some(Access::Read))?;
    connection.serve(&taken)?;
    backend.finish(connection)?.ok().map(drop)
}

fn persistent<W: BackWorld>(backend: &mut Backend<W>) -> Result<()> {
    backend.offer(&[("feature-persistent", "1")])?;
    backend.offer(INDIRECT)?;
    let job = Job::new(Work::writes(3, 16 * PAGE)).depth(1).persistent();
    let mut connection = backend.connect(job)?;
    must!(connection.keys["feature-persistent"] == "1", "feature-persistent is {:?}", connection.keys);
    let mut kept: Vec<Mapping<W>> = Vec::new();
    let mut first = Vec::new();
    for round in 0..3 {
        let taken = connection.take()?;
        let mut lent = [grefs(&taken), taken.descriptors.clone()].concat();
        // In which order does not matter.
        lent.sort_unstable();
        for gref in &lent {
            kept.push(connection.map(*gref, Access::ReadWrite)?);
        }
        if round == 0 {
            first = lent;
        } else {
            must!(lent == first, "round {round} lends {lent:?}, not again {first:?}");
        }
        connection.serve(&taken)?;
    }
    backend.wait_frontend(&[State::Closing, State::Closed])?;
    kept.clear();
    backend.finish(connection)?.ok().map(drop)
}

fn persistent_by_both<W: BackWorld>(backend: &mut Backend<W>) -> Result<()> {
    for (offered, wanted) in [(false, true), (true, false)] {
        backend.offer(&[("feature-persistent", if offered { "1" } else { "0" })])?;
        let job = Job::new([Work::write(0, PAGE)]);
        let mut connection = backend.connect(if wanted { job.persistent() } else { job })?;
        let taken = connection.take()?;
        let gref = taken.segments[0].gref;
        connection.must_be_lent(gref, Some(Access::Read))?;
        connection.serve(&taken)?;
        backend.wait_frontend(&[State::Closing, State::Closed])?;
        connection.must_be_lent(gref, None)?;
        backend.finish(connection)?.ok()?;
    }
    Ok(())
}

fn no_neighbours<W: BackWorld>(backend: &mut Backend<W>) -> Result<()> {
    let mut connection = backend.connect(Job::new([Work::write(9, 1024)]))?;
    let taken = connection.take()?;
    let page = connection.page(taken.segments[0].gref)?;
    must!(page[..1024] == written(9, 1024), "not what was to be written");
    must!(page[1024..].iter().all(|byte| *byte == 0), "the rest of the page is not zero");
    connection.serve(&taken)?;
    backend.finish(connection)?.ok().map(drop)
}

fn untrusted<W: BackWorld>(backend: &mut Backend<W>) -> Result<()> {
    backend.write_frontend("trusted", "0")?;
    backend.offer(&[("feature-persistent", "1")])?;
    let mut connection = backend.connect(Job::new([Work::write(0, PAGE)]).persistent())?;
    let told = connection.keys.get("feature-persistent").map(String::as_str);
    must!(told != Some("1"), "feature-persistent = 1");
    let taken = connection.take()?;
    connection.must_be_lent(taken.segments[0].gref, Some(Access::Read))?;
    connection.serve(&taken)?;
    backend.finish(connection)?.ok().map(drop)
}

fn nothing_left<W: BackWorld>(backend: &mut Backend<W>) -> Result<()> {
    backend.offer(&[
        ("feature-persistent", "1"),
        ("max-ring-page-order", "2"),
        ("multi-queue-max-queues", "2"),
    ])?;
    backend.offer(INDIRECT)?;
    let range = Range { sector: 0, bytes: 40 * PAGE, offset: 0 };
    let job = Job::new([Work::Read(range), Work::Write(range)]).persistent().ring_pages(4).queues(2);
    let connection = backend.connect(job)?;
    // What the library had is looked at while its process lives.
    let outcome = backend.finish(connection)?.ok()?;
    let mut leaks = backend.simulated()?.broker().machine().leaks();
    let gone = wait_until("all to be given back", std::time::Duration::from_millis(500), || {
        leaks = backend.simulated()?.broker().machine().leaks();
        Ok((leaks.granted == 0 && leaks.ports == 0).then_some(()))
    });
    must!(gone.is_ok(), "left: {leaks:?}");
    drop(outcome);
    Ok(())
}
