//! Requests whose segments lie in descriptor pages (docs/PROTOCOL.md sections 2.2, 2.4 and 2.6).

use anyhow::{Context as _, Result};
use blkif_proto::{GrantRef, Opcode, Segment, Status};
use xen_platform::{Access, FrontWorld};

use crate::{
    conformance::{
        Clause, EVERY_ABI, ONE_ABI,
        rig::{Connection, Guest, Raw, TRACES, Wish, bytes, descriptors, noise, whole},
    },
    must,
};

pub(super) fn clauses<W: FrontWorld>() -> Vec<Clause<Guest<W>>> {
    vec![
        Clause {
            name: "indirect.moves-data",
            rule: "An indirect read or write of any number of segments that is offered moves its data (2.2, 2.4).",
            abis: EVERY_ABI,
            check: moves_data,
        },
        Clause {
            name: "indirect.several-descriptor-pages",
            rule: "512 segments fill a descriptor page; the next ones lie in the next page, up to eight (2.2).",
            abis: EVERY_ABI,
            check: several_pages,
        },
        Clause {
            name: "indirect.inner-operation-answered",
            rule: "The answer shows the operation inside, 0 or 1, never 6 (0.1, 8.1).",
            abis: EVERY_ABI,
            check: inner_operation_answered,
        },
        Clause {
            name: "indirect.bad-inner-operation",
            rule: "Only reads and writes can be indirect; anything else is an error (2.4).",
            abis: EVERY_ABI,
            check: bad_inner_operation,
        },
        Clause {
            name: "indirect.no-segments",
            rule: "An indirect request without segments is an error (2.4).",
            abis: EVERY_ABI,
            check: no_segments,
        },
        Clause {
            name: "indirect.too-many-segments",
            rule: "More segments than are offered are an error, up to the 65535 that the field holds (2.4).",
            abis: EVERY_ABI,
            check: too_many_segments,
        },
        Clause {
            name: "indirect.junk-references",
            rule: "References beyond the pages that the segments need are undefined and ignored (2.2).",
            abis: EVERY_ABI,
            check: junk_references,
        },
        Clause {
            name: "indirect.handle-ignored",
            rule: "The handle of an indirect request means nothing either (0.4).",
            abis: EVERY_ABI,
            check: handle_ignored,
        },
        Clause {
            name: "indirect.read-only-descriptors",
            rule: "Descriptor pages may be granted read-only (2.4, 6.1).",
            abis: EVERY_ABI,
            check: read_only_descriptors,
        },
        Clause {
            name: "indirect.foreign-descriptors",
            rule: "A descriptor page that is not granted is an error, wherever it is (2.4).",
            abis: EVERY_ABI,
            check: foreign_descriptors,
        },
        Clause {
            name: "indirect.descriptors-are-checked",
            rule: "Every descriptor is checked as a segment in the ring is (2.4).",
            abis: EVERY_ABI,
            check: descriptors_are_checked,
        },
        Clause {
            name: "indirect.range",
            rule: "An indirect request must lie on the disk (2.4).",
            abis: ONE_ABI,
            check: range,
        },
        Clause {
            name: "indirect.pages-let-go-before-answer",
            rule: "Data and descriptor pages are unmapped before the answer (0.22).",
            abis: ONE_ABI,
            check: let_go_before_answer,
        },
        Clause {
            name: "indirect.reads-over-its-descriptors",
            rule: "Descriptors are read once: a read into its own descriptor page changes nothing about itself (0.14).",
            abis: EVERY_ABI,
            check: reads_over_descriptors,
        },
        Clause {
            name: "indirect.among-direct",
            rule: "Direct requests, of at most 11 segments, go on beside indirect ones (2.6).",
            abis: EVERY_ABI,
            check: among_direct,
        },
    ]
}

/// Writes noise in one indirect request, reads it in another and compares.
pub(super) fn round_trip<W: FrontWorld>(connection: &mut Connection<W>, segments: usize) -> Result<()> {
    let sector = if segments > 3000 { 0 } else { TRACES };
    let data = noise(segments as u64, segments * 4096);
    let pages = connection.lend(&data, Access::Read)?;
    must!(connection.indirect(Opcode::WRITE, sector, &whole(&pages))? == Status::OKAY, "write");
    connection.take_back(pages)?;
    let pages = connection.pages(segments, 0xEE)?;
    must!(connection.indirect(Opcode::READ, sector, &whole(&pages))? == Status::OKAY, "read");
    must!(bytes(&pages) == data, "{segments} segments came back changed");
    connection.take_back(pages)
}

fn moves_data<W: FrontWorld>(guest: &mut Guest<W>) -> Result<()> {
    let mut connection = guest.connect(&Wish::default())?;
    for segments in [1, 2, 11, 12, 17, 32, 64, 256] {
        round_trip(&mut connection, segments).with_context(|| format!("{segments} segments"))?;
    }
    Ok(())
}

