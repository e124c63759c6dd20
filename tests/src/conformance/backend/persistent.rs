//! Pages that stay mapped from one request to the next (docs/PROTOCOL.md section 6.1).

use anyhow::{Context as _, Result};
use blkif_proto::{Opcode, keys};
use xen_platform::{FrontWorld, Lender as _};

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
            name: "persistent.pages-are-used-again",
            rule: "Pages promised to be used again work again and again, whatever is kept mapped (0.21, 6.1).",
            abis: EVERY_ABI,
            check: pages_used_again,
        },
        Clause {
            name: "persistent.more-than-are-kept",
            rule: "More pages than a backend keeps are mapped for their request, or make room (0.21, 6.1).",
            abis: ONE_ABI,
            check: more_than_are_kept,
        },
        Clause {
            name: "persistent.same-page-at-once",
            rule: "A page that is kept may be named by several requests at once (2.4, 6.1).",
            abis: ONE_ABI,
            check: same_page_at_once,
        },
        Clause {
            name: "persistent.unmapped-before-closed",
            rule: "Kept pages, descriptor pages and rings are unmapped before state 6 (0.21, 0.29, XSA-371).",
            abis: ONE_ABI,
            check: unmapped_before_closed,
        },
        Clause {
            name: "persistent.only-if-promised",
            rule: "Without the frontend's promise nothing stays mapped, also after a connection with it (0.22, 6.1).",
            abis: ONE_ABI,
            check: only_if_promised,
        },
    ]
}

fn pages_used_again<W: FrontWorld>(guest: &mut Guest<W>) -> Result<()> {
    let mut connection = guest.connect(&Wish::persistent())?;
    let pages = connection.pages(11, 0)?;
    for round in 0..40 {
        let data = noise(round, 11 * 4096);
        pages.mem().write(&data);
        connection.okay(&Raw::write(1, TRACES, &whole(&pages)))?;
        pages.mem().zero();
        connection.okay(&Raw::read(2, TRACES, &whole(&pages)))?;
        must!(bytes(&pages) == data, "round {round}");
    }
    connection.indirect(Opcode::READ, 0, &whole(&pages))?;
    connection.works()
}

fn more_than_are_kept<W: FrontWorld>(guest: &mut Guest<W>) -> Result<()> {
    let mut connection = guest.connect(&Wish::persistent())?;
    // Linux keeps 1056; three times as many, twice round.
    let pages = connection.pages(3300, 0x11)?;
    let segments = whole(&pages);
    for round in 0..2 {
        for (n, some) in segments.chunks(11).enumerate() {
            connection.okay(&Raw::write(n as u64, TRACES, some)).with_context(|| format!("round {round}"))?;
        }
        for some in segments.chunks(1100) {
            let status = connection.indirect(Opcode::READ, TRACES, some)?;
            must!(status.0 == 0, "round {round}: {status}");
        }
    }
    guest.close()?;
    let mut pages = pages;
    Ok(connection.lender.reclaim(&mut pages)?)
}

fn same_page_at_once<W: FrontWorld>(guest: &mut Guest<W>) -> Result<()> {
    let mut connection = guest.connect(&Wish::persistent())?;
    let page = connection.pages(1, 0x77)?;
    for _ in 0..20 {
        let requests: Vec<Raw> =
            (0..32).map(|n| Raw::write(n, TRACES + 100 * n, &[whole(&page)[0]; 11])).collect();
        connection.batch_okay(&requests)?;
    }
    must!(connection.read(TRACES + 3100, 4096)? == vec![0x77; 4096], "other bytes are on the disk");
    Ok(())
}

fn unmapped_before_closed<W: FrontWorld>(guest: &mut Guest<W>) -> Result<()> {
    for _ in 0..5 {
        let mut connection = guest.connect(&Wish { queues: 2, ..Wish::persistent() })?;
        let mut pages = connection.pages(64, 0)?;
        let described = connection.describe(&whole(&pages))?;
        for queue in 0..2 {
            connection.ask_on(queue, &Raw::indirect(Opcode::READ, 1, 0, 64, described.grants()))?;
            connection.ask_on(queue, &Raw::write(2, TRACES, &whole(&pages)[..11]))?;
        }
        guest.close()?;
        let mut described = described;
        connection.lender.reclaim(&mut pages).context("data page")?;
        connection.lender.reclaim(&mut described).context("descriptor page")?;
        connection.take_rings_back()?;
        guest.restart()?;
    }
    Ok(())
}

fn only_if_promised<W: FrontWorld>(guest: &mut Guest<W>) -> Result<()> {
    guest.connect(&Wish::persistent())?.works()?;
    guest.restart()?;
    for wish in [Wish::default(), Wish::default().without(keys::FEATURE_PERSISTENT)] {
        let mut connection = guest.connect(&wish)?;
        connection.works()?;
        let pages = connection.pages(30, 0)?;
        connection.indirect(Opcode::WRITE, TRACES, &whole(&pages))?;
        connection.take_back(pages)?;
        guest.restart()?;
    }
    Ok(())
}
