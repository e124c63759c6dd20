//! Clauses about frontends: the scripted peer is a backend.
//!
//! Each clause gives the frontend a [`Job`](super::rig::backend::Job) and plays the other end. Both our library and our tool can
//! be given most jobs; what only the library can be told to do, or only it reports, stands in a list of its own.

mod disk;
mod features;
mod grants;
mod hostile;
mod recovery;
mod requests;
mod restart;
mod ring;
mod sizes;
mod status;
mod xenbus;

use super::{
    Clause,
    rig::{Processes, backend::Backend},
};

/// Every clause that a frontend in a process of its own, or else in a thread, can be put to, by area.
pub fn clauses(processes: Processes) -> Vec<&'static Clause<Backend>> {
    let of_both = [
        ring::CLAUSES,
        requests::CLAUSES,
        sizes::CLAUSES,
        grants::CLAUSES,
        features::CLAUSES,
        xenbus::CLAUSES,
        disk::CLAUSES,
        status::CLAUSES,
        hostile::CLAUSES,
        restart::CLAUSES,
    ];
    let of_the_library = [
        ring::LIBRARY_CLAUSES,
        requests::LIBRARY_CLAUSES,
        sizes::LIBRARY_CLAUSES,
        grants::LIBRARY_CLAUSES,
        disk::LIBRARY_CLAUSES,
        status::LIBRARY_CLAUSES,
        xenbus::LIBRARY_CLAUSES,
        hostile::LIBRARY_CLAUSES,
        recovery::LIBRARY_CLAUSES,
    ];
    let more = if processes == Processes::One { &of_the_library[..] } else { &[] };
    of_both.iter().chain(more).copied().flatten().collect()
}

const PAGE: u32 = 4096;

type Offer = &'static [(&'static str, &'static str)];

/// As many segment blocks as there can be.
const BLOCKS: Offer =
    &[("max-request-segments", "255"), ("max-request-size", "1044480"), ("max-requests", "32")];
/// As many indirect segments as there can be.
const INDIRECT: Offer = &[("feature-max-indirect-segments", "4096")];
/// Every operation.
const OPERATIONS: Offer = &[
    ("feature-flush-cache", "1"),
    ("feature-barrier", "1"),
    ("feature-discard", "1"),
    ("discard-granularity", "4096"),
    ("discard-secure", "1"),
];
