//! What a backend must offer for a clause to be about it. Ours offers everything.

use blkif_proto::keys::{
    FEATURE_BARRIER, FEATURE_DISCARD, FEATURE_FLUSH_CACHE, FEATURE_MAX_INDIRECT_SEGMENTS, FEATURE_PERSISTENT,
    MAX_REQUEST_SEGMENTS, MAX_RING_PAGE_ORDER, MAX_RING_PAGES, MULTI_QUEUE_MAX_QUEUES,
};

/// A key of the backend's directory, and the least number there.
type Need = (&'static str, u64);

const FLUSH: Need = (FEATURE_FLUSH_CACHE, 1);
const BARRIER: Need = (FEATURE_BARRIER, 1);
const DISCARD: Need = (FEATURE_DISCARD, 1);
const PERSISTENT: Need = (FEATURE_PERSISTENT, 1);
const BLOCKS: Need = (MAX_REQUEST_SEGMENTS, 12);

const fn indirect(segments: u64) -> Need {
    (FEATURE_MAX_INDIRECT_SEGMENTS, segments)
}

const fn queues(most: u64) -> Need {
    (MULTI_QUEUE_MAX_QUEUES, most)
}

const fn order(most: u64) -> Need {
    (MAX_RING_PAGE_ORDER, most)
}

const fn pages(most: u64) -> Need {
    (MAX_RING_PAGES, most)
}

/// By area, the first word of a clause's name.
const AREAS: &[(&str, &[Need])] = &[
    ("barrier", &[BARRIER]),
    ("blocks", &[BLOCKS]),
    ("discard", &[DISCARD]),
    ("flush", &[FLUSH]),
    ("indirect", &[indirect(12)]),
    ("persistent", &[PERSISTENT]),
    ("queues", &[queues(2)]),
];

/// By name, on top of what the area needs.
const CLAUSES: &[(&str, &[Need])] = &[
    ("blocks.discard-flag-is-no-count", &[DISCARD]),
    ("blocks.flush-and-barrier", &[FLUSH, BARRIER]),
    ("blocks.mixed-sizes", &[FLUSH, BARRIER, DISCARD]),
    ("blocks.wraps", &[FLUSH]),
    ("drivers.grub-then-another-driver", &[queues(2), PERSISTENT]),
    ("drivers.kexec", &[queues(2), PERSISTENT]),
    ("drivers.ovmf-then-another-driver", &[queues(2)]),
    ("drivers.segment-blocks-then-another-driver", &[BLOCKS, indirect(20)]),
    ("features.every-large-ring", &[BLOCKS, queues(3), order(2), pages(4)]),
    ("features.ring-size-told-once", &[order(1), pages(2)]),
    ("hostile.descriptors-change-while-read", &[indirect(64)]),
    ("hostile.random-blocks", &[BLOCKS]),
    ("hostile.random-descriptors", &[indirect(700)]),
    ("hostile.read-into-a-read-only-page", &[indirect(12)]),
    ("hostile.references-to-nothing", &[indirect(12)]),
    ("hostile.ring-of-one-page-twice", &[order(2)]),
    ("hostile.whole-ring-changes", &[BLOCKS, PERSISTENT]),
    ("indirect.descriptors-are-checked", &[indirect(600)]),
    ("indirect.foreign-descriptors", &[indirect(1025)]),
    ("indirect.junk-references", &[indirect(513)]),
    ("indirect.moves-data", &[indirect(256)]),
    ("indirect.pages-let-go-before-answer", &[indirect(40)]),
    ("indirect.range", &[indirect(20)]),
    ("indirect.several-descriptor-pages", &[indirect(4096)]),
    ("keys.read-afresh", &[BLOCKS, PERSISTENT, queues(3), order(4)]),
    ("persistent.more-than-are-kept", &[indirect(1100)]),
    ("persistent.only-if-promised", &[indirect(30)]),
    ("persistent.pages-are-used-again", &[indirect(12)]),
    ("persistent.unmapped-before-closed", &[queues(2), indirect(64)]),
    ("request.handle-ignored", &[FLUSH, DISCARD]),
    ("request.id-is-opaque", &[FLUSH]),
    ("request.ids-repeat", &[FLUSH, BARRIER]),
    ("ring.index-wraps", &[FLUSH]),
    ("ring.pages-beyond-offer-refused", &[order(1), pages(2)]),
    ("ring.pages-both-keys", &[order(2), pages(4)]),
    ("ring.pages-by-number", &[pages(2)]),
    ("ring.pages-by-order", &[order(1)]),
    ("ring.pages-missing-reference-refused", &[order(2), pages(4)]),
    ("ring.pages-not-a-power-refused", &[pages(4)]),
    ("ring.pages-of-2010", &[pages(2), BLOCKS]),
    ("ring.pages-of-2010-odd", &[pages(16), BLOCKS]),
    ("ring.pages-order-zero", &[order(1)]),
    ("xenbus.came-back-at-once", &[queues(2)]),
    ("xenbus.came-back-without-closing", &[queues(3), PERSISTENT]),
    ("xenbus.unmapped-before-closed", &[indirect(4096)]),
];

/// The keys that a backend must have in its directory for this clause to apply, each with the least number that does.
pub fn needs(clause: &str) -> impl Iterator<Item = (&'static str, u64)> {
    let area = clause.split_once('.').map_or(clause, |(area, _)| area);
    let of = |table: &'static [(&str, &'static [Need])], name: &str| {
        table.iter().find(|(known, _)| *known == name).map_or(&[][..], |(_, needs)| needs)
    };
    of(AREAS, area).iter().chain(of(CLAUSES, clause)).copied()
}

#[cfg(test)]
mod tests;
