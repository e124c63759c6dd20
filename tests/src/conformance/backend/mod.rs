//! Clauses about backends: the scripted peer is a guest.
//!
//! A clause over [`Guest`] needs nothing but a guest with a writable disk and runs in any world; one over [`Rig`] also plays
//! toolstack, looks at the image from outside or has several guests.

mod blocks;
mod disk;
mod drivers;
mod flush;
mod hostile;
mod image;
mod indirect;
mod keys;
mod killed;
mod needs;
mod negotiation;
mod neighbours;
mod persistent;
mod queues;
mod races;
mod recovery;
mod refusals;
mod requests;
mod ring;
mod ring_pages;
mod toolstack;
mod xenbus;

pub use needs::needs;
use xen_platform::FrontWorld;

use super::{
    Clause,
    rig::{Guest, Rig},
};

/// Clauses about requests, for a guest of any world. A backend that moves data in several ways is put to them in each.
pub fn data<W: FrontWorld>() -> Vec<Clause<Guest<W>>> {
    [
        ring::clauses(),
        ring_pages::clauses(),
        requests::clauses(),
        refusals::clauses(),
        flush::clauses(),
        indirect::clauses(),
        blocks::clauses(),
        negotiation::clauses(),
        queues::clauses(),
        persistent::clauses(),
        hostile::clauses(),
        races::clauses(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// Clauses about keys and states, for a guest of any world.
pub fn control<W: FrontWorld>() -> Vec<Clause<Guest<W>>> {
    [keys::clauses(), xenbus::clauses(), drivers::clauses()].into_iter().flatten().collect()
}

/// Clauses about requests, for whoever sees the image from outside; in each way to move data too.
pub fn images() -> Vec<Clause<Rig>> {
    disk::clauses()
}

/// Clauses about devices, for whoever is toolstack too.
pub fn devices() -> Vec<Clause<Rig>> {
    [toolstack::clauses(), image::clauses(), neighbours::clauses(), recovery::clauses()]
        .into_iter()
        .flatten()
        .collect()
}

/// Clauses about a backend in a process of its own, which can be killed.
pub fn processes() -> Vec<Clause<Rig>> {
    killed::clauses()
}
