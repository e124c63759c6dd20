//! Clauses about backends: the scripted peer is a guest.

mod ring;

use xen_platform::sim;

use super::{Clause, rig::Guest};

/// The scripted frontend of the simulated world.
pub type Peer = Guest<sim::World>;

/// Every clause, by area.
pub fn clauses() -> Vec<&'static Clause<Peer>> {
    [ring::CLAUSES].into_iter().flatten().collect()
}
