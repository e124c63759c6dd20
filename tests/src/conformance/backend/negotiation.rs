//! What the ends agree on: features, queues, persistent grants, the extension's maxima (docs/PROTOCOL.md sections 3.1, 4.3, 4.4
//! and 6.1).

use anyhow::{Context as _, Result};
use blkif_proto::{
    Abi, Opcode,
    keys::{self, RingDialect},
    xenbus::State,
};
use xen_platform::{Access, FrontWorld, Lender as _, Store as _};

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
        Clause {
            name: "queues.each-is-served",
            rule: "Every queue has its own ring and event channel, and is served (4.4).",
            abis: EVERY_ABI,
            check: each_queue_is_served,
        },
        Clause {
            name: "queues.one-is-at-the-top",
            rule: "multi-queue-num-queues=1 means the keys at the top (4.4, 8.1).",
            abis: ONE_ABI,
            check: one_queue_at_the_top,
        },
        Clause {
            name: "queues.do-not-wait-for-each-other",
            rule: "Queues are unordered: a barrier concerns its own (4.4).",
            abis: ONE_ABI,
            check: barrier_of_one_queue,
        },
        Clause {
            name: "queues.one-broken-closes-all",
            rule: "A broken ring of one queue closes the device (0.15, 1.5).",
            abis: ONE_ABI,
            check: one_broken_closes_all,
        },
        Clause {
            name: "queues.bad-number-refused",
            rule: "No queue, more than were offered, or no number are refused by the key (4.4).",
            abis: ONE_ABI,
            check: bad_number_of_queues,
        },
        Clause {
            name: "queues.missing-key-refused",
            rule: "What a queue's directory lacks is named with the queue (4.4).",
            abis: ONE_ABI,
            check: missing_queue_key,
        },
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
    for key in ["feature-barrier", "feature-flush-cache", "feature-max-indirect-segments"] {
        must!(before.iter().any(|(known, _)| known == key), "{key} is not offered: {before:?}");
    }
    Ok(())
}

fn no_zeros<W: FrontWorld>(guest: &mut Guest<W>) -> Result<()> {
    guest.connect(&Wish::default())?;
    let offset = keys::DISCARD_ALIGNMENT;
    let nodes = snapshot(guest)?;
    let zero = nodes.iter().find(|(key, value)| is_feature(key) && key != offset && value == "0");
    must!(zero.is_none(), "{zero:?}");
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

fn each_queue_is_served<W: FrontWorld>(guest: &mut Guest<W>) -> Result<()> {
    let most = guest.offers()?.max_queues;
    must!(most >= 2, "{most} queues are offered");
    for queues in 2..=most {
        let mut connection = guest.connect(&Wish::queues(queues))?;
        let page = connection.pages(1, 0x55)?;
        let slots = connection.queue().ring.layout().entries();
        for round in 0..2 * slots {
            for queue in 0..queues as usize {
                let raw = Raw::read(round.into(), 0, &whole(&page));
                must!(connection.ask_on(queue, &raw)?.0 == 0, "queue {queue}, round {round}");
            }
        }
        connection.take_back(page)?;
        guest.close()?;
        connection.take_rings_back()?;
        guest.restart()?;
    }
    Ok(())
}

fn one_queue_at_the_top<W: FrontWorld>(guest: &mut Guest<W>) -> Result<()> {
    guest.connect(&Wish::default().with(keys::MULTI_QUEUE_NUM_QUEUES, "1"))?.works()
}

fn barrier_of_one_queue<W: FrontWorld>(guest: &mut Guest<W>) -> Result<()> {
    let mut connection = guest.connect(&Wish::queues(2))?;
    let page = connection.pages(1, 0)?;
    for round in 0..50 {
        for (queue, op) in [(0, Opcode::WRITE_BARRIER), (1, Opcode::WRITE)] {
            for n in 0..8 {
                let raw = Raw::data(op, n, TRACES + 8 * n, &whole(&page));
                connection.queues[queue].push(&raw.entries(guest.abi))?;
            }
            connection.queues[queue].kick()?;
        }
        for queue in [1, 0] {
            for _ in 0..8 {
                let answer = connection.queues[queue].answer()?;
                must!(answer.status.0 == 0, "round {round}: {answer:?}");
            }
        }
    }
    connection.take_back(page)
}

fn one_broken_closes_all<W: FrontWorld>(guest: &mut Guest<W>) -> Result<()> {
    let mut connection = guest.connect(&Wish::queues(2))?;
    connection.queues[1].set_index(ringbuf::Field::ReqProd, 99);
    connection.queues[1].ring_bell()?;
    guest.refused_for("queue 1")?;
    guest.restart()?;
    connection.take_rings_back()?;
    guest.connect(&Wish::queues(2))?.works()
}

fn bad_number_of_queues<W: FrontWorld>(guest: &mut Guest<W>) -> Result<()> {
    let key = keys::MULTI_QUEUE_NUM_QUEUES;
    let beyond = (guest.offers()?.max_queues + 1).to_string();
    for value in ["0", &beyond, "4294967297", "-1", "two"] {
        guest.publish(&Wish::default().with(key, value))?;
        guest.refused_for(key).with_context(|| value.to_owned())?;
        guest.restart()?;
    }
    guest.connect(&Wish::default())?.works()
}

fn missing_queue_key<W: FrontWorld>(guest: &mut Guest<W>) -> Result<()> {
    for key in ["queue-0/ring-ref", "queue-1/ring-ref", "queue-1/event-channel"] {
        guest.publish(&Wish::queues(2).without(key))?;
        guest.refused_for(key)?;
        guest.restart()?;
    }
    guest.connect(&Wish::queues(2))?.works()
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
