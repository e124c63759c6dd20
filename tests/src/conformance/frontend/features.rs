//! Negotiation through XenStore's keys (docs/PROTOCOL.md sections 0, 3.1, 4.3 and 4.4).

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use blkif_proto::xenbus::State;
use xen_platform::BackWorld;

use super::{BLOCKS, PAGE};
use crate::{
    conformance::{
        Clause, EVERY_ABI, ONE_ABI,
        rig::backend::{Backend, Connection, Job, Work},
    },
    must,
};

/// For frontends of any kind.
pub(super) fn clauses<W: BackWorld>() -> Vec<Clause<Backend<W>>> {
    vec![
        Clause {
            name: "features.protocol-always",
            rule: "A frontend always writes protocol (0.2).",
            abis: EVERY_ABI,
            check: protocol_always,
        },
        Clause {
            name: "features.one-page",
            rule: "A ring of one page is told by ring-ref and event-channel alone, also where more is offered (0.3).",
            abis: ONE_ABI,
            check: one_page,
        },
        Clause {
            name: "features.stale-keys",
            rule: "What an earlier driver has left is deleted before the rings are announced (0.3, 8.1 quirk 6).",
            abis: ONE_ABI,
            check: stale_keys,
        },
        Clause {
            name: "features.order-dialect",
            rule: "max-ring-page-order is answered by ring-page-order and ring-ref0 and on, without ring-ref (3.1, 4.4).",
            abis: ONE_ABI,
            check: order_dialect,
        },
        Clause {
            name: "features.pages-dialect",
            rule: "max-ring-pages alone is answered by num-ring-pages and ring-ref0 and on (3.1, 4.4).",
            abis: ONE_ABI,
            check: pages_dialect,
        },
        Clause {
            name: "features.dialect-of-2010",
            rule: "max-ring-pages with max-request-segments is answered by ring-pages, ring-ref, ring-ref1 and on (3.1).",
            abis: ONE_ABI,
            check: dialect_of_2010,
        },
        Clause {
            name: "features.lesser-ring",
            rule: "The ring has the lesser of what both ends are able to do (4.3).",
            abis: ONE_ABI,
            check: lesser_ring,
        },
        Clause {
            name: "features.one-queue-on-top",
            rule: "One queue lies at the top of the directory (8.1 quirk 17).",
            abis: ONE_ABI,
            check: one_queue_on_top,
        },
        Clause {
            name: "features.several-queues-below",
            rule: "Several queues lie in queue-N with multi-queue-num-queues, and nothing of them at the top (4.4).",
            abis: ONE_ABI,
            check: several_queues_below,
        },
        Clause {
            name: "features.lesser-queues",
            rule: "There are as many queues as the lesser of both ends has (4.4).",
            abis: ONE_ABI,
            check: lesser_queues,
        },
        Clause {
            name: "features.lesser-maxima",
            rule: "Each of the max-request keys is at most the backend's (3.1).",
            abis: ONE_ABI,
            check: lesser_maxima,
        },
        Clause {
            name: "features.no-maxima-to-stock",
            rule: "A backend without segment blocks is not told of any (3.1).",
            abis: ONE_ABI,
            check: no_maxima_to_stock,
        },
        Clause {
            name: "features.late",
            rule: "Features may be published as late as state 4; those of requests are read again then (4.3, 8.1 quirk 21).",
            abis: ONE_ABI,
            check: late,
        },
        Clause {
            name: "features.zero-is-none",
            rule: "A feature of 0 is not offered (4.3).",
            abis: ONE_ABI,
            check: zero_is_none,
        },
        Clause {
            name: "features.empty-is-absent",
            rule: "An empty value counts as an absent key (0.31).",
            abis: ONE_ABI,
            check: empty_is_absent,
        },
        Clause {
            name: "features.huge-is-enough",
            rule: "A number beyond every implementation's limits is brought down to our own (8.3).",
            abis: ONE_ABI,
            check: huge_is_enough,
        },
        Clause {
            name: "features.garbage-is-named",
            rule: "A value that is no number is refused with the key's name (4.4, 8.3).",
            abis: ONE_ABI,
            check: garbage_is_named,
        },
    ]
}

/// Errors if one of `absent` is among the frontend's keys.
fn lacks<W: BackWorld>(connection: &Connection<W>, absent: &[&str]) -> Result<()> {
    are_not_among(&connection.keys, absent)
}