fn several_pages<W: FrontWorld>(guest: &mut Guest<W>) -> Result<()> {
    let mut connection = guest.connect(&Wish::default())?;
    let most = usize::from(guest.offers()?.max_indirect_segments);
    must!(most == 4096, "{most} segments are offered");
    for segments in [511, 512, 513, 1024, 1025, 4096] {
        round_trip(&mut connection, segments).with_context(|| format!("{segments} segments"))?;
    }
    Ok(())
}

fn inner_operation_answered<W: FrontWorld>(guest: &mut Guest<W>) -> Result<()> {
    let mut connection = guest.connect(&Wish::default())?;
    let pages = connection.pages(12, 0)?;
    let described = connection.describe(&whole(&pages))?;
    for (inner, sector, status) in [
        (Opcode::READ, 0, Status::OKAY),
        (Opcode::WRITE, 0, Status::OKAY),
        (Opcode::READ, u64::MAX, Status::ERROR),
        (Opcode::WRITE, u64::MAX, Status::ERROR),
    ] {
        let raw = Raw::indirect(inner, 5, sector, 12, described.grants());
        connection.queue().send(&raw.entries(guest.abi))?;
        let answer = connection.queue().answer()?;
        must!(answer.op == inner && answer.status == status, "{answer:?}");
    }
    connection.take_back(described)?;
    connection.take_back(pages)
}

fn bad_inner_operation<W: FrontWorld>(guest: &mut Guest<W>) -> Result<()> {
    let mut connection = guest.connect(&Wish::default())?;
    let pages = connection.pages(12, 0)?;
    for inner in [2, 3, 4, 5, 6, 7, 255] {
        let status = connection.indirect(Opcode(inner), TRACES, &whole(&pages))?;
        must!(status == Status::ERROR, "{status} to an indirect {}", Opcode(inner));
    }
    connection.take_back(pages)?;
    connection.works()
}

fn no_segments<W: FrontWorld>(guest: &mut Guest<W>) -> Result<()> {
    let mut connection = guest.connect(&Wish::default())?;
    let page = connection.pages(1, 0)?;
    for inner in [Opcode::READ, Opcode::WRITE] {
        connection.error(&Raw::indirect(inner, 1, 0, 0, page.grants()))?;
        connection.error(&Raw::indirect(inner, 1, 0, 0, &[]))?;
    }
    connection.take_back(page)
}

fn too_many_segments<W: FrontWorld>(guest: &mut Guest<W>) -> Result<()> {
    let mut connection = guest.connect(&Wish::default())?;
    let most = guest.offers()?.max_indirect_segments;
    let page = connection.pages(1, 0)?;
    let described = connection.describe(&vec![whole(&page)[0]; 4096])?;
    for segments in [most + 1, 5000, 0x7FFF, 0x8000, 0xFFFF] {
        connection.error(&Raw::indirect(Opcode::READ, 1, 0, segments, described.grants()))?;
        connection.error(&Raw::indirect(Opcode::WRITE, 1, 0, segments, described.grants()))?;
    }
    connection.take_back(described)?;
    connection.take_back(page)?;
    connection.works()
}

fn junk_references<W: FrontWorld>(guest: &mut Guest<W>) -> Result<()> {
    let mut connection = guest.connect(&Wish::default())?;
    let page = connection.pages(1, 0)?;
    for (segments, needed) in [(1, 1), (512, 1), (513, 2)] {
        let described = connection.describe(&vec![whole(&page)[0]; segments])?;
        let mut grants = described.grants().to_vec();
        must!(grants.len() == needed, "{} pages for {segments} segments", grants.len());
        grants.resize(8, GrantRef(u32::MAX));
        let count = u16::try_from(segments)?;
        connection.okay(&Raw::indirect(Opcode::READ, 1, 0, count, &grants))?;
        connection.take_back(described)?;
    }
    connection.take_back(page)
}

fn handle_ignored<W: FrontWorld>(guest: &mut Guest<W>) -> Result<()> {
    let mut connection = guest.connect(&Wish::default())?;
    let page = connection.pages(1, 0)?;
    let described = connection.describe(&whole(&page))?;
    let mut raw = Raw::indirect(Opcode::READ, 1, 0, 1, described.grants());
    raw.body[..4].fill(0xFF);
    connection.okay(&raw)?;
    connection.take_back(described)?;
    connection.take_back(page)
}

fn read_only_descriptors<W: FrontWorld>(guest: &mut Guest<W>) -> Result<()> {
    let mut connection = guest.connect(&Wish::default())?;
    let pages = connection.pages(12, 0)?;
    for access in [Access::Read, Access::ReadWrite] {
        let described = connection.lend(&descriptors(&whole(&pages)), access)?;
        connection.okay(&Raw::indirect(Opcode::READ, 1, 0, 12, described.grants()))?;
        connection.take_back(described)?;
    }
    connection.take_back(pages)
}

