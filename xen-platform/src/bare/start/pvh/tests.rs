use alloc::string::ToString as _;

use super::*;
use crate::{
    Port,
    bare::hypercall::tests::{install_ours, set_parameter},
    page::tests::leaked,
};

/// The start of a guest whose command line lies at an odd address.
pub(in crate::bare) fn start() -> (Option<Start>, SharedMem<'static>) {
    install_ours();
    let memory = leaked(4);
    let address = |page: usize| (memory.as_ptr().addr() + page * PAGE_SIZE) as u64;
    memory.word32(0).unwrap().store(0x336E_C578, Ordering::Relaxed);
    memory.word64(abi::hvm_start_info::COMMAND_LINE).unwrap().store(address(1) + 3, Ordering::Relaxed);
    memory.part(PAGE_SIZE + 3, 10).unwrap().write(b"info a=b\0c");
    set_parameter(abi::HVM_PARAM_CONSOLE_PFN, address(2) / 4096);
    set_parameter(abi::HVM_PARAM_CONSOLE_EVTCHN, 4);
    set_parameter(abi::HVM_PARAM_STORE_PFN, address(3) / 4096);
    set_parameter(abi::HVM_PARAM_STORE_EVTCHN, 5);
    let info = NonNull::new(memory.as_ptr()).unwrap();
    // SAFETY: pages that stay.
    (unsafe { Start::pvh(info) }, memory)
}

#[test]
fn what_xen_hands_over_is_found() {
    let (start, memory) = start();
    let start = start.unwrap();
    assert_eq!(start.command_line(), "info a=b".to_string());
    let place = |page: SharedMem<'static>| page.as_ptr().addr() - memory.as_ptr().addr();
    let (console, store) = (start.console().unwrap(), start.store().unwrap());
    assert_eq!((place(console.page), console.port()), (2 * PAGE_SIZE, Port(4)));
    assert_eq!((place(store.page), store.port()), (3 * PAGE_SIZE, Port(5)));
}

#[test]
fn frames_are_addresses() {
    assert_eq!(start().0.unwrap().memory().frame(0x1234_5678), Some(0x12345));
}

#[test]
fn other_pages_are_not_taken_for_a_start() {
    let page = leaked(1);
    let info = NonNull::new(page.as_ptr()).unwrap();
    // SAFETY: a page that stays; nothing is read behind the magic.
    assert!(unsafe { Start::pvh(info) }.is_none());
}

#[test]
fn the_world_is_mapped_by_the_guests_own_frames() {
    use crate::bare::{Reserved, World};

    let (start, _) = start();
    let reserved = Reserved { shared_info: leaked(1), grant_table: leaked(2), pool: leaked(16) };
    let world = World::new(&start.unwrap(), reserved);
    assert!(world.is_ok(), "{world:?}");
    let frame = |pages: SharedMem<'static>, n| (pages.as_ptr().addr() / PAGE_SIZE + n) as u64;
    let mapped = crate::bare::hypercall::tests::mapped();
    let expected = [
        (abi::XENMAPSPACE_SHARED_INFO, 0, frame(reserved.shared_info, 0)),
        (abi::XENMAPSPACE_GRANT_TABLE, 0, frame(reserved.grant_table, 0)),
        (abi::XENMAPSPACE_GRANT_TABLE, 1, frame(reserved.grant_table, 1)),
    ];
    assert_eq!(mapped, expected);
}
