//! Reads, writes and everything that all requests have in common (docs/PROTOCOL.md sections 2.1, 2.2 and 2.4).

use anyhow::{Context as _, Result};
use blkif_proto::{GrantRef, Opcode, Segment, Status};
use xen_platform::{Access, FrontWorld};

use crate::{
    conformance::{
        Clause, EVERY_ABI, ONE_ABI,
        rig::{Guest, Raw, TRACES, Wish, bytes, noise, whole},
    },
    must,
};

pub(super) fn clauses<W: FrontWorld>() -> Vec<Clause<Guest<W>>> {
    vec![
        Clause {
            name: "request.reads-what-was-written",
            rule: "A read has the data in the pages before its answer; a write is seen by the next read (2.5).",
            abis: EVERY_ABI,
            check: round_trip,
        },
        Clause {
            name: "request.read-parts-of-pages",
            rule: "A read touches nothing of a page but the sectors from first_sect to last_sect (0.12, 2.2).",
            abis: EVERY_ABI,
            check: read_parts,
        },
        Clause {
            name: "request.write-parts-of-pages",
            rule: "A write takes the sectors from first_sect to last_sect, and touches as many on the disk (0.12, 2.2).",
            abis: EVERY_ABI,
            check: write_parts,
        },
        Clause {
            name: "request.same-page-in-several-segments",
            rule: "A page may be named by several segments of a request (2.4).",
            abis: EVERY_ABI,
            check: same_page_in_segments,
        },
        Clause {
            name: "request.same-page-in-several-requests",
            rule: "A page may be named by several requests under way, and is let go of with the last (2.4).",
            abis: EVERY_ABI,
            check: same_page_in_requests,
        },
        Clause {
            name: "request.pages-let-go-before-answer",
            rule: "Every page of a request is unmapped before its answer, whatever the answer is (0.22, XSA-361).",
            abis: ONE_ABI,
            check: let_go_before_answer,
        },
        Clause {
            name: "request.id-is-opaque",
            rule: "All 64 bits of the id come back (0.6).",
            abis: EVERY_ABI,
            check: id_is_opaque,
        },
        Clause {
            name: "request.ids-repeat",
            rule: "Requests under way may share an id; each is answered (0.6).",
            abis: EVERY_ABI,
            check: ids_repeat,
        },
        Clause {
            name: "request.handle-ignored",
            rule: "The handle means nothing (0.4).",
            abis: EVERY_ABI,
            check: handle_ignored,
        },
        Clause {
            name: "request.padding-ignored",
            rule: "Padding of requests and segments means nothing (2.2).",
            abis: EVERY_ABI,
            check: padding_ignored,
        },
    ]
}

/// `sectors` sectors from `first` of a page.
pub(super) fn part(gref: GrantRef, first: u8, sectors: u8) -> Segment {
    Segment { gref, first_sect: first, last_sect: first + sectors - 1 }
}

fn round_trip<W: FrontWorld>(guest: &mut Guest<W>) -> Result<()> {
    let mut connection = guest.connect(&Wish::default())?;
    for (n, sectors) in [1, 8, 9, 16, 87, 88, 200].into_iter().enumerate() {
        let sector = TRACES + 300 * n as u64;
        let data = noise(n as u64, sectors * 512);
        let next = sector + sectors as u64;
        let after = connection.read(next, 512)?;
        connection.write(sector, &data)?;
        must!(connection.read(sector, data.len())? == data, "{sectors} sectors came back changed");
        must!(connection.read(next, 512)? == after, "the sector after {sectors} sectors was changed");
    }
    Ok(())
}

