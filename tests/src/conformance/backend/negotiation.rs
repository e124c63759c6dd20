//! What the ends agree on: features, queues, persistent grants, the extension's maxima (docs/PROTOCOL.md sections 3.1, 4.3, 4.4
//! and 6.1).

use anyhow::{Context as _, Result};
use blkif_proto::{
    Abi, Opcode,
    keys::{self, RingDialect},
    xenbus::State,
};
use xen_platform::{Access, FrontWorld, Store as _};

use crate::{
    conformance::{
        Clause, EVERY_ABI, ONE_ABI,
        rig::{Guest, IMAGE_BYTES, Raw, TRACES, Wish, bytes, noise, whole},
    },
    must,
};

pub(super) fn clauses<W: FrontWorld>() -> Vec<Clause<Guest<W>>> {
    vec![
        Clause {
            name: "features.before-state-2",
            rule: "Every feature is published before state 2 and does not change afterwards; only discard may wait for a medium (0.26).",
            abis: ONE_ABI,
            check: before_state_2,
        },
        Clause {
            name: "features.no-zeros",
            rule: "What is not offered is not mentioned, rather than written as 0 (0.27).",
            abis: ONE_ABI,
            check: no_zeros,
        },
        Clause {
            name: "features.ring-size-told-once",
            rule: "max-ring-page-order and max-ring-pages say the same, and no order beyond 5 (8.1).",
            abis: ONE_ABI,
            check: ring_size_told_once,
        },
        Clause {
            name: "features.disk",
            rule: "sectors counts units of 512 bytes; sector-size is 512 and info 0 or removable unless told otherwise (0.12, 4.3).",
            abis: ONE_ABI,
            check: disk,
        },
        Clause {
            name: "features.original-protocol",
            rule: "A frontend that knows no extension gets the original protocol: one page, 11 segments (3.1, 4.4).",
            abis: EVERY_ABI,
            check: original_protocol,
        },
        Clause {
            name: "features.frontend-of-2010",
            rule: "The maxima that FreeBSD's frontend of 2010 writes against any backend are harmless (3.1).",
            abis: EVERY_ABI,
            check: frontend_of_2010,
        },
        Clause {
            name: "features.every-large-ring",
            rule: "Segment blocks, queues and rings of several pages go together (3.1, 4.4).",
            abis: EVERY_ABI,
            check: everything,
        },
        Clause {
            name: "blocks.only-if-both",
            rule: "Requests go on in blocks only if both ends said more than 11 segments (3.1).",
            abis: EVERY_ABI,
            check: blocks_only_if_both,
        },
        Clause {
            name: "blocks.cap-of-x86-32",
            rule: "On x86_32-abi a 25th segment would be damaged in the ring: more than 24 are refused (3.3).",
            abis: &[Abi::X86_32],
            check: cap_of_x86_32,
        },
        Clause {
            name: "blocks.beyond-offer-refused",
            rule: "Maxima beyond those that were offered, or of nothing, are refused by the key (3.1).",
            abis: EVERY_ABI,
            check: blocks_beyond_offer,
        },
    ]
}

/// Everything in the backend's directory but its state.
fn snapshot<W: FrontWorld>(guest: &mut Guest<W>) -> Result<Vec<(String, String)>> {
    let mut nodes = Vec::new();
    for key in guest.store.list(&guest.vbd.backend)? {
        if let Some(value) = guest.backend_key(&key)?.filter(|_| key != keys::STATE) {
            nodes.push((key, value));
        }
    }
    nodes.sort();
    Ok(nodes)
}

fn is_feature(key: &str) -> bool {
    ["feature-", "max-", "multi-queue-", "discard-"].iter().any(|prefix| key.starts_with(prefix))
        && key != keys::DISCARD_ENABLE
}

fn before_state_2<W: FrontWorld>(guest: &mut Guest<W>) -> Result<()> {
    guest.wait_backend(State::InitWait)?;
    let mut before = snapshot(guest)?;
    guest.connect(&Wish::default())?.works()?;
    let mut after = snapshot(guest)?;
    // What a medium can discard is only known when it is open, and a script may have to make it first.
    let of_the_backend = |key: &str| is_feature(key) && !key.contains("discard");
    before.retain(|(key, _)| of_the_backend(key));
    after.retain(|(key, _)| of_the_backend(key));
    must!(before == after, "at state 2: {before:?}\nat state 4: {after:?}");
    must!(!before.is_empty(), "nothing is offered");
    Ok(())
}

fn no_zeros<W: FrontWorld>(guest: &mut Guest<W>) -> Result<()> {
    guest.connect(&Wish::default())?;
    let offset = keys::DISCARD_ALIGNMENT;
    let nodes = snapshot(guest)?;
    let zero = nodes.iter().find(|(key, value)| is_feature(key) && key != offset && value == "0");
    must!(zero.is_none(), "{} is written as 0", zero.map_or("", |(key, _)| key));
    Ok(())
}

