//! Rings of several pages, in the three dialects in which frontends tell of them (docs/PROTOCOL.md sections 1.2, 3.1 and 4.4).

use anyhow::{Context as _, Result};
use blkif_proto::{
    Abi,
    keys::{self, RingDialect},
    xenbus::State,
};
use xen_platform::FrontWorld;

use crate::{
    conformance::{
        Clause, EVERY_ABI, ONE_ABI,
        rig::{Guest, Wish},
    },
    must,
};

pub(super) fn clauses<W: FrontWorld>() -> Vec<Clause<Guest<W>>> {
    vec![
        Clause {
            name: "ring.pages-by-order",
            rule: "ring-page-order selects ring-ref0 and on: every ring that is offered works, up to all slots (0.3, 1.2, 4.4).",
            abis: EVERY_ABI,
            check: |guest| powers(guest, RingDialect::Order),
        },
        Clause {
            name: "ring.pages-by-number",
            rule: "num-ring-pages selects ring-ref0 and on (3.1, 4.4, 8.1).",
            abis: EVERY_ABI,
            check: |guest| powers(guest, RingDialect::NumPages),
        },
        Clause {
            name: "ring.pages-of-2010",
            rule: "ring-pages selects ring-ref and ring-ref1 and on (3.1).",
            abis: EVERY_ABI,
            check: |guest| powers(guest, RingDialect::Pages2010),
        },
        Clause {
            name: "ring.pages-of-2010-odd",
            rule: "The dialect of 2010 knows no powers of two; the ring has the largest power of two of entries that fits (1.2, 3.1).",
            abis: EVERY_ABI,
            check: odd_pages,
        },
        Clause {
            name: "ring.pages-order-zero",
            rule: "Order 0 is one page, named ring-ref or, with the key present only, ring-ref0 (0.3, 8.1).",
            abis: ONE_ABI,
            check: order_zero,
        },
        Clause {
            name: "ring.pages-stale-ring-ref0",
            rule: "Without a key that tells of pages, ring-ref counts and ring-ref0 is an earlier driver's (0.3, 8.1).",
            abis: ONE_ABI,
            check: stale_ring_ref0,
        },
        Clause {
            name: "ring.pages-both-keys",
            rule: "Where ring-page-order and num-ring-pages are both there, the order counts (8.1).",
            abis: ONE_ABI,
            check: both_keys,
        },
        Clause {
            name: "ring.pages-beyond-offer-refused",
            rule: "More pages than were offered are refused, by the key (4.4).",
            abis: ONE_ABI,
            check: beyond_offer,
        },
        Clause {
            name: "ring.pages-not-a-power-refused",
            rule: "num-ring-pages must be a power of two (3.1).",
            abis: ONE_ABI,
            check: not_a_power,
        },
        Clause {
            name: "ring.pages-missing-reference-refused",
            rule: "A reference that the number of pages asks for and that is not there is named (4.4).",
            abis: ONE_ABI,
            check: missing_reference,
        },
    ]
}

/// Fills every slot of a ring of `pages` pages three times, then ends it.
fn fill<W: FrontWorld>(guest: &mut Guest<W>, pages: u32, entries: u32, dialect: RingDialect) -> Result<()> {
    let mut connection = guest.connect(&Wish::default().pages(pages, dialect))?;
    let slots = connection.queue().ring.layout().entries();
    must!(slots == entries, "{slots} slots where {entries} belong");
    for round in 0..3 {
        let requests = connection.reads(u64::from(round * slots)..u64::from((round + 1) * slots))?;
        connection.batch_okay(&requests)?;
    }
    connection.works()?;
    guest.close()?;
    connection.take_rings_back()?;
    guest.restart()
}

fn powers<W: FrontWorld>(guest: &mut Guest<W>, dialect: RingDialect) -> Result<()> {
    let most = guest.offers()?.max_ring_pages;
    must!(most >= 2, "only {most} pages are offered");
    for order in 1..=most.ilog2() {
        fill(guest, 1 << order, 32 << order, dialect).with_context(|| format!("order {order}"))?;
    }
    Ok(())
}