fn read_parts<W: FrontWorld>(guest: &mut Guest<W>) -> Result<()> {
    let mut connection = guest.connect(&Wish::default())?;
    let data = noise(1, 6 * 512);
    connection.write(TRACES, &data)?;
    let pages = connection.pages(3, 0xEE)?;
    let [a, b, c] = *pages.grants() else { unreachable!("three pages") };
    let id = connection.id();
    connection.okay(&Raw::read(id, TRACES, &[part(a, 2, 4), part(b, 7, 1), part(c, 0, 1)]))?;
    let mut wanted = vec![0xEE; 3 * 4096];
    wanted[2 * 512..6 * 512].copy_from_slice(&data[..2048]);
    wanted[4096 + 7 * 512..8192].copy_from_slice(&data[2048..2560]);
    wanted[8192..8192 + 512].copy_from_slice(&data[2560..]);
    must!(bytes(&pages) == wanted, "the pages do not have the sectors where they belong");
    connection.take_back(pages)
}

fn write_parts<W: FrontWorld>(guest: &mut Guest<W>) -> Result<()> {
    let mut connection = guest.connect(&Wish::default())?;
    let before = noise(2, 8 * 512);
    connection.write(TRACES, &before)?;
    let data = noise(3, 3 * 4096);
    let pages = connection.lend(&data, Access::Read)?;
    let [a, b, c] = *pages.grants() else { unreachable!("three pages") };
    let id = connection.id();
    connection.okay(&Raw::write(id, TRACES + 1, &[part(a, 5, 3), part(b, 0, 1), part(c, 3, 2)]))?;
    connection.take_back(pages)?;
    let mut wanted = before;
    wanted[512..2048].copy_from_slice(&data[5 * 512..4096]);
    wanted[2048..2560].copy_from_slice(&data[4096..4608]);
    wanted[2560..3584].copy_from_slice(&data[8192 + 3 * 512..8192 + 5 * 512]);
    must!(connection.read(TRACES, wanted.len())? == wanted, "the sectors are not where they belong");
    Ok(())
}

fn same_page_in_segments<W: FrontWorld>(guest: &mut Guest<W>) -> Result<()> {
    let mut connection = guest.connect(&Wish::default())?;
    let data = noise(4, 4096);
    let page = connection.lend(&data, Access::Read)?;
    let gref = page.grants()[0];
    let id = connection.id();
    connection.okay(&Raw::write(id, TRACES, &[Segment::page(gref); 11]))?;
    connection.take_back(page)?;
    must!(connection.read(TRACES, 11 * 4096)? == data.repeat(11), "eleven times the same page");

    let page = connection.pages(1, 0)?;
    let gref = page.grants()[0];
    let id = connection.id();
    // Its halves the other way round.
    connection.okay(&Raw::read(id, TRACES, &[part(gref, 4, 4), part(gref, 0, 4)]))?;
    must!(bytes(&page) == [&data[2048..], &data[..2048]].concat(), "two halves of a page");
    connection.take_back(page)
}

fn same_page_in_requests<W: FrontWorld>(guest: &mut Guest<W>) -> Result<()> {
    let mut connection = guest.connect(&Wish::default())?;
    let data = noise(5, 4096);
    let page = connection.lend(&data, Access::ReadWrite)?;
    let segments = whole(&page);
    let writes: Vec<Raw> = (0..32).map(|n| Raw::write(n, TRACES + 8 * n, &segments)).collect();
    connection.batch_okay(&writes)?;
    let reads: Vec<Raw> = (0..32).map(|n| Raw::read(n, TRACES + 8 * n, &segments)).collect();
    connection.batch_okay(&reads)?;
    must!(bytes(&page) == data, "the page has other bytes");
    connection.take_back(page)
}

