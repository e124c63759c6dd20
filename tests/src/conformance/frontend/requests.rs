//! Operations, byte by byte (docs/PROTOCOL.md sections 2.2, 2.4 and 2.5).

use anyhow::{Context as _, Result};
use blkif_proto::{Status, xenbus::State};
use ringbuf::Field;
use xen_platform::BackWorld;

use super::{OPERATIONS, PAGE};
use crate::{
    conformance::{
        Clause, EVERY_ABI, ONE_ABI,
        rig::backend::{
            Backend, Connection, Job, Range, Taken, Work, on_disk,
            wire::{Expected, op},
            written,
        },
    },
    must,
};

/// For frontends of any kind.
pub(super) fn clauses<W: BackWorld>() -> Vec<Clause<Backend<W>>> {
    vec![
        Clause {
            name: "requests.read-bytes",
            rule: "A read is operation 0 with its number of segments, id, first sector and segments where the ABI has them, and zeroes elsewhere (2.2).",
            abis: EVERY_ABI,
            check: read_bytes,
        },
        Clause {
            name: "requests.write-bytes",
            rule: "A write is operation 1, laid out as a read; its data is in the pages when it is published (2.2).",
            abis: EVERY_ABI,
            check: write_bytes,
        },
        Clause {
            name: "requests.flush-bytes",
            rule: "A flush is operation 3 without segments (0.17, 2.2).",
            abis: EVERY_ABI,
            check: flush_bytes,
        },
        Clause {
            name: "requests.flush-by-barrier",
            rule: "Where only barriers are offered, an empty write barrier (operation 2) flushes (2.5).",
            abis: EVERY_ABI,
            check: flush_by_barrier,
        },
        Clause {
            name: "requests.no-flush-unless-offered",
            rule: "Where neither flush nor barrier is offered, neither is sent (2.5).",
            abis: ONE_ABI,
            check: no_flush_unless_offered,
        },
        Clause {
            name: "requests.read-only-disk",
            rule: "A write to a read-only disk fails without a request (2.4).",
            abis: ONE_ABI,
            check: read_only_disk,
        },
        Clause {
            name: "requests.units-of-512",
            rule: "Sectors are 512 bytes whatever sector-size is, and requests begin and end at its multiples (0.12, 2.3).",
            abis: ONE_ABI,
            check: units_of_512,
        },
        Clause {
            name: "requests.ids-of-their-own",
            rule: "An id that was answered is not used again: a late or repeated answer names nothing (1.5, 8.3).",
            abis: ONE_ABI,
            check: ids_of_their_own,
        },
    ]
}

/// For the library, which can be told to do anything.
pub(super) fn library_clauses<W: BackWorld>() -> Vec<Clause<Backend<W>>> {
    vec![
        Clause {
            name: "requests.barrier-bytes",
            rule: "A write barrier is operation 2, laid out as a write (2.2).",
            abis: EVERY_ABI,
            check: barrier_bytes,
        },
        Clause {
            name: "requests.discard-bytes",
            rule: "A discard is operation 5 with its flag (bit 0: secure), first sector and number of sectors (2.2).",
            abis: EVERY_ABI,
            check: discard_bytes,
        },
        Clause {
            name: "requests.sectors-of-a-page",
            rule: "Segments tell first and last sector of their page, 0 to 7, the first not after the last (0.13).",
            abis: EVERY_ABI,
            check: sectors_of_a_page,
        },
        Clause {
            name: "requests.only-what-is-offered",
            rule: "An operation that was not offered is refused before anything is in the ring (2.5, 8.1 quirk 22).",
            abis: ONE_ABI,
            check: only_what_is_offered,
        },
        Clause {
            name: "requests.secure-discard-unless-offered",
            rule: "A secure discard is not sent to a backend that only discards (2.4).",
            abis: ONE_ABI,
            check: secure_discard_unless_offered,
        },
        Clause {
            name: "requests.read-only-refuses-all",
            rule: "A read-only disk gets reads, and nothing that changes it (2.4).",
            abis: ONE_ABI,
            check: read_only_refuses_all,
        },
        Clause {
            name: "requests.within-the-disk",
            rule: "What leaves the disk, be it by overflow, is refused before anything is in the ring (2.4).",
            abis: ONE_ABI,
            check: within_the_disk,
        },
        Clause {
            name: "requests.misaligned-refused",
            rule: "What is no multiple of sector-size is refused before anything is in the ring (2.3).",
            abis: ONE_ABI,
            check: misaligned_refused,
        },
    ]
}