fn are_not_among(keys: &BTreeMap<String, String>, absent: &[&str]) -> Result<()> {
    for (name, value) in keys {
        must!(!absent.contains(&name.as_str()), "among the frontend's keys is {name} = {value}");
    }
    Ok(())
}

/// Errors unless the frontend wrote this value.
fn has<W: BackWorld>(connection: &Connection<W>, key: &str, value: &str) -> Result<()> {
    let told = connection.keys.get(key).with_context(|| format!("no {key}"))?;
    must!(told == value, "{key} is {told}, not {value}");
    Ok(())
}

/// Connects with these offers, looks at what the frontend wrote, and lets it do some reads.
fn connected<W: BackWorld>(
    backend: &mut Backend<W>,
    offer: &[(&str, &str)],
    job: Job,
    look: impl FnOnce(&Connection<W>) -> Result<()>,
) -> Result<()> {
    backend.offer(offer)?;
    let job = Job { work: Work::reads(4, PAGE), ..job };
    let connection = backend.connect(job)?;
    look(&connection)?;
    backend.finish(connection)?.ok().map(drop)
}

const MULTI_PAGE_KEYS: &[&str] =
    &["ring-page-order", "num-ring-pages", "ring-pages", "ring-ref0", "ring-ref1", "ring-ref2", "ring-ref3"];
const MULTI_QUEUE_KEYS: &[&str] = &["multi-queue-num-queues", "queue-0", "queue-1"];
const MAXIMA_KEYS: &[&str] = &["max-requests", "max-request-segments", "max-request-size"];

fn protocol_always<W: BackWorld>(backend: &mut Backend<W>) -> Result<()> {
    let name = backend.abi.as_protocol();
    connected(backend, &[], Job::new([]), |connection| has(connection, "protocol", name))
}

fn one_page<W: BackWorld>(backend: &mut Backend<W>) -> Result<()> {
    let offer = [("max-ring-page-order", "4"), ("max-ring-pages", "16"), ("multi-queue-max-queues", "4")];
    connected(backend, &offer, Job::new([]), |connection| {
        must!(connection.keys.contains_key("ring-ref"), "no ring-ref");
        must!(connection.keys.contains_key("event-channel"), "no event-channel");
        lacks(connection, MULTI_PAGE_KEYS)?;
        lacks(connection, MULTI_QUEUE_KEYS)
    })
}

fn stale_keys<W: BackWorld>(backend: &mut Backend<W>) -> Result<()> {
    let stale = [MULTI_PAGE_KEYS, MULTI_QUEUE_KEYS, MAXIMA_KEYS].concat();
    for key in &stale {
        backend.write_frontend(key, "3")?;
    }
    for key in ["queue-0/ring-ref", "queue-0/event-channel", "queue-7/ring-ref0", "ring-ref15"] {
        backend.write_frontend(key, "3")?;
    }
    backend.set_state(State::InitWait)?;
    backend.launch(Job::new(Work::reads(4, PAGE)))?;
    backend.wait_frontend(&[State::Initialised])?;
    let keys = backend.frontend_keys()?;
    are_not_among(&keys, &stale)?;
    let left: Vec<&String> =
        keys.keys().filter(|key| key.starts_with("queue-") || *key == "ring-ref15").collect();
    must!(left.is_empty(), "left: {left:?}");
    must!(keys.contains_key("virtual-device"), "the toolstack's keys are gone");
    let connection = backend.accept()?;
    backend.finish(connection)?.ok().map(drop)
}

fn order_dialect<W: BackWorld>(backend: &mut Backend<W>) -> Result<()> {
    // FreeBSD's backends publish both; the order is the better (8.1 quirk 7).
    let offer = [("max-ring-page-order", "2"), ("max-ring-pages", "4")];
    connected(backend, &offer, Job::new([]).ring_pages(4), |connection| {
        has(connection, "ring-page-order", "2")?;
        (0..4).try_for_each(|n| {
            must!(connection.keys.contains_key(&format!("ring-ref{n}")), "no ring-ref{n}");
            Ok(())
        })?;
        lacks(connection, &["ring-ref", "ring-ref4", "ring-pages"])
    })
}

