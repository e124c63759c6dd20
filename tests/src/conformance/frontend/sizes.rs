//! Large requests: segment blocks, descriptor pages, and how data is cut (docs/PROTOCOL.md sections 2.2, 2.6 and 3).

use std::time::Duration;

use anyhow::{Context as _, Result};
use blkfront::SegmentChoice;
use blkif_proto::{Abi, Status};
use ringbuf::Field;
use xen_platform::BackWorld;

use super::{BLOCKS, INDIRECT, OPERATIONS, PAGE};
use crate::{
    conformance::{
        Clause, EVERY_ABI, ONE_ABI,
        rig::backend::{
            Backend, Connection, Job, Range, Taken, Work, on_disk,
            wire::{Expected, block, op, segment_bytes},
            written,
        },
    },
    must,
};

/// For frontends of any kind.
pub(super) fn clauses<W: BackWorld>() -> Vec<Clause<Backend<W>>> {
    vec![
        Clause {
            name: "sizes.original",
            rule: "Without an extension a request has at most 11 segments; larger work is cut, and the pieces cover it once (2.1).",
            abis: EVERY_ABI,
            check: original,
        },
        Clause {
            name: "sizes.indirect-bytes",
            rule: "An indirect request is operation 6 with the inner operation, the number of segments and one reference for 512 of them; the descriptor pages hold the segments (2.2).",
            abis: EVERY_ABI,
            check: indirect_bytes,
        },
        Clause {
            name: "sizes.indirect-inner-or-6",
            rule: "An answer to an indirect request names the inner operation; 6 is accepted too (0.1, 8.1 quirk 2).",
            abis: EVERY_ABI,
            check: indirect_inner_or_6,
        },
        Clause {
            name: "sizes.indirect-lesser",
            rule: "An indirect request has at most feature-max-indirect-segments segments (2.6).",
            abis: ONE_ABI,
            check: indirect_lesser,
        },
        Clause {
            name: "sizes.indirect-of-11-is-none",
            rule: "A feature-max-indirect-segments of 11 or less means none (2.6).",
            abis: ONE_ABI,
            check: indirect_of_11_is_none,
        },
        Clause {
            name: "sizes.small-is-direct",
            rule: "Up to 11 segments go in the entry itself also where indirect requests are offered (2.6).",
            abis: ONE_ABI,
            check: small_is_direct,
        },
        Clause {
            name: "sizes.blocks-bytes",
            rule: "Segments beyond the eleventh lie in the next entries, 14 in each, from byte 0 on (3.2).",
            abis: EVERY_ABI,
            check: blocks_bytes,
        },
        Clause {
            name: "sizes.blocks-never-with-indirect",
            rule: "A connection with segment blocks has no indirect requests (3.1).",
            abis: ONE_ABI,
            check: blocks_never_with_indirect,
        },
        Clause {
            name: "sizes.blocks-24-on-x86_32",
            rule: "On x86_32-abi a request with blocks has at most 24 segments, and says so (3.3).",
            abis: &[Abi::X86_32],
            check: blocks_24_on_x86_32,
        },
        Clause {
            name: "sizes.max-request-size",
            rule: "A request is no larger than the backend's max-request-size (3.1).",
            abis: ONE_ABI,
            check: max_request_size,
        },
        Clause {
            name: "sizes.max-requests",
            rule: "No more requests are under way than the backend's max-requests (3.1, 3.4).",
            abis: ONE_ABI,
            check: max_requests,
        },
    ]
}

/// For the library, which can be told to do anything.
pub(super) fn library_clauses<W: BackWorld>() -> Vec<Clause<Backend<W>>> {
    vec![
        Clause {
            name: "sizes.blocks-stride",
            rule: "The answer is in the first of the request's entries and the rest is garbage, also where the ring ends in between (3.2).",
            abis: EVERY_ABI,
            check: blocks_stride,
        },
        Clause {
            name: "sizes.whole-work",
            rule: "Work that was cut ends when its last piece is answered, and fails if one of them does (2.4).",
            abis: ONE_ABI,
            check: whole_work,
        },
        Clause {
            name: "sizes.no-indirect-barrier",
            rule: "Only reads and writes are indirect: a large barrier is cut into direct ones (2.4).",
            abis: ONE_ABI,
            check: no_indirect_barrier,
        },
    ]
}

