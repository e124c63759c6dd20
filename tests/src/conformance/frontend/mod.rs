//! Clauses about frontends: the scripted peer is a backend.
//!
//! Each clause gives the frontend a [`Job`](super::rig::backend::Job) and plays the other end. Both our library and our tool can
//! be given most jobs; what only the library can be told to do, or only it reports, stands in a list of its own.

mod ring;

use super::{
    Clause,
    rig::{Processes, backend::Backend},
};

/// Every clause that a frontend in a process of its own, or else in a thread, can be put to, by area.
pub fn clauses(processes: Processes) -> Vec<&'static Clause<Backend>> {
    let of_both = [ring::CLAUSES];
    let of_the_library = [ring::LIBRARY_CLAUSES];
    let more = if processes == Processes::One { &of_the_library[..] } else { &[] };
    of_both.iter().chain(more).copied().flatten().collect()
}
