//! Requests that go on in further ring entries, FreeBSD's extension of 2010 (docs/PROTOCOL.md section 3).

use anyhow::{Context as _, Result};
use blkif_proto::{Abi, GrantRef, Opcode, Response, Segment, Status, segment_block};
use ringbuf::{Field, Index, RingMem as _};
use xen_platform::{Access, FrontWorld};

use crate::{
    conformance::{
        Clause, EVERY_ABI, ONE_ABI,
        rig::{Connection, Guest, Raw, TRACES, Wish, bytes, noise, whole},
    },
    must,
};

pub(super) fn clauses<W: FrontWorld>() -> Vec<Clause<Guest<W>>> {
    vec![
        Clause {
            name: "blocks.moves-data",
            rule: "A request of 12 to 255 segments (24 on x86_32-abi) goes on in entries of 14 segments (3.2).",
            abis: EVERY_ABI,
            check: moves_data,
        },
        Clause {
            name: "blocks.wraps",
            rule: "The entries of a request follow each other by index, also around the ring's end (3.2).",
            abis: EVERY_ABI,
            check: wraps,
        },
        Clause {
            name: "blocks.one-answer-for-all-entries",
            rule: "One response, in the first of as many entries as the request took, answers it (3.2).",
            abis: EVERY_ABI,
            check: one_answer,
        },
        Clause {
            name: "blocks.mixed-sizes",
            rule: "Requests of all sizes and kinds share the ring; each answer takes as many entries as its request (3.2).",
            abis: EVERY_ABI,
            check: mixed_sizes,
        },
        Clause {
            name: "blocks.fill-the-ring",
            rule: "The largest requests may fill the ring together (3.2, 3.4).",
            abis: EVERY_ABI,
            check: fill_the_ring,
        },
        Clause {
            name: "blocks.torn-closes",
            rule: "A request that is published without all of its entries breaks the ring (3.4).",
            abis: EVERY_ABI,
            check: torn_closes,
        },
        Clause {
            name: "blocks.refused-takes-its-entries",
            rule: "A request that is refused is still answered in as many entries as it took (3.4).",
            abis: EVERY_ABI,
            check: refused_takes_its_entries,
        },
        Clause {
            name: "blocks.too-many-segments",
            rule: "More segments than were agreed are an error, up to 255 (3.4).",
            abis: EVERY_ABI,
            check: too_many_segments,
        },
        Clause {
            name: "blocks.too-many-bytes",
            rule: "More bytes than max-request-size are an error (3.4).",
            abis: EVERY_ABI,
            check: too_many_bytes,
        },
        Clause {
            name: "blocks.max-requests",
            rule: "More requests than max-requests at once wait for their turn; none is lost (3.1, 3.4).",
            abis: ONE_ABI,
            check: max_requests,
        },
        Clause {
            name: "blocks.segments-are-checked",
            rule: "Every segment is checked, in whichever entry it is (0.13, 3.4).",
            abis: EVERY_ABI,
            check: segments_are_checked,
        },
        Clause {
            name: "blocks.discard-flag-is-no-count",
            rule: "The byte that counts segments is a discard's flags: a discard takes one entry (3.4).",
            abis: EVERY_ABI,
            check: discard_flag,
        },
        Clause {
            name: "blocks.unknown-operation-takes-one-entry",
            rule: "The byte that counts segments means nothing in an unknown operation: it takes one entry (3.4).",
            abis: EVERY_ABI,
            check: unknown_operation,
        },
        Clause {
            name: "blocks.flush-and-barrier",
            rule: "Flushes and barriers with data may have as many segments as writes (3.4).",
            abis: EVERY_ABI,
            check: flush_and_barrier,
        },
        Clause {
            name: "blocks.pages-let-go-before-answer",
            rule: "All pages of a request in blocks are unmapped before its answer (0.22).",
            abis: ONE_ABI,
            check: let_go_before_answer,
        },
    ]
}

/// The most segments that blocks carry on this guest's ABI.
fn most<W: FrontWorld>(guest: &Guest<W>) -> usize {
    if guest.abi == Abi::X86_32 { 24 } else { 255 }
}

/// Writes noise in one request, reads it in another and compares.
fn round_trip<W: FrontWorld>(connection: &mut Connection<W>, segments: usize) -> Result<()> {
    let data = noise(segments as u64, segments * 4096);
    let (pages, id) = (connection.lend(&data, Access::Read)?, connection.id());
    connection.okay(&Raw::write(id, TRACES, &whole(&pages)))?;
    connection.take_back(pages)?;
    let (pages, id) = (connection.pages(segments, 0xEE)?, connection.id());
    connection.okay(&Raw::read(id, TRACES, &whole(&pages)))?;
    must!(bytes(&pages) == data, "{segments} segments came back changed");
    connection.take_back(pages)
}

