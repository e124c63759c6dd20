//! Clauses about backends: the scripted peer is a guest.
//!
//! A clause over [`Guest`] needs nothing but a guest with a writable disk and runs in any world; one over [`Rig`](super::rig::Rig) also plays
//! toolstack, looks at the image from outside or has several guests.

mod blocks;
mod flush;
mod indirect;
mod negotiation;
mod requests;
mod ring;
mod ring_pages;

use xen_platform::FrontWorld;

use super::{Clause, rig::Guest};

/// Clauses about requests, for a guest of any world. A backend that moves data in several ways is put to them in each.
pub fn data<W: FrontWorld>() -> Vec<Clause<Guest<W>>> {
    [
        ring::clauses(),
        ring_pages::clauses(),
        requests::clauses(),
        flush::clauses(),
        indirect::clauses(),
        blocks::clauses(),
        negotiation::clauses(),
    ]
    .into_iter()
    .flatten()
    .collect()
}
