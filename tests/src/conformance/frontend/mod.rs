//! Clauses about frontends: the scripted peer is a backend.
//!
//! Each clause gives the frontend a [`Job`](super::rig::backend::Job) and plays the other end. Both our library and our tool can
//! be given most jobs; what only the library can be told to do, or only it reports, stands in a list of its own.

mod disk;
mod features;
mod foreign;
mod grants;
mod hostile;
mod recovery;
mod requests;
mod restart;
mod ring;
mod sizes;
mod status;
mod xenbus;

use xen_platform::BackWorld;

pub use foreign::beyond_linux;

use super::{
    Clause,
    rig::{Processes, backend::Backend},
};

/// Every clause that a frontend in a process of its own, or else in a thread, can be put to, by area.
pub fn clauses<W: BackWorld>(processes: Processes) -> Vec<Clause<Backend<W>>> {
    let of_both = [
        ring::clauses(),
        requests::clauses(),
        sizes::clauses(),
        grants::clauses(),
        features::clauses(),
        xenbus::clauses(),
        disk::clauses(),
        status::clauses(),
        hostile::clauses(),
        restart::clauses(),
    ];
    let of_the_library = [
        ring::library_clauses(),
        requests::library_clauses(),
        sizes::library_clauses(),
        grants::library_clauses(),
        disk::library_clauses(),
        status::library_clauses(),
        xenbus::library_clauses(),
        hostile::library_clauses(),
        recovery::library_clauses(),
    ];
    let more = of_the_library.into_iter().filter(|_| processes == Processes::One);
    of_both.into_iter().chain(more).flatten().collect()
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