fn read_bytes<W: BackWorld>(backend: &mut Backend<W>) -> Result<()> {
    let abi = backend.abi;
    let mut connection = backend.connect(Job::new([Work::read(24, 3 * PAGE)]))?;
    let taken = connection.take()?;
    must!(taken.segments.len() == 3, "{} segments for 3 pages", taken.segments.len());
    let whole = taken.segments.iter().all(|segment| (segment.first_sect, segment.last_sect) == (0, 7));
    must!(whole, "not whole pages: {:?}", taken.segments);
    Expected::new(abi, op::READ, 3, taken.id, 24)
        .handle(backend.handle())
        .segments(&taken.segments)
        .must_be(&taken.entries[0])?;
    connection.serve(&taken)?;
    let outcome = backend.finish(connection)?.ok()?;
    must!(outcome.has_read(&on_disk(24, 12288)), "not what is on the disk");
    Ok(())
}

fn write_bytes<W: BackWorld>(backend: &mut Backend<W>) -> Result<()> {
    let abi = backend.abi;
    let mut connection = backend.connect(Job::new([Work::write(16, 11 * PAGE)]))?;
    let taken = connection.take()?;
    Expected::new(abi, op::WRITE, 11, taken.id, 16)
        .handle(backend.handle())
        .segments(&taken.segments)
        .must_be(&taken.entries[0])?;
    let mut data = Vec::new();
    for segment in &taken.segments {
        data.extend(connection.data(*segment)?);
    }
    must!(data == written(16, 11 * 4096), "not what was to be written");
    connection.serve(&taken)?;
    backend.finish(connection)?.ok().map(drop)
}

fn flush_bytes<W: BackWorld>(backend: &mut Backend<W>) -> Result<()> {
    backend.offer(OPERATIONS)?;
    let abi = backend.abi;
    let mut connection = backend.connect(Job::new([Work::Flush]))?;
    let taken = connection.take()?;
    Expected::new(abi, op::FLUSH, 0, taken.id, 0).must_be(&taken.entries[0])?;
    connection.serve(&taken)?;
    backend.finish(connection)?.ok().map(drop)
}

fn flush_by_barrier<W: BackWorld>(backend: &mut Backend<W>) -> Result<()> {
    backend.offer(&[("feature-barrier", "1")])?;
    let abi = backend.abi;
    let mut connection = backend.connect(Job::new([Work::Barrier(None)]))?;
    let taken = connection.take()?;
    Expected::new(abi, op::WRITE_BARRIER, 0, taken.id, 0).must_be(&taken.entries[0])?;
    connection.serve(&taken)?;
    backend.finish(connection)?.ok().map(drop)
}

fn no_flush_unless_offered<W: BackWorld>(backend: &mut Backend<W>) -> Result<()> {
    let mut connection = backend.connect(Job::new([Work::write(0, PAGE)]))?;
    let taken = connection.take()?;
    must!(taken.op == op::WRITE, "operation {}", taken.op);
    connection.serve(&taken)?;
    only_so_many(backend, connection, 1)?.ok().map(drop)
}

/// Lets the frontend close, and errors unless it published `requests` entries in all.
fn only_so_many<W: BackWorld>(
    backend: &mut Backend<W>,
    mut connection: Connection<W>,
    requests: u32,
) -> Result<crate::conformance::rig::backend::Outcome> {
    backend.release();
    backend.wait_frontend(&[State::Closing, State::Closed])?;
    let published = connection.queue().index(Field::ReqProd);
    must!(published == requests, "{published} entries were published, not {requests}");
    backend.finish(connection)
}

