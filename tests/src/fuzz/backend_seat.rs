//! The backend's seat: a frontend, from the first look at XenStore to the last, in one thread. Wherever it waits, the backend does
//! what the bytes say next; when they are through, time passes.
//!
//! Whatever the backend does:
//! - every call comes back, and what was accepted is given back once, in the end at the latest;
//! - nothing of the guest stays lent to a backend that lets go of it.

mod act;
mod application;
mod hand;
pub(crate) mod world;

use std::sync::{Arc, Mutex};

use arbitrary::Arbitrary;
use blkfront::{Frontend, SegmentChoice};
use blkif_proto::Abi;
use xen_platform::fake::Machine;

use act::{Act, Wishes, Work};
use application::Application;
use hand::Hand;
use world::Seat;

/// Acts of each side in one run.
const ACTS: usize = 150;

#[derive(Debug, Arbitrary)]
struct Script {
    wishes: Wishes,
    /// The backend's, in order.
    acts: Vec<Act>,
    /// The application's, between the handshake and the stop.
    work: Vec<Work>,
}

/// Whatever a backend does, the application has its work back and its memory.
pub fn backend_seat(data: &[u8]) {
    let Some(mut script) = super::script::<Script>(data) else { return };
    script.acts.truncate(ACTS);
    script.work.truncate(ACTS);
    let lets_go = !script.wishes.raw && script.acts.iter().all(Act::keeps_to_the_ring);
    script.acts.splice(..0, script.wishes.handshake());
    let machine = Machine::new(1);
    let hand = Hand::new(&machine, &script.wishes, script.acts);
    // What a process leaves is taken back when it ends: this one does not, before all was counted.
    let world = machine.world(hand.guest);
    let hand = Arc::new(Mutex::new(hand));
    let seat = Seat::new(world.clone(), &machine, hand.clone());
    let held = live(seat, &script.wishes, script.work);
    let leaks = machine.leaks();
    // What is still mapped when it is given up stays out of use: no lender can know when that ends.
    let all_back = (leaks.granted, leaks.pages) == (0, 0);
    assert!(all_back || !lets_go || held > 0 || leaks.mapped > 0, "{leaks:?}");
    drop((hand, world));
    assert_eq!(machine.leaks().mapped, 0);
}

/// From the probe to the stop, or to where the backend makes it end. How many buffers the application has in the end: those that come
/// back while it stops cannot be given back any more.
fn live(seat: Seat, wishes: &Wishes, work: Vec<Work>) -> usize {
    let path = hand::frontend(seat.guest());
    let config = blkfront::Config {
        queues: u32::from(wishes.queues % 3) + 1,
        ring_pages: 1 << (wishes.ring_pages % 3),
        persistent: wishes.persistent,
        segments: [
            SegmentChoice::Auto,
            SegmentChoice::Direct,
            SegmentChoice::Blocks,
            SegmentChoice::Indirect,
        ][usize::from(wishes.segments) % 4],
        max_segments: 64,
        abi: [Abi::X86_64, Abi::X86_32][usize::from(wishes.abi) % 2],
        timeout: std::time::Duration::from_secs(2),
        ..blkfront::Config::default()
    };
    let Ok(frontend) = Frontend::probe_within(seat, &path, config.timeout) else { return 0 };
    let Ok(configured) = frontend.configure(config) else { return 0 };
    let Ok(prepared) = configured.set_up_queues() else { return 0 };
    let Ok((device, queues)) = prepared.start() else { return 0 };
    let mut application = Application::new(device, queues);
    for work in work {
        application.work(work);
    }
    application.stop()
}