fn foreign_descriptors<W: FrontWorld>(guest: &mut Guest<W>) -> Result<()> {
    let mut connection = guest.connect(&Wish::default())?;
    let page = connection.pages(1, 0)?;
    let described = connection.describe(&vec![whole(&page)[0]; 1025])?;
    for bad in 0..3 {
        let mut grants = described.grants().to_vec();
        grants[bad] = GrantRef(u32::MAX);
        connection.error(&Raw::indirect(Opcode::READ, 1, 0, 1025, &grants))?;
    }
    connection.take_back(described)?;
    connection.take_back(page)?;
    connection.works()
}

fn descriptors_are_checked<W: FrontWorld>(guest: &mut Guest<W>) -> Result<()> {
    let mut connection = guest.connect(&Wish::default())?;
    let page = connection.pages(1, 0)?;
    let good = whole(&page)[0];
    let bad = [
        Segment { first_sect: 1, last_sect: 0, ..good },
        Segment { last_sect: 8, ..good },
        Segment { first_sect: 255, last_sect: 255, ..good },
        Segment { gref: GrantRef(u32::MAX), ..good },
    ];
    for segment in bad {
        for place in [0, 11, 511, 512, 599] {
            let mut segments = vec![good; 600];
            segments[place] = segment;
            let status = connection.indirect(Opcode::READ, TRACES, &segments)?;
            must!(status == Status::ERROR, "{status} with {segment:?} at place {place}");
        }
    }
    connection.take_back(page)?;
    connection.works()
}

fn range<W: FrontWorld>(guest: &mut Guest<W>) -> Result<()> {
    let mut connection = guest.connect(&Wish::default())?;
    let capacity = guest.disk()?.sectors;
    let pages = connection.pages(20, 0)?;
    for (sector, wanted) in [
        (capacity - 160, Status::OKAY),
        (capacity - 159, Status::ERROR),
        (capacity, Status::ERROR),
        (u64::MAX, Status::ERROR),
        (u64::MAX - 159, Status::ERROR),
    ] {
        for inner in [Opcode::READ, Opcode::WRITE] {
            let status = connection.indirect(inner, sector, &whole(&pages))?;
            must!(status == wanted, "{status} to a {inner} at sector {sector}");
        }
    }
    connection.take_back(pages)
}

fn let_go_before_answer<W: FrontWorld>(guest: &mut Guest<W>) -> Result<()> {
    let mut connection = guest.connect(&Wish::default())?;
    for round in 0..20 {
        let pages = connection.pages(40, 0)?;
        let mut segments = whole(&pages);
        if round % 4 == 3 {
            segments[round].gref = GrantRef(u32::MAX);
        }
        let inner = Opcode((round % 2) as u8);
        let status = connection.indirect(inner, TRACES, &segments)?;
        must!((status == Status::OKAY) == (round % 4 != 3), "round {round}: {status}");
        connection.take_back(pages).with_context(|| format!("round {round}"))?;
    }
    Ok(())
}

fn reads_over_descriptors<W: FrontWorld>(guest: &mut Guest<W>) -> Result<()> {
    let mut connection = guest.connect(&Wish::default())?;
    let data = noise(9, 3 * 4096);
    connection.write(TRACES, &data)?;
    let pages = connection.pages(2, 0)?;
    let described = connection.lend(&[0; 4096], Access::ReadWrite)?;
    let segments = [whole(&described), whole(&pages)].concat();
    described.mem().write(&descriptors(&segments));
    connection.okay(&Raw::indirect(Opcode::READ, 1, TRACES, 3, described.grants()))?;
    must!(bytes(&described) == data[..4096], "the descriptor page does not have its sectors");
    must!(bytes(&pages) == data[4096..], "the other pages do not have their sectors");
    connection.take_back(described)?;
    connection.take_back(pages)
}

fn among_direct<W: FrontWorld>(guest: &mut Guest<W>) -> Result<()> {
    let mut connection = guest.connect(&Wish::default())?;
    let pages = connection.pages(12, 0)?;
    let described = connection.describe(&whole(&pages))?;
    let requests: Vec<Raw> = (0..32)
        .map(|n| match n % 3 {
            0 => Raw::indirect(Opcode::READ, n, 0, 12, described.grants()),
            1 => Raw::read(n, 0, &whole(&pages)[..11]),
            _ => Raw { arg: 12, ..Raw::read(n, 0, &whole(&pages)[..11]) },
        })
        .collect();
    for answer in connection.batch(&requests)? {
        let wanted = if answer.id % 3 == 2 { Status::ERROR } else { Status::OKAY };
        must!(answer.status == wanted, "{answer:?}");
    }
    connection.take_back(described)?;
    connection.take_back(pages)
}