/// Errors unless the requests cover `sectors` sectors from `sector` on, each once and in order.
fn cover(taken: &[Taken], mut sector: u64, sectors: u64) -> Result<()> {
    let end = sector + sectors;
    for request in taken {
        must!(request.sector == sector, "a piece at sector {}, not {sector}", request.sector);
        sector += request.sectors();
    }
    must!(sector == end, "the pieces end at sector {sector}, not {end}");
    Ok(())
}

/// Takes and serves requests until they have moved `sectors` sectors.
fn serve_sectors<W: BackWorld>(connection: &mut Connection<W>, sectors: u64) -> Result<Vec<Taken>> {
    let (mut all, mut moved) = (Vec::new(), 0);
    while moved < sectors {
        let taken = connection.take()?;
        connection.serve(&taken)?;
        moved += taken.sectors();
        all.push(taken);
    }
    Ok(all)
}

fn original<W: BackWorld>(backend: &mut Backend<W>) -> Result<()> {
    let mut connection = backend.connect(Job::new([Work::read(8, 64 * PAGE)]))?;
    let taken = serve_sectors(&mut connection, 512)?;
    cover(&taken, 8, 512)?;
    let worst = taken.iter().map(|taken| taken.segments.len()).max();
    must!(worst <= Some(11), "a request of {worst:?} segments");
    must!(taken.iter().all(|taken| taken.op == op::READ && !taken.indirect), "not plain reads");
    let outcome = backend.finish(connection)?.ok()?;
    must!(outcome.has_read(&on_disk(8, 64 * 4096)), "not what is on the disk");
    Ok(())
}

fn indirect_bytes<W: BackWorld>(backend: &mut Backend<W>) -> Result<()> {
    backend.offer(INDIRECT)?;
    let abi = backend.abi;
    let job = Job::new([Work::write(16, 600 * PAGE)]).max_segments(600);
    let mut connection = backend.connect(job)?;
    let taken = connection.take()?;
    must!(taken.descriptors.len() == 2, "{} descriptor pages for 600 segments", taken.descriptors.len());
    let expected = Expected::new(abi, op::INDIRECT, op::WRITE, taken.id, 16)
        .handle(backend.handle())
        .indirect(600, &taken.descriptors);
    expected.must_be(&taken.entries[0])?;
    let mut bytes = connection.page(taken.descriptors[0])?;
    bytes.extend(connection.page(taken.descriptors[1])?);
    let expected: Vec<u8> = taken.segments.iter().flat_map(segment_bytes).collect();
    must!(bytes[..4800] == expected, "padding in the descriptors is not zero");
    must!(taken.sectors() == 4800, "{} sectors", taken.sectors());
    let last = taken.segments.last().context("no segment")?;
    must!(connection.data(*last)? == written(16 + 599 * 8, 4096), "the last page is another's");
    connection.answer(&taken, Status::OKAY)?;
    backend.finish(connection)?.ok().map(drop)
}

fn indirect_inner_or_6<W: BackWorld>(backend: &mut Backend<W>) -> Result<()> {
    backend.offer(INDIRECT)?;
    let mut connection = backend.connect(Job::new(Work::reads(2, 16 * PAGE)))?;
    for answer in [op::READ, op::INDIRECT] {
        let taken = connection.take()?;
        must!(taken.indirect, "16 segments, and not indirect");
        connection.perform(&taken)?;
        let response = taken.answer(Status::OKAY);
        connection.reply(&taken, blkif_proto::Response { op: blkif_proto::Opcode(answer), ..response })?;
    }
    let outcome = backend.finish(connection)?.ok()?;
    must!(outcome.has_read(&on_disk(0, 2 * 16 * 4096)), "not what is on the disk");
    Ok(())
}

fn indirect_lesser<W: BackWorld>(backend: &mut Backend<W>) -> Result<()> {
    backend.offer(&[("feature-max-indirect-segments", "16")])?;
    let mut connection = backend.connect(Job::new([Work::read(0, 100 * PAGE)]))?;
    let taken = serve_sectors(&mut connection, 800)?;
    cover(&taken, 0, 800)?;
    let worst = taken.iter().map(|taken| taken.segments.len()).max();
    must!(worst > Some(11) && worst <= Some(16), "the largest request has {worst:?} segments");
    backend.finish(connection)?.ok().map(drop)
}

