//! A guest in memory, for the tests of every part.

use core::sync::atomic::Ordering;

use super::*;
use crate::{
    Clock as _, Port,
    bare::{
        hypercall::tests::install_ours,
        start::pv::tests::{look, start},
    },
    page::tests::leaked,
};

/// Pages of the guest, and which of them the pool has.
pub(super) const PAGES: usize = 32;
pub(super) const POOL: usize = 16;
pub(super) const POOL_AT: usize = 16;
/// The port of XenStore, and the page.
pub(super) const STORE_PORT: Port = Port(5);
pub(super) const STORE_PAGE: usize = 2;

/// A world, and what it shares with others.
pub(super) struct Bed {
    pub(super) world: World,
    pub(super) memory: SharedMem<'static>,
    pub(super) shared_info: SharedMem<'static>,
}

pub(super) fn world() -> Bed {
    install_ours();
    let (start, memory) = start(PAGES);
    let reserved = reserved(memory);
    // A tick is a quarter of a nanosecond or so.
    let scale = reserved.shared_info.word32(abi::shared_info::TSC_TO_SYSTEM_MUL).unwrap();
    scale.store(1 << 30, Ordering::Relaxed);
    let world = World::new(&start, reserved).unwrap();
    Bed { world, memory, shared_info: reserved.shared_info }
}

fn reserved(memory: SharedMem<'static>) -> Reserved {
    let pool = memory.part(POOL_AT * PAGE_SIZE, POOL * PAGE_SIZE).unwrap();
    Reserved { shared_info: leaked(1), grant_table: leaked(1), pool }
}

/// An event arrives.
pub(super) fn pend(shared_info: SharedMem<'static>, port: Port) {
    let word = shared_info.word64(abi::shared_info::PENDING + port.0 as usize / 64 * 8).unwrap();
    word.fetch_or(1 << (port.0 % 64), Ordering::SeqCst);
}

#[test]
fn pages_that_do_not_fit_are_refused() {
    install_ours();
    let (start, memory) = start(PAGES);
    let good = reserved(memory);
    let refused = |reserved| World::new(&start, reserved).err();
    let shared_info = leaked(2);
    assert_eq!(refused(Reserved { shared_info, ..good }), Some(BootError::Pages("shared page")));
    let pool = good.pool.part(8, 4096).unwrap();
    assert_eq!(refused(Reserved { pool, ..good }), Some(BootError::Pages("pool")));
    let grant_table = good.grant_table.part(0, 2048).unwrap();
    assert_eq!(refused(Reserved { grant_table, ..good }), Some(BootError::Pages("grant table")));
    // 505 pages and the tool stack's 8 references are one more than a page holds.
    let pool = leaked(505);
    assert_eq!(refused(Reserved { pool, ..good }), Some(BootError::Pages("grant table")));
    let grant_table = leaked(65);
    let what = "setting the grant table up";
    assert_eq!(refused(Reserved { grant_table, ..good }), Some(BootError::Refused { what, errno: 1 }));
    assert_eq!(refused(good), None);
}

#[test]
fn a_store_that_xen_does_not_name_is_missed() {
    install_ours();
    let (_, memory) = start(PAGES);
    memory.word64(abi::start_info::STORE_FRAME).unwrap().store(1, Ordering::Relaxed);
    let start = look(memory).unwrap();
    assert_eq!(World::new(&start, reserved(memory)).err(), Some(BootError::Missing("XenStore")));
}

#[test]
fn the_clock_goes_on() {
    let clock = world().world.clock();
    let begin = clock.now();
    while clock.now() <= begin {}
}
