//! Clauses that Linux' own driver, used from outside, cannot be put to, and by which rule.

use blkif_proto::Abi;

/// By area, the first word of a clause's name.
const AREAS: &[(&str, &str)] = &[("recovery", DOES_NOT_WAIT)];

const LAYOUT: &str = "a kernel speaks the layout of its own processor only";
const BLOCKS: &str = "it has no segment blocks";
const DIALECT: &str = "it does not know this way to tell of several pages";
const BARRIER: &str = "users of a kernel's disk cannot ask for a barrier";
const QUEUE: &str = "users of a kernel's disk cannot choose the queue";
const NOT_TOLD: &str = "users of a kernel's disk are not told";
const DOES_NOT_WAIT: &str = "it does not wait for another backend: see xenbus.backend-gone";
const TAKES_NO_TIME: &str = "it cannot be told how long to wait";
const HYPERVISOR: &str = "only the simulated hypervisor tells what is left";

/// By name.
const CLAUSES: &[(&str, &str)] = &[
    ("ring.whole-requests", BLOCKS),
    ("ring.queues-apart", QUEUE),
    ("requests.barrier-bytes", BARRIER),
    ("requests.only-what-is-offered", BARRIER),
    ("requests.read-only-refuses-all", BARRIER),
    ("sizes.blocks-bytes", BLOCKS),
    ("sizes.blocks-never-with-indirect", BLOCKS),
    ("sizes.blocks-stride", BLOCKS),
    ("sizes.max-request-size", BLOCKS),
    ("sizes.max-requests", BLOCKS),
    ("sizes.no-indirect-barrier", BARRIER),
    ("grants.nothing-left", HYPERVISOR),
    ("features.pages-dialect", DIALECT),
    ("features.dialect-of-2010", DIALECT),
    ("features.lesser-maxima", BLOCKS),
    ("xenbus.never-silent", TAKES_NO_TIME),
    ("xenbus.tells-of-closing", NOT_TOLD),
    ("disk.as-told", NOT_TOLD),
    ("status.unsupported-at-run-time", BARRIER),
    ("hostile.unknown-id-among-blocks", BLOCKS),
    ("hostile.counts", NOT_TOLD),
];

/// Why a clause is not one for Linux' driver, if it is not.
pub fn beyond_linux(clause: &str, abi: Abi) -> Option<&'static str> {
    let of = |table: &[(&str, &'static str)], name: &str| {
        table.iter().find(|(known, _)| *known == name).map(|(_, reason)| *reason)
    };
    let area = clause.split_once('.').map_or(clause, |(area, _)| area);
    let reason = of(CLAUSES, clause).or(of(AREAS, area));
    reason.or((abi != Abi::NATIVE).then_some(LAYOUT))
}

#[cfg(test)]
mod tests;