fn read_only_disk<W: BackWorld>(backend: &mut Backend<W>) -> Result<()> {
    backend.offer(OPERATIONS)?;
    backend.disk_key("info", "4");
    let connection = backend.connect(Job::new([Work::write(0, PAGE)]))?;
    only_so_many(backend, connection, 0)?.fails_with("read-only")
}

fn units_of_512<W: BackWorld>(backend: &mut Backend<W>) -> Result<()> {
    backend.disk_key("sector-size", "4096");
    let mut connection = backend.connect(Job::new([Work::read(40, 2 * PAGE)]))?;
    let taken = connection.take()?;
    must!((taken.sector, taken.sectors()) == (40, 16), "{} sectors at {}", taken.sectors(), taken.sector);
    connection.serve(&taken)?;
    let outcome = backend.finish(connection)?.ok()?;
    must!(outcome.has_read(&on_disk(40, 8192)), "not what is on the disk");
    Ok(())
}

fn ids_of_their_own<W: BackWorld>(backend: &mut Backend<W>) -> Result<()> {
    let mut connection = backend.connect(Job::new(Work::reads(100, PAGE)).depth(1))?;
    let mut seen = std::collections::BTreeSet::new();
    for taken in connection_serves(&mut connection, 100)? {
        must!(seen.insert(taken.id), "id {:#x} came twice", taken.id);
    }
    backend.finish(connection)?.ok().map(drop)
}

fn connection_serves<W: BackWorld>(connection: &mut Connection<W>, count: usize) -> Result<Vec<Taken>> {
    let serve = |_| {
        let taken = connection.take()?;
        connection.serve(&taken)?;
        Ok(taken)
    };
    (0..count).map(serve).collect()
}

fn barrier_bytes<W: BackWorld>(backend: &mut Backend<W>) -> Result<()> {
    backend.offer(OPERATIONS)?;
    let abi = backend.abi;
    let range = Range { sector: 8, bytes: 2 * PAGE, offset: 0 };
    let mut connection = backend.connect(Job::new([Work::Barrier(Some(range))]))?;
    let taken = connection.take()?;
    Expected::new(abi, op::WRITE_BARRIER, 2, taken.id, 8)
        .handle(backend.handle())
        .segments(&taken.segments)
        .must_be(&taken.entries[0])?;
    must!(connection.data(taken.segments[0])? == written(8, 4096), "not what was to be written");
    connection.serve(&taken)?;
    backend.finish(connection)?.ok().map(drop)
}

fn discard_bytes<W: BackWorld>(backend: &mut Backend<W>) -> Result<()> {
    backend.offer(OPERATIONS)?;
    let abi = backend.abi;
    // Nobody has to keep to the granularity (0.20).
    let work = [Work::Discard(8, 4096, false), Work::Discard(3, 1, true)];
    let mut connection = backend.connect(Job::new(work).depth(1))?;
    for (flag, sector, sectors) in [(0, 8, 4096), (1, 3, 1)] {
        let taken = connection.take()?;
        let expected = Expected::new(abi, op::DISCARD, flag, taken.id, sector).nr_sectors(sectors);
        expected.must_be(&taken.entries[0])?;
        connection.answer(&taken, Status::OKAY)?;
    }
    backend.finish(connection)?.ok().map(drop)
}