fn moves_data<W: FrontWorld>(guest: &mut Guest<W>) -> Result<()> {
    let most = most(guest);
    let mut connection = guest.connect(&Wish::blocks())?;
    let edges = [1, 10, 11, 12, 13, 23, 24, 25, 26, 39, 40, 53, 54, 123, 124, 137, 138, 249, 250, 254, 255];
    for segments in edges.into_iter().filter(|segments| *segments <= most) {
        round_trip(&mut connection, segments).with_context(|| format!("{segments} segments"))?;
    }
    Ok(())
}

fn wraps<W: FrontWorld>(guest: &mut Guest<W>) -> Result<()> {
    let segments = most(guest).min(38);
    let mut connection = guest.connect(&Wish::blocks())?;
    // Three entries a request, or two and one more request: never a divisor of 32, so every slot is once the first.
    for round in 0..33 {
        round_trip(&mut connection, segments).with_context(|| format!("round {round}"))?;
        connection.okay(&Raw::data(Opcode::FLUSH, round, 0, &[]))?;
    }
    Ok(())
}

fn one_answer<W: FrontWorld>(guest: &mut Guest<W>) -> Result<()> {
    let segments = most(guest).min(60);
    let mut connection = guest.connect(&Wish::blocks())?;
    let entries = segment_block::entries_for(segments);
    for n in 0..12 {
        let (pages, first) = (connection.pages(segments, 0)?, n * entries);
        let raw = Raw::read(n.into(), 0, &whole(&pages));
        connection.queue().send(&raw.entries(guest.abi))?;
        let queue = connection.queue();
        queue.wait_index(Field::RspProd, first + entries)?;
        let mut slot = [0; _];
        queue.ring.mem().read_slot(Index::new(first), &mut slot);
        let answer = Response::parse(&slot);
        must!(answer.id == u64::from(n) && answer.status == Status::OKAY, "{answer:?}");
        queue.ring.consume(entries)?;
    }
    Ok(())
}

fn mixed_sizes<W: FrontWorld>(guest: &mut Guest<W>) -> Result<()> {
    let most = most(guest);
    let mut connection = guest.connect(&Wish::blocks())?;
    for round in 0..20 {
        let pages = connection.pages(most.min(60), 0)?;
        let all = whole(&pages);
        let requests = [
            Raw::read(1, 0, &all),
            Raw::read(2, 0, &all[..1]),
            Raw::data(Opcode::FLUSH, 3, 0, &[]),
            Raw::write(4, TRACES, &all[..12]),
            Raw::discard(5, 4096, 8),
            Raw::data(Opcode::WRITE_BARRIER, 6, TRACES, &all[..20]),
            Raw::read(7, u64::MAX, &all),
            Raw::data(Opcode(99), 8, 0, &all[..11]),
            Raw::read(9, 0, &all[..24]),
        ];
        for answer in connection.batch(&requests)? {
            let wanted = match answer.id {
                7 => Status::ERROR,
                8 => Status::NOT_SUPPORTED,
                _ => Status::OKAY,
            };
            must!(answer.status == wanted, "round {round}: {answer:?}");
        }
        connection.take_back(pages)?;
    }
    Ok(())
}

fn fill_the_ring<W: FrontWorld>(guest: &mut Guest<W>) -> Result<()> {
    let most = most(guest);
    let mut connection = guest.connect(&Wish::blocks())?;
    let fit = u64::from(32 / segment_block::entries_for(most));
    for _ in 0..5 {
        let pages = connection.pages(most, 0)?;
        let requests: Vec<Raw> = (0..fit).map(|n| Raw::read(n, 0, &whole(&pages))).collect();
        connection.batch_okay(&requests)?;
        connection.take_back(pages)?;
    }
    connection.works()
}

fn torn_closes<W: FrontWorld>(guest: &mut Guest<W>) -> Result<()> {
    let mut connection = guest.connect(&Wish::blocks())?;
    connection.works()?;
    let answered = connection.queue().index(Field::RspProd);
    let pages = connection.pages(24, 0)?;
    let entries = Raw::read(1, 0, &whole(&pages)).entries(guest.abi);
    connection.queue().send(&entries[..1])?;
    guest.refused_for("queue 0")?;
    must!(connection.queue().index(Field::RspProd) == answered, "half a request was answered");
    guest.restart()?;
    guest.connect(&Wish::blocks())?.works()
}

fn refused_takes_its_entries<W: FrontWorld>(guest: &mut Guest<W>) -> Result<()> {
    let segments = most(guest).min(60);
    let mut connection = guest.connect(&Wish::blocks())?;
    let pages = connection.pages(segments, 0)?;
    for round in 0..30 {
        let mut bad = whole(&pages);
        match round % 3 {
            0 => bad[round % segments].last_sect = 8,
            1 => bad[round % segments].gref = GrantRef(u32::MAX),
            _ => bad[round % segments].first_sect = 9,
        }
        // The next answer is only found where it is looked for if this one took as many entries as its request.
        connection.error(&Raw::read(1, 0, &bad)).with_context(|| format!("round {round}"))?;
        connection.okay(&Raw::read(2, 0, &whole(&pages)))?;
    }
    connection.take_back(pages)
}