fn pages_dialect<W: BackWorld>(backend: &mut Backend<W>) -> Result<()> {
    connected(backend, &[("max-ring-pages", "4")], Job::new([]).ring_pages(4), |connection| {
        has(connection, "num-ring-pages", "4")?;
        must!(connection.keys.contains_key("ring-ref0"), "no ring-ref0");
        must!(connection.keys.contains_key("ring-ref3"), "no ring-ref3");
        lacks(connection, &["ring-ref", "ring-ref4", "ring-page-order", "ring-pages"])
    })
}

fn dialect_of_2010<W: BackWorld>(backend: &mut Backend<W>) -> Result<()> {
    backend.offer(BLOCKS)?;
    connected(backend, &[("max-ring-pages", "4")], Job::new([]).ring_pages(4), |connection| {
        has(connection, "ring-pages", "4")?;
        must!(connection.keys.contains_key("ring-ref"), "no ring-ref");
        must!(connection.keys.contains_key("ring-ref1"), "no ring-ref1");
        must!(connection.keys.contains_key("ring-ref3"), "no ring-ref3");
        lacks(connection, &["ring-ref0", "ring-ref4", "ring-page-order", "num-ring-pages"])
    })
}

fn lesser_ring<W: BackWorld>(backend: &mut Backend<W>) -> Result<()> {
    for (offered, wanted, lesser) in [("1", 16, "1"), ("4", 2, "1"), ("3", 8, "3")] {
        connected(
            backend,
            &[("max-ring-page-order", offered)],
            Job::new([]).ring_pages(wanted),
            |connection| has(connection, "ring-page-order", lesser),
        )?;
    }
    Ok(())
}

fn one_queue_on_top<W: BackWorld>(backend: &mut Backend<W>) -> Result<()> {
    connected(backend, &[("multi-queue-max-queues", "4")], Job::new([]), |connection| {
        must!(connection.keys.contains_key("ring-ref"), "no ring-ref at the top");
        must!(connection.keys.contains_key("event-channel"), "no event-channel at the top");
        lacks(connection, &["queue-0", "queue-0/ring-ref"])
    })
}

fn several_queues_below<W: BackWorld>(backend: &mut Backend<W>) -> Result<()> {
    let offer = [("multi-queue-max-queues", "4"), ("max-ring-page-order", "1")];
    connected(backend, &offer, Job::new([]).queues(3).ring_pages(2), |connection| {
        has(connection, "multi-queue-num-queues", "3")?;
        has(connection, "ring-page-order", "1")?;
        for key in ["ring-ref0", "ring-ref1", "event-channel"] {
            for queue in 0..3 {
                let key = format!("queue-{queue}/{key}");
                must!(connection.keys.contains_key(&key), "no {key}");
            }
        }
        lacks(connection, &["ring-ref", "ring-ref0", "ring-ref1", "event-channel", "queue-3"])?;
        lacks(connection, &["queue-0/protocol", "queue-0/ring-page-order", "queue-0/feature-persistent"])
    })
}

fn lesser_queues<W: BackWorld>(backend: &mut Backend<W>) -> Result<()> {
    for (offered, wanted, lesser) in [("2", 4, 2), ("8", 3, 3)] {
        let job = Job::new([]).queues(wanted);
        connected(backend, &[("multi-queue-max-queues", offered)], job, |connection| {
            must!(connection.queues.len() == lesser, "{} queues, not {lesser}", connection.queues.len());
            Ok(())
        })?;
    }
    // A backend that does not know the key has one (8.1 quirk 17).
    backend.remove("multi-queue-max-queues")?;
    connected(backend, &[], Job::new([]).queues(4), |connection| lacks(connection, MULTI_QUEUE_KEYS))
}

fn lesser_maxima<W: BackWorld>(backend: &mut Backend<W>) -> Result<()> {
    let offer = [("max-request-segments", "33"), ("max-request-size", "131072"), ("max-requests", "256")];
    connected(backend, &offer, Job::new([]), |connection| {
        for (key, most) in [(MAXIMA_KEYS[0], 256), (MAXIMA_KEYS[1], 33), (MAXIMA_KEYS[2], 131_072)] {
            let told: u32 = connection.keys.get(key).with_context(|| format!("no {key}"))?.parse()?;
            must!(told > 0 && told <= most, "{key} = {told}, where the backend has {most}");
        }
        must!(connection.keys["max-request-segments"] == "33", "fewer segments than both ends can do");
        Ok(())
    })
}

