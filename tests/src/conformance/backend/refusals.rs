//! Requests that are refused, and what that does to those around them (docs/PROTOCOL.md section 2.4).

use anyhow::Result;
use blkif_proto::{GrantRef, Opcode, Segment, Status};
use xen_platform::{Access, FrontWorld};

use super::requests::part;
use crate::{
    conformance::{
        Clause, EVERY_ABI,
        rig::{Guest, Raw, TRACES, Wish, noise, whole},
    },
    must,
};

pub(super) fn clauses<W: FrontWorld>() -> Vec<Clause<Guest<W>>> {
    vec![
        Clause {
            name: "request.no-segments",
            rule: "A read or write without segments is an error (0.17).",
            abis: EVERY_ABI,
            check: no_segments,
        },
        Clause {
            name: "request.too-many-segments",
            rule: "12 to 255 segments without the extension are an error, in one entry (2.4).",
            abis: EVERY_ABI,
            check: too_many_segments,
        },
        Clause {
            name: "request.first-after-last",
            rule: "A segment that ends before it begins is an error for the whole request (0.13).",
            abis: EVERY_ABI,
            check: |guest| bad_segment(guest, &[(1, 0), (7, 6), (7, 0), (255, 0), (8, 7)]),
        },
        Clause {
            name: "request.beyond-page",
            rule: "A segment that leaves its page is an error for the whole request (0.13).",
            abis: EVERY_ABI,
            check: |guest| bad_segment(guest, &[(0, 8), (7, 8), (8, 8), (0, 255), (255, 255)]),
        },
        Clause {
            name: "request.beyond-disk",
            rule: "A request must lie on the disk; its last sector may be the disk's last (2.4).",
            abis: EVERY_ABI,
            check: beyond_disk,
        },
        Clause {
            name: "request.sector-overflow",
            rule: "A sector number near 2^64, or one whose bytes leave 64 bits, is out of range, not small (2.4).",
            abis: EVERY_ABI,
            check: sector_overflow,
        },
        Clause {
            name: "request.unknown-operation",
            rule: "An unknown operation is answered \"not supported\", with its own number (0.19).",
            abis: EVERY_ABI,
            check: unknown_operation,
        },
        Clause {
            name: "request.bad-write-writes-nothing",
            rule: "A write that is refused has written nothing, also of its good segments (2.4).",
            abis: EVERY_ABI,
            check: bad_write_writes_nothing,
        },
        Clause {
            name: "request.bad-among-good",
            rule: "A refused request harms none of those around it (2.4).",
            abis: EVERY_ABI,
            check: bad_among_good,
        },
    ]
}

fn no_segments<W: FrontWorld>(guest: &mut Guest<W>) -> Result<()> {
    let mut connection = guest.connect(&Wish::default())?;
    for op in [Opcode::READ, Opcode::WRITE] {
        connection.error(&Raw::data(op, 1, 0, &[]))?;
        connection.error(&Raw::data(op, 2, u64::MAX, &[]))?;
    }
    connection.works()
}

fn too_many_segments<W: FrontWorld>(guest: &mut Guest<W>) -> Result<()> {
    let mut connection = guest.connect(&Wish::default())?;
    let pages = connection.pages(11, 0)?;
    for number in 12..=255 {
        let op = [Opcode::READ, Opcode::WRITE, Opcode::WRITE_BARRIER, Opcode::FLUSH][usize::from(number) % 4];
        connection.error(&Raw { arg: number, ..Raw::data(op, number.into(), 0, &whole(&pages)) })?;
    }
    connection.take_back(pages)?;
    connection.works()
}

fn bad_segment<W: FrontWorld>(guest: &mut Guest<W>, windows: &[(u8, u8)]) -> Result<()> {
    let mut connection = guest.connect(&Wish::default())?;
    let pages = connection.pages(11, 0)?;
    for &(first_sect, last_sect) in windows {
        for place in [0, 5, 10] {
            let mut segments = whole(&pages);
            segments[place] = Segment { first_sect, last_sect, ..segments[place] };
            connection.error(&Raw::read(1, 0, &segments))?;
            connection.error(&Raw::write(2, 0, &segments))?;
        }
    }
    connection.take_back(pages)?;
    connection.works()
}