fn let_go_before_answer<W: FrontWorld>(guest: &mut Guest<W>) -> Result<()> {
    let mut connection = guest.connect(&Wish::default())?;
    let capacity = guest.disk()?.sectors;
    let nothing = Segment::page(GrantRef(u32::MAX));
    for round in 0..30 {
        let pages = connection.pages(11, 0)?;
        let mut segments = whole(&pages);
        let id = connection.id();
        match round % 5 {
            0 => connection.okay(&Raw::read(id, TRACES, &segments))?,
            1 => connection.okay(&Raw::write(id, TRACES, &segments))?,
            2 => connection.error(&Raw::read(id, capacity, &segments))?,
            3 => {
                segments[round % 11] = nothing;
                connection.error(&Raw::read(id, TRACES, &segments))?;
            }
            _ => {
                segments[round % 11] = nothing;
                connection.error(&Raw::write(id, TRACES, &segments))?;
            }
        }
        connection.take_back(pages).with_context(|| format!("round {round}"))?;
    }
    Ok(())
}

fn id_is_opaque<W: FrontWorld>(guest: &mut Guest<W>) -> Result<()> {
    let mut connection = guest.connect(&Wish::default())?;
    let segments = connection.segments(1, 0)?;
    for id in [0, 1, u64::MAX, 1 << 63, 0xFFFF_8881_2345_6780, 0x0123_4567_89AB_CDEF, u64::from(u32::MAX)] {
        connection.okay(&Raw::read(id, 0, &segments))?;
        connection.okay(&Raw::data(Opcode::FLUSH, id, 0, &[]))?;
        connection.error(&Raw::read(id, 0, &[]))?;
        connection.unsupported(&Raw::data(Opcode(77), id, 0, &segments))?;
    }
    Ok(())
}

fn ids_repeat<W: FrontWorld>(guest: &mut Guest<W>) -> Result<()> {
    let mut connection = guest.connect(&Wish::default())?;
    let segments = connection.segments(1, 0)?;
    let mut ops = Vec::new();
    for n in 0..24 {
        let op = [Opcode::FLUSH, Opcode::WRITE_BARRIER, Opcode::READ][n % 3];
        let raw = Raw::data(op, 0, 0, if op == Opcode::READ { &segments } else { &[] });
        connection.queue().push(&raw.entries(guest.abi))?;
    }
    connection.queue().kick()?;
    for _ in 0..24 {
        let answer = connection.queue().answer()?;
        must!(answer.id == 0 && answer.status == Status::OKAY, "{answer:?}");
        ops.push(answer.op.0);
    }
    ops.sort_unstable();
    let wanted: Vec<u8> = [0, 2, 3].into_iter().flat_map(|op| [op; 8]).collect();
    must!(ops == wanted, "answered: {ops:?}");
    Ok(())
}

fn handle_ignored<W: FrontWorld>(guest: &mut Guest<W>) -> Result<()> {
    let mut connection = guest.connect(&Wish::default())?;
    let segments = connection.segments(1, 0)?;
    for handle in [0, 1, 0x8000, 0xFFFF] {
        connection.okay(&Raw { arg16: handle, ..Raw::read(1, TRACES, &segments) })?;
        connection.okay(&Raw { arg16: handle, ..Raw::write(2, TRACES, &segments) })?;
        connection.okay(&Raw { arg16: handle, ..Raw::data(Opcode::FLUSH, 3, 0, &[]) })?;
        connection.okay(&Raw { arg16: handle, ..Raw::discard(4, TRACES, 8) })?;
    }
    Ok(())
}

fn padding_ignored<W: FrontWorld>(guest: &mut Guest<W>) -> Result<()> {
    let mut connection = guest.connect(&Wish::default())?;
    let mut raw = Raw::read(1, TRACES, &connection.segments(2, 0)?);
    raw.body.resize(88, 0xFF);
    for segment in raw.body.chunks_mut(8) {
        segment[6..].fill(0xFF);
    }
    let mut entry = raw.entries(guest.abi)[0];
    if guest.abi != blkif_proto::Abi::X86_32 {
        entry[4..8].fill(0xFF);
    }
    connection.queue().send(&[entry])?;
    let answer = connection.queue().answer()?;
    must!(answer.id == 1 && answer.status == Status::OKAY, "{answer:?}");
    Ok(())
}