fn indirect_of_11_is_none<W: BackWorld>(backend: &mut Backend<W>) -> Result<()> {
    for few in ["11", "5", "1"] {
        backend.offer(&[("feature-max-indirect-segments", few)])?;
        let mut connection = backend.connect(Job::new([Work::read(0, 20 * PAGE)]))?;
        let taken = serve_sectors(&mut connection, 160)?;
        must!(
            taken.iter().all(|taken| !taken.indirect),
            "an indirect request, where {few} segments are offered"
        );
        must!(taken.len() == 2, "{} requests for 20 pages, where {few} segments are offered", taken.len());
        backend.finish(connection)?.ok()?;
    }
    Ok(())
}

fn small_is_direct<W: BackWorld>(backend: &mut Backend<W>) -> Result<()> {
    backend.offer(INDIRECT)?;
    let mut connection = backend.connect(Job::new([Work::read(0, 11 * PAGE)]))?;
    let taken = connection.take()?;
    must!(!taken.indirect && taken.segments.len() == 11, "11 pages go as {taken:?}");
    connection.serve(&taken)?;
    backend.finish(connection)?.ok().map(drop)
}

fn blocks_bytes<W: BackWorld>(backend: &mut Backend<W>) -> Result<()> {
    backend.offer(BLOCKS)?;
    let abi = backend.abi;
    let pages = if abi == Abi::X86_32 { 24 } else { 40 };
    let mut connection = backend.connect(Job::new([Work::write(8, pages * PAGE)]))?;
    let taken = connection.take()?;
    let segments = &taken.segments;
    must!(segments.len() == pages as usize, "{} segments for {pages} pages", segments.len());
    let head = Expected::new(abi, op::WRITE, u8::try_from(pages)?, taken.id, 8).segments(segments);
    head.must_be(&taken.entries[0])?;
    for (n, expected) in segments[11..].chunks(14).map(block).enumerate() {
        let entry = taken.entries[n + 1];
        must!(entry == expected, "block {n} is\n  {entry:02x?}, not\n  {expected:02x?}");
    }
    connection.serve(&taken)?;
    let last = 8 + u64::from(pages - 1) * 8;
    let stored = connection.disk.get(&last).context("the last page was not written")?;
    must!(*stored == written(last, 512), "the last page is another's");
    backend.finish(connection)?.ok().map(drop)
}

fn blocks_never_with_indirect<W: BackWorld>(backend: &mut Backend<W>) -> Result<()> {
    backend.offer(BLOCKS)?;
    backend.offer(INDIRECT)?;
    let mut connection = backend.connect(Job::new([Work::read(0, 300 * PAGE)]).max_segments(300))?;
    let taken = serve_sectors(&mut connection, 2400)?;
    must!(taken.iter().all(|taken| !taken.indirect), "an indirect request");
    must!(taken.iter().any(|taken| taken.entries.len() > 1), "no request with blocks");
    backend.finish(connection)?.ok().map(drop)
}

fn blocks_24_on_x86_32<W: BackWorld>(backend: &mut Backend<W>) -> Result<()> {
    backend.offer(BLOCKS)?;
    let mut connection = backend.connect(Job::new([Work::read(0, 100 * PAGE)]))?;
    let told: u32 = connection.keys["max-request-segments"].parse()?;
    must!(told <= 24, "max-request-segments = {told}");
    let taken = serve_sectors(&mut connection, 800)?;
    cover(&taken, 0, 800)?;
    let worst = taken.iter().map(|taken| taken.segments.len()).max();
    must!(worst <= Some(24), "a request of {worst:?} segments");
    backend.finish(connection)?.ok().map(drop)
}

fn max_request_size<W: BackWorld>(backend: &mut Backend<W>) -> Result<()> {
    let offer = [("max-request-segments", "64"), ("max-request-size", "65536"), ("max-requests", "32")];
    backend.offer(&offer)?;
    let mut connection = backend.connect(Job::new([Work::read(0, 100 * PAGE)]))?;
    let taken = serve_sectors(&mut connection, 800)?;
    cover(&taken, 0, 800)?;
    let worst = taken.iter().map(Taken::sectors).max();
    must!(worst <= Some(128), "a request of {worst:?} sectors, where 65536 bytes are allowed");
    backend.finish(connection)?.ok().map(drop)
}