fn beyond_disk<W: FrontWorld>(guest: &mut Guest<W>) -> Result<()> {
    let mut connection = guest.connect(&Wish::default())?;
    let capacity = guest.disk()?.sectors;
    let pages = connection.pages(2, 0)?;
    let segments = whole(&pages);
    for op in [Opcode::READ, Opcode::WRITE] {
        connection.okay(&Raw::data(op, 1, capacity - 16, &segments))?;
        connection.okay(&Raw::data(op, 2, capacity - 1, &[part(segments[0].gref, 3, 1)]))?;
        connection.error(&Raw::data(op, 3, capacity - 15, &segments))?;
        connection.error(&Raw::data(op, 4, capacity - 1, &segments))?;
        connection.error(&Raw::data(op, 5, capacity, &segments))?;
        connection.error(&Raw::data(op, 6, capacity + 1_000_000, &segments))?;
    }
    must!(guest.disk()?.sectors == capacity, "the disk has grown");
    connection.take_back(pages)
}

fn sector_overflow<W: FrontWorld>(guest: &mut Guest<W>) -> Result<()> {
    let mut connection = guest.connect(&Wish::default())?;
    let pages = connection.pages(2, 0)?;
    for sector in [u64::MAX, u64::MAX - 7, u64::MAX - 15, u64::MAX - 16, 1 << 63, 1 << 55, (1 << 55) - 8] {
        connection.error(&Raw::read(1, sector, &whole(&pages)))?;
        connection.error(&Raw::write(2, sector, &whole(&pages)))?;
    }
    connection.take_back(pages)?;
    connection.works()
}

fn unknown_operation<W: FrontWorld>(guest: &mut Guest<W>) -> Result<()> {
    let mut connection = guest.connect(&Wish::default())?;
    let pages = connection.pages(1, 0)?;
    for op in (4..=255).filter(|op| *op != 5 && *op != 6) {
        let raw = Raw::data(Opcode(op), op.into(), u64::MAX, &whole(&pages));
        connection.unsupported(&Raw { arg: op, arg16: 0xFFFF, ..raw })?;
    }
    connection.take_back(pages)?;
    connection.works()
}

fn bad_write_writes_nothing<W: FrontWorld>(guest: &mut Guest<W>) -> Result<()> {
    let mut connection = guest.connect(&Wish::default())?;
    let before = noise(6, 11 * 4096);
    connection.write(TRACES, &before)?;
    let pages = connection.pages(11, 0x55)?;
    let mut reversed = whole(&pages);
    reversed[10] = Segment { first_sect: 5, last_sect: 4, ..reversed[10] };
    let mut foreign = whole(&pages);
    foreign[10].gref = GrantRef(u32::MAX);
    connection.error(&Raw::write(1, TRACES, &reversed))?;
    connection.error(&Raw::write(2, TRACES, &foreign))?;
    connection.take_back(pages)?;
    must!(connection.read(TRACES, before.len())? == before, "a refused write has changed the disk");
    Ok(())
}

fn bad_among_good<W: FrontWorld>(guest: &mut Guest<W>) -> Result<()> {
    let mut connection = guest.connect(&Wish::default())?;
    let data = noise(7, 4096);
    let page = connection.lend(&data, Access::ReadWrite)?;
    let (segments, foreign) = (whole(&page), [Segment::page(GrantRef(u32::MAX))]);
    let requests: Vec<Raw> = (0..32)
        .map(|n| match n % 4 {
            1 => Raw::write(n, u64::MAX, &segments),
            3 => Raw::write(n, TRACES + 8 * n, &foreign),
            _ => Raw::write(n, TRACES + 8 * n, &segments),
        })
        .collect();
    for answer in connection.batch(&requests)? {
        let wanted = if answer.id % 2 == 0 { Status::OKAY } else { Status::ERROR };
        must!(answer.status == wanted, "{answer:?}");
    }
    connection.take_back(page)?;
    for n in 0..32 {
        let there = connection.read(TRACES + 8 * n, 4096)? == data;
        must!(there == (n % 2 == 0), "request {n}");
    }
    Ok(())
}