fn ring_size_told_once<W: FrontWorld>(guest: &mut Guest<W>) -> Result<()> {
    let order: u32 = guest.backend_key(keys::MAX_RING_PAGE_ORDER)?.context("no order")?.parse()?;
    let pages: u32 = guest.backend_key(keys::MAX_RING_PAGES)?.context("no pages")?.parse()?;
    must!(order <= 5 && pages == 1 << order, "order {order}, {pages} pages");
    Ok(())
}

fn disk<W: FrontWorld>(guest: &mut Guest<W>) -> Result<()> {
    guest.connect(&Wish::default())?;
    let disk = guest.disk()?;
    must!(disk.sectors == IMAGE_BYTES / 512, "{disk:?}");
    must!(disk.sector_size == 512 && disk.physical_sector_size % 512 == 0, "{disk:?}");
    must!(disk.info.bits() & !2 == 0, "{disk:?}");
    Ok(())
}

fn original_protocol<W: FrontWorld>(guest: &mut Guest<W>) -> Result<()> {
    let mut connection = guest.connect(&Wish::default().without(keys::FEATURE_PERSISTENT))?;
    must!(connection.queue().ring.layout().entries() == 32, "not 32 entries");
    let pages = connection.pages(11, 0)?;
    connection.okay(&Raw::read(1, 0, &whole(&pages)))?;
    connection.error(&Raw { arg: 12, ..Raw::read(2, 0, &whole(&pages)) })?;
    connection.take_back(pages)?;
    connection.works()
}

fn frontend_of_2010<W: FrontWorld>(guest: &mut Guest<W>) -> Result<()> {
    let wish = Wish::default().with(keys::RING_PAGES, "1").with(keys::MAX_REQUESTS, "32");
    let wish = wish.with(keys::MAX_REQUEST_SEGMENTS, "11").with(keys::MAX_REQUEST_SIZE, "40960");
    let mut connection = guest.connect(&wish)?;
    let requests = connection.reads(0..32)?;
    connection.batch_okay(&requests)?;
    connection.works()
}

fn everything<W: FrontWorld>(guest: &mut Guest<W>) -> Result<()> {
    for dialect in [RingDialect::Order, RingDialect::NumPages, RingDialect::Pages2010] {
        let wish = Wish { blocks: true, queues: 3, persistent: true, ..Wish::default() }.pages(4, dialect);
        let mut connection = guest.connect(&wish)?;
        let data = noise(1, 24 * 4096);
        for queue in 0..3 {
            let sector = TRACES + 200 * queue as u64;
            let pages = connection.lend(&data, Access::ReadWrite)?;
            connection.ask_on(queue, &Raw::write(1, sector, &whole(&pages)))?;
            pages.mem().zero();
            connection.ask_on(queue, &Raw::read(2, sector, &whole(&pages)))?;
            must!(bytes(&pages) == data, "queue {queue}");
        }
        guest.restart()?;
    }
    Ok(())
}

fn blocks_only_if_both<W: FrontWorld>(guest: &mut Guest<W>) -> Result<()> {
    for segments in ["1", "11"] {
        let mut connection = guest.connect(&Wish::default().with(keys::MAX_REQUEST_SEGMENTS, segments))?;
        let pages = connection.pages(12, 0)?;
        // One entry, and thus one error; indirect requests are what remains.
        connection.error(&Raw { arg: 12, ..Raw::read(1, 0, &whole(&pages)[..11]) })?;
        connection.indirect(Opcode::READ, 0, &whole(&pages))?;
        connection.take_back(pages)?;
        connection.works()?;
        guest.restart()?;
    }
    Ok(())
}

fn cap_of_x86_32<W: FrontWorld>(guest: &mut Guest<W>) -> Result<()> {
    for segments in ["25", "33", "255"] {
        guest.publish(&Wish::blocks().with(keys::MAX_REQUEST_SEGMENTS, segments))?;
        guest.refused_for(keys::MAX_REQUEST_SEGMENTS)?;
        guest.restart()?;
    }
    let mut connection = guest.connect(&Wish::blocks().with(keys::MAX_REQUEST_SEGMENTS, "24"))?;
    let pages = connection.pages(24, 0)?;
    connection.okay(&Raw::read(1, 0, &whole(&pages)))?;
    connection.take_back(pages)
}

fn blocks_beyond_offer<W: FrontWorld>(guest: &mut Guest<W>) -> Result<()> {
    let offered = guest.offers()?.request_maxima.context("segment blocks are not offered")?;
    for (key, value) in [
        (keys::MAX_REQUEST_SEGMENTS, u64::from(offered.segments) + 1),
        (keys::MAX_REQUEST_SEGMENTS, 256),
        (keys::MAX_REQUEST_SEGMENTS, 0),
        (keys::MAX_REQUESTS, u64::from(offered.requests) + 1),
        (keys::MAX_REQUESTS, 0),
        (keys::MAX_REQUEST_SIZE, u64::from(offered.bytes) + 1),
        (keys::MAX_REQUEST_SIZE, 0),
        (keys::MAX_REQUEST_SIZE, 1 << 40),
    ] {
        guest.publish(&Wish::blocks().with(key, &value.to_string()))?;
        guest.refused_for(key).with_context(|| format!("{key}={value}"))?;
        guest.restart()?;
    }
    guest.connect(&Wish::blocks())?.works()
}