fn max_requests<W: BackWorld>(backend: &mut Backend<W>) -> Result<()> {
    let offer = [("max-request-segments", "16"), ("max-request-size", "65536"), ("max-requests", "4")];
    backend.offer(&offer)?;
    let mut connection = backend.connect(Job::new(Work::reads(20, PAGE)))?;
    let first = connection.take_all(4)?;
    connection.silence(Duration::from_millis(20))?;
    connection.serve(&first[0])?;
    let fifth = connection.take()?;
    connection.silence(Duration::from_millis(20))?;
    first[1..].iter().chain([&fifth]).try_for_each(|taken| connection.serve(taken))?;
    backend.finish(connection)?.ok().map(drop)
}

fn blocks_stride<W: BackWorld>(backend: &mut Backend<W>) -> Result<()> {
    backend.offer(BLOCKS)?;
    // 1, 2, 2, 1 entries, again and again: 32 slots are no multiple of 6.
    let work: Vec<Work> = (0..120)
        .map(|n: u64| Work::read(n * 8, PAGE * [3, 12, 24, 1][usize::try_from(n % 4).unwrap_or(0)]))
        .collect();
    let mut connection = backend.connect(Job::new(work.clone()))?;
    let mut at = 0;
    for _ in 0..120 {
        let taken = connection.take()?;
        connection.perform(&taken)?;
        connection.respond(&taken, taken.answer(Status::OKAY))?;
        for slot in 1..taken.stride() {
            connection.queue().scribble(at + slot, &[0xA5; 108]);
        }
        at += taken.stride();
        connection.queue().publish()?;
    }
    must!(connection.queue().index(Field::RspProd) == at, "the rig lost count");
    let outcome = backend.finish(connection)?.ok()?;
    let expected: Vec<u8> = work
        .iter()
        .flat_map(|work| match work {
            Work::Read(range) => on_disk(range.sector, range.bytes as usize),
            _ => Vec::new(),
        })
        .collect();
    must!(outcome.has_read(&expected), "not what is on the disk");
    Ok(())
}

fn whole_work<W: BackWorld>(backend: &mut Backend<W>) -> Result<()> {
    let work = [Work::read(0, 30 * PAGE), Work::read(240, 30 * PAGE)];
    let mut connection = backend.connect(Job::new(work))?;
    let taken = connection.take_all(6)?;
    let (first, second): (Vec<_>, Vec<_>) = taken.into_iter().partition(|piece| piece.sector < 240);
    must!((first.len(), second.len()) == (3, 3), "{} and {} pieces", first.len(), second.len());
    // The second work is done while the first lacks one piece.
    for piece in first[1..].iter().chain(&second) {
        let status = if piece.id == second[1].id { Status::ERROR } else { Status::OKAY };
        connection.answer(piece, status)?;
    }
    backend.wait_note("done 1")?;
    std::thread::sleep(Duration::from_millis(20));
    must!(!backend.has_noted("done 0")?, "done before its last piece was answered");
    connection.answer(&first[0], Status::OKAY)?;
    let outcome = backend.finish(connection)?;
    must!(outcome.result(0)?.is_ok(), "all pieces went well, and the work failed");
    must!(outcome.result(1)?.is_err(), "a piece failed, and the work went well");
    Ok(())
}

fn no_indirect_barrier<W: BackWorld>(backend: &mut Backend<W>) -> Result<()> {
    backend.offer(INDIRECT)?;
    backend.offer(OPERATIONS)?;
    let range = Range { sector: 0, bytes: 30 * PAGE, offset: 0 };
    let job = Job::new([Work::Barrier(Some(range))]).segments(SegmentChoice::Indirect);
    let mut connection = backend.connect(job)?;
    let taken = serve_sectors(&mut connection, 240)?;
    cover(&taken, 0, 240)?;
    must!(taken.iter().all(|taken| taken.op == op::WRITE_BARRIER && !taken.indirect), "{taken:?}");
    backend.finish(connection)?.ok().map(drop)
}