fn odd_pages<W: FrontWorld>(guest: &mut Guest<W>) -> Result<()> {
    let entry: u32 = if guest.abi == Abi::X86_32 { 108 } else { 112 };
    for pages in [3, 5, 6, 7, 9, 15] {
        let entries = 1 << ((pages * 4096 - 64) / entry).ilog2();
        fill(guest, pages, entries, RingDialect::Pages2010).with_context(|| format!("{pages} pages"))?;
    }
    Ok(())
}

fn order_zero<W: FrontWorld>(guest: &mut Guest<W>) -> Result<()> {
    for key in [keys::RING_REF, "ring-ref0"] {
        // The reference is only known once the ring is made: the state comes after the keys.
        guest.wait_backend(State::InitWait)?;
        let wish = Wish::default().with(keys::RING_PAGE_ORDER, "0").state(State::Initialising);
        let mut connection = guest.publish(&wish)?;
        let path = format!("{}/{}", guest.vbd.frontend, keys::RING_REF);
        let reference = guest.read(&path)?.context("ring-ref")?;
        guest.change(&[
            (keys::RING_REF, None),
            (key, Some(&reference)),
            (keys::STATE, Some(State::Connected.as_str())),
        ])?;
        guest.wait_backend(State::Connected)?;
        connection.works()?;
        guest.restart()?;
        guest.change(&[("ring-ref0", None)])?;
    }
    Ok(())
}

fn stale_ring_ref0<W: FrontWorld>(guest: &mut Guest<W>) -> Result<()> {
    guest.connect(&Wish::default().with("ring-ref0", "99999").with("ring-ref1", "99998"))?.works()
}

fn both_keys<W: FrontWorld>(guest: &mut Guest<W>) -> Result<()> {
    for number in ["4", "8"] {
        let wish = Wish::default().pages(4, RingDialect::Order).with(keys::NUM_RING_PAGES, number);
        let mut connection = guest.connect(&wish)?;
        let requests = connection.reads(0..128)?;
        connection.batch_okay(&requests)?;
        guest.restart()?;
    }
    Ok(())
}

fn beyond_offer<W: FrontWorld>(guest: &mut Guest<W>) -> Result<()> {
    let most = guest.offers()?.max_ring_pages;
    let order = (most.ilog2() + 1).to_string();
    for (key, value) in [
        (keys::RING_PAGE_ORDER, order.as_str()),
        (keys::RING_PAGE_ORDER, "31"),
        (keys::RING_PAGE_ORDER, "32"),
        (keys::RING_PAGE_ORDER, "4294967296"),
        (keys::NUM_RING_PAGES, &(most * 2).to_string()),
        (keys::NUM_RING_PAGES, "0"),
        (keys::RING_PAGES, &(most + 1).to_string()),
        (keys::RING_PAGES, "0"),
    ] {
        guest.publish(&Wish::default().with(key, value))?;
        guest.refused_for(key).with_context(|| format!("{key}={value}"))?;
        guest.restart()?;
        guest.change(&[(key, None)])?;
    }
    guest.connect(&Wish::default())?.works()
}

fn not_a_power<W: FrontWorld>(guest: &mut Guest<W>) -> Result<()> {
    guest.publish(&Wish::default().with(keys::NUM_RING_PAGES, "3"))?;
    guest.refused_for(keys::NUM_RING_PAGES)
}

fn missing_reference<W: FrontWorld>(guest: &mut Guest<W>) -> Result<()> {
    for (dialect, missing) in [
        (RingDialect::Order, "ring-ref0"),
        (RingDialect::Order, "ring-ref3"),
        (RingDialect::NumPages, "ring-ref1"),
        (RingDialect::Pages2010, "ring-ref"),
        (RingDialect::Pages2010, "ring-ref2"),
    ] {
        guest.publish(&Wish::default().pages(4, dialect).without(missing))?;
        guest.refused_for(missing).with_context(|| format!("{dialect:?}"))?;
        guest.restart()?;
    }
    guest.connect(&Wish::default())?.works()
}
