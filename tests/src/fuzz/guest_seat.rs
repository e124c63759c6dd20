//! The guest's seat: a worker of the daemon in the [fake world](xen_platform::fake), turn by turn in one thread, with two guests. One
//! does what the bytes say; the other is innocent, and its disk works after everything.
//!
//! While the guest leaves the ring's own memory alone ([`tame`](Guest::tame)), each of its requests is answered exactly once, in its
//! form. From then on it may lose its queue, and nothing else may happen. Throughout:
//! - the model of Xen lets the worker touch what was granted, as it was granted, and nothing else: a breach is a fault;
//! - [`disk`] checks every operation as if nothing had been checked before;
//! - in the end nothing of either guest is mapped.

mod act;
pub(crate) mod backend;
pub(crate) mod disk;
mod guest;
pub(crate) mod innocent;

use arbitrary::Arbitrary;
use xen_platform::fake::Machine;

use act::{Act, Shape};
use backend::Backend;
use guest::Guest;
use innocent::Innocent;

/// Acts of one run.
const ACTS: usize = 120;

#[derive(Debug, Arbitrary)]
struct Script {
    shape: Shape,
    acts: Vec<Act>,
}

/// Whatever a guest does, it gets its answers or loses its own disk.
pub fn guest_seat(data: &[u8]) {
    let Some(script) = super::script::<Script>(data) else { return };
    let machine = Machine::new(1);
    let mut innocent = Innocent::new(&machine);
    let mut guest = Guest::new(&machine, &script.shape);
    let mut backend = Backend::new(&machine);
    assert!(backend.start(&mut innocent.spec).is_ok());
    guest.begin(&mut backend);
    for act in script.acts.into_iter().take(ACTS) {
        guest.act(act, &mut backend, &mut [&mut innocent.spec]);
    }
    guest.settle(&mut backend);
    innocent.check(&mut backend);
    guest.check();
    backend.drain(guest.spec.key);
    backend.drain(innocent.spec.key);
    drop(backend);
    assert_eq!(machine.leaks().mapped, 0, "pages stay mapped");
}