fn no_maxima_to_stock<W: BackWorld>(backend: &mut Backend<W>) -> Result<()> {
    let offer = [("feature-max-indirect-segments", "256")];
    connected(backend, &offer, Job::new([]), |connection| lacks(connection, MAXIMA_KEYS))
}

fn late<W: BackWorld>(backend: &mut Backend<W>) -> Result<()> {
    backend.set_state(State::InitWait)?;
    backend.launch(Job::new([Work::Flush]))?;
    let mut connection = backend.join()?;
    backend.offer(&[("feature-flush-cache", "1")])?;
    backend.open(&mut connection)?;
    let taken = connection.take()?;
    must!(taken.op == 3, "operation {}, not a flush", taken.op);
    connection.serve(&taken)?;
    backend.finish(connection)?.ok().map(drop)
}

/// Every key that tells of a feature.
const ALL: &[&str] = &[
    "max-ring-page-order",
    "max-ring-pages",
    "multi-queue-max-queues",
    "feature-max-indirect-segments",
    "max-requests",
    "max-request-segments",
    "max-request-size",
    "feature-persistent",
    "feature-flush-cache",
    "feature-barrier",
    "feature-discard",
    "discard-granularity",
    "discard-alignment",
    "discard-secure",
];

/// Gives every key the same value, and errors unless the frontend then speaks the original protocol.
fn original<W: BackWorld>(backend: &mut Backend<W>, value: &str) -> Result<()> {
    for key in ALL {
        backend.write(key, value)?;
    }
    let job = Job::new([Work::write(0, 30 * PAGE)]).persistent().queues(4).ring_pages(4);
    let mut connection = backend.connect(job)?;
    lacks(&connection, MULTI_PAGE_KEYS)?;
    lacks(&connection, MULTI_QUEUE_KEYS)?;
    let mut moved = 0;
    while moved < 240 {
        let taken = connection.take()?;
        must!(taken.op == 1 && !taken.indirect && taken.entries.len() == 1, "{taken:?}");
        connection.must_be_lent(taken.segments[0].gref, Some(xen_platform::Access::Read))?;
        connection.serve(&taken)?;
        moved += taken.sectors();
    }
    backend.wait_frontend(&[State::Closing, State::Closed])?;
    connection.silence(std::time::Duration::ZERO)?;
    backend.finish(connection)?.ok().map(drop)
}

fn zero_is_none<W: BackWorld>(backend: &mut Backend<W>) -> Result<()> {
    original(backend, "0")
}

fn empty_is_absent<W: BackWorld>(backend: &mut Backend<W>) -> Result<()> {
    original(backend, "")
}

fn huge_is_enough<W: BackWorld>(backend: &mut Backend<W>) -> Result<()> {
    let numbers = [
        "max-ring-page-order",
        "max-ring-pages",
        "multi-queue-max-queues",
        "feature-max-indirect-segments",
        "max-requests",
        "max-request-segments",
        "max-request-size",
    ];
    for huge in ["4294967295", "18446744073709551615"] {
        for key in numbers {
            connected(backend, &[(key, huge)], Job::new([]).queues(2).ring_pages(32), |connection| {
                let pages = connection.queues[0].ring.layout().entries();
                must!(pages <= 1024 && connection.queues.len() <= 2, "more than was asked for");
                Ok(())
            })
            .with_context(|| format!("with {key} = {huge}"))?;
            backend.remove(key)?;
        }
    }
    Ok(())
}

fn garbage_is_named<W: BackWorld>(backend: &mut Backend<W>) -> Result<()> {
    for key in ALL {
        for garbage in ["-1", "0x10", "12abc", " 1", "99999999999999999999999"] {
            backend.write(key, garbage)?;
            backend.set_state(State::InitWait)?;
            backend.launch(Job::new([]))?;
            let refused = backend.outcome().and_then(|outcome| outcome.fails_with(key));
            refused.with_context(|| format!("with {key} = {garbage:?}"))?;
        }
        backend.remove(key)?;
    }
    for key in ["feature-persistent", "feature-flush-cache", "feature-barrier", "feature-discard"] {
        backend.write(key, "2")?;
        backend.launch(Job::new([]))?;
        let refused = backend.outcome().and_then(|outcome| outcome.fails_with(key));
        refused.with_context(|| format!("with {key} = 2"))?;
        backend.remove(key)?;
    }
    Ok(())
}
