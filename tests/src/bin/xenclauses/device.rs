//! The disk that a guest on real Xen finds in XenStore.

use anyhow::{Context as _, Result};
use blkif_proto::{Abi, keys, xenbus::State};
use tests::{conformance::rig::Guest, world::Vbd};
use xen_platform::{FrontWorld as _, Store as _, linux};

/// What the tool stack writes into a frontend's directory. All else is a driver's.
const OF_THE_TOOLSTACK: [&str; 5] = ["backend", "backend-id", keys::STATE, "virtual-device", "device-type"];

/// The device number of this guest's disk, the first if there are several.
pub(crate) fn number() -> Result<u32> {
    let domain = linux::World::own_domain()?;
    let nodes = linux::World::for_frontend()?.store()?.list(&format!("/local/domain/{domain}/device/vbd"));
    let numbers = nodes.unwrap_or_default();
    numbers.iter().filter_map(|node| node.parse().ok()).min().context("this guest has no disk")
}

/// This guest with its disk of that number, as if no driver had ever touched it. Errors: the backend does not come to state 2.
pub(crate) fn open(number: u32, abi: Abi) -> Result<Guest<linux::World>> {
    let world = linux::World::for_frontend()?;
    let mut store = world.store()?;
    let domain = linux::World::own_domain()?;
    let frontend = format!("/local/domain/{domain}/device/vbd/{number}");
    let backend = store.read(&format!("{frontend}/backend")).context("no backend is named")?;
    let vbd = Vbd { guest: domain, number, cdrom: false, frontend, backend: String::from_utf8(backend)? };
    let mut guest = Guest { world, store, vbd, abi };
    renew(&mut guest)?;
    Ok(guest)
}

/// Brings a disk back to where drivers begin, whatever was done to it.
pub(crate) fn renew(guest: &mut Guest<linux::World>) -> Result<()> {
    let state = format!("{}/{}", guest.vbd.frontend, keys::STATE);
    let own = State::of_node(guest.read(&state)?);
    if (own, guest.backend_state()?) != (State::Initialising, State::InitWait) {
        guest.restart()?;
    }
    let keys = guest.store.list(&guest.vbd.frontend)?;
    let of_drivers = keys.iter().filter(|key| !OF_THE_TOOLSTACK.contains(&key.as_str()));
    guest.change(&of_drivers.map(|key| (key.as_str(), None)).collect::<Vec<_>>())
}