fn sectors_of_a_page<W: BackWorld>(backend: &mut Backend<W>) -> Result<()> {
    let cases: &[(u32, u32, &[(u8, u8)])] = &[
        (0, 512, &[(0, 0)]),
        (512, 512, &[(1, 1)]),
        (3584, 512, &[(7, 7)]),
        (1024, 3072, &[(2, 7)]),
        (3584, 1024, &[(7, 7), (0, 0)]),
        (1024, 8192, &[(2, 7), (0, 7), (0, 1)]),
    ];
    let work = cases.iter().flat_map(|(offset, bytes, _)| {
        let range = Range { sector: 5, bytes: *bytes, offset: *offset };
        [Work::Write(range), Work::Read(range)]
    });
    let mut connection = backend.connect(Job::new(work.collect::<Vec<_>>()).depth(1))?;
    for (offset, bytes, sectors) in cases {
        for expected in [op::WRITE, op::READ] {
            let taken = connection.take()?;
            let told: Vec<_> = taken.segments.iter().map(|s| (s.first_sect, s.last_sect)).collect();
            must!(taken.op == expected, "operation {}, not {expected}", taken.op);
            must!(told == *sectors, "{bytes} bytes at {offset} of a buffer are {told:?}, not {sectors:?}");
            connection.serve(&taken)?;
        }
    }
    let outcome = backend.finish(connection)?.ok()?;
    let expected: Vec<u8> = cases.iter().flat_map(|(_, bytes, _)| written(5, *bytes as usize)).collect();
    must!(outcome.has_read(&expected), "what was written is not what was read");
    Ok(())
}

/// Gives the frontend work that it must refuse with a message about `word`, and one read that it must send.
fn refused<W: BackWorld>(backend: &mut Backend<W>, word: &str, work: &[Work]) -> Result<()> {
    let all = [work, &[Work::read(0, PAGE)]].concat();
    let mut connection = backend.connect(Job::new(all).depth(1))?;
    let taken = connection.take()?;
    let (op, sector, segments) = (taken.op, taken.sector, &taken.segments);
    must!(op == op::READ && sector == 0, "sent: operation {op} at sector {sector} with {segments:?}");
    connection.serve(&taken)?;
    let outcome = only_so_many(backend, connection, 1)?;
    for (number, what) in work.iter().enumerate() {
        outcome.refused(number, word).with_context(|| format!("{what:?}"))?;
    }
    must!(outcome.result(work.len())?.is_ok(), "the read failed");
    Ok(())
}

fn only_what_is_offered<W: BackWorld>(backend: &mut Backend<W>) -> Result<()> {
    let range = Range { sector: 0, bytes: PAGE, offset: 0 };
    let work = [
        Work::Flush,
        Work::Barrier(None),
        Work::Barrier(Some(range)),
        Work::Discard(0, 8, false),
        Work::Discard(0, 8, true),
    ];
    refused(backend, "does not offer", &work)
}

fn secure_discard_unless_offered<W: BackWorld>(backend: &mut Backend<W>) -> Result<()> {
    backend.offer(&[("feature-discard", "1")])?;
    refused(backend, "does not offer", &[Work::Discard(0, 8, true)])
}

fn read_only_refuses_all<W: BackWorld>(backend: &mut Backend<W>) -> Result<()> {
    backend.offer(OPERATIONS)?;
    backend.disk_key("info", "4");
    let range = Range { sector: 0, bytes: PAGE, offset: 0 };
    let work = [Work::Write(range), Work::Barrier(Some(range)), Work::Discard(0, 8, false)];
    refused(backend, "read-only", &work)
}

fn within_the_disk<W: BackWorld>(backend: &mut Backend<W>) -> Result<()> {
    backend.offer(OPERATIONS)?;
    let work = [
        Work::read(8192, PAGE),
        Work::write(8191, PAGE),
        Work::read(u64::MAX - 7, PAGE),
        Work::read(u64::MAX >> 9, PAGE),
        Work::Discard(8000, 193, false),
        Work::Discard(8, u64::MAX, false),
        Work::Discard(u64::MAX, 1, false),
    ];
    refused(backend, "past the end", &work)
}

fn misaligned_refused<W: BackWorld>(backend: &mut Backend<W>) -> Result<()> {
    backend.disk_key("sector-size", "4096");
    let work =
        [Work::read(1, PAGE), Work::write(8, 512), Work::Read(Range { sector: 8, bytes: PAGE, offset: 512 })];
    refused(backend, "not a multiple of 4096", &work)
}