fn too_many_segments<W: FrontWorld>(guest: &mut Guest<W>) -> Result<()> {
    let mut connection = guest.connect(&Wish::blocks().with("max-request-segments", "20"))?;
    let pages = connection.pages(20, 0)?;
    let page = whole(&pages)[0];
    connection.okay(&Raw::read(1, 0, &whole(&pages)))?;
    for segments in [21, 24, 25, 26, 100, 255] {
        connection.error(&Raw::read(2, 0, &vec![page; segments]))?;
        connection.error(&Raw::data(Opcode::FLUSH, 3, 0, &vec![page; segments]))?;
    }
    connection.take_back(pages)?;
    connection.works()
}

fn too_many_bytes<W: FrontWorld>(guest: &mut Guest<W>) -> Result<()> {
    let mut connection = guest.connect(&Wish::blocks().with("max-request-size", "65536"))?;
    let pages = connection.pages(24, 0)?;
    let all = whole(&pages);
    connection.okay(&Raw::read(1, 0, &all[..16]))?;
    connection.error(&Raw::read(2, 0, &all[..17]))?;
    // It is bytes that count, not segments.
    let small: Vec<Segment> = all.iter().map(|segment| Segment { last_sect: 4, ..*segment }).collect();
    connection.okay(&Raw::read(3, 0, &small))?;
    connection.take_back(pages)
}

fn max_requests<W: FrontWorld>(guest: &mut Guest<W>) -> Result<()> {
    let mut connection = guest.connect(&Wish::blocks().with("max-requests", "3"))?;
    for _ in 0..5 {
        let requests = connection.reads(0..32)?;
        connection.batch_okay(&requests)?;
    }
    connection.works()
}

fn segments_are_checked<W: FrontWorld>(guest: &mut Guest<W>) -> Result<()> {
    let most = most(guest);
    let mut connection = guest.connect(&Wish::blocks())?;
    let pages = connection.pages(most, 0)?;
    for place in [0, 10, 11, 23, 24, 25, 38, most - 1].into_iter().filter(|place| *place < most) {
        for (first_sect, last_sect) in [(1, 0), (0, 8), (255, 255)] {
            let mut segments = whole(&pages);
            segments[place] = Segment { first_sect, last_sect, ..segments[place] };
            connection.error(&Raw::read(1, 0, &segments)).with_context(|| format!("place {place}"))?;
        }
    }
    connection.take_back(pages)?;
    connection.works()
}

fn discard_flag<W: FrontWorld>(guest: &mut Guest<W>) -> Result<()> {
    let mut connection = guest.connect(&Wish::blocks())?;
    for flag in [0, 2, 12, 26, 40, 254] {
        connection.okay(&Raw { arg: flag, ..Raw::discard(1, TRACES, 8) })?;
        connection.works()?;
    }
    Ok(())
}

fn unknown_operation<W: FrontWorld>(guest: &mut Guest<W>) -> Result<()> {
    let mut connection = guest.connect(&Wish::blocks())?;
    for op in [4, 7, 99, 255] {
        connection.unsupported(&Raw { arg: 255, ..Raw::data(Opcode(op), 1, 0, &[]) })?;
        connection.works()?;
    }
    Ok(())
}

fn flush_and_barrier<W: FrontWorld>(guest: &mut Guest<W>) -> Result<()> {
    let segments = most(guest).min(60);
    let mut connection = guest.connect(&Wish::blocks())?;
    for op in [Opcode::FLUSH, Opcode::WRITE_BARRIER] {
        let data = noise(op.0.into(), segments * 4096);
        let pages = connection.lend(&data, Access::Read)?;
        connection.okay(&Raw::data(op, 1, TRACES, &whole(&pages)))?;
        connection.take_back(pages)?;
        must!(connection.read(TRACES, data.len())? == data, "{op}");
    }
    Ok(())
}

fn let_go_before_answer<W: FrontWorld>(guest: &mut Guest<W>) -> Result<()> {
    let mut connection = guest.connect(&Wish::blocks())?;
    for round in 0..20 {
        let pages = connection.pages(100, 0)?;
        let mut segments = whole(&pages);
        if round % 4 == 3 {
            segments[round * 5].gref = GrantRef(u32::MAX);
        }
        let raw = Raw::data(Opcode((round % 4) as u8), 1, TRACES, &segments);
        if round % 4 == 3 {
            connection.error(&raw)?
        } else {
            connection.okay(&raw)?
        }
        connection.take_back(pages).with_context(|| format!("round {round}"))?;
    }
    Ok(())
}
