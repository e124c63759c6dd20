use alloc::string::ToString as _;
use core::sync::atomic::Ordering;

use super::super::Memory;
use super::*;
use crate::{Port, page::tests::leaked};

/// A guest of `pages` pages whose base lies where `start_info` does; the machine's numbers count down from 1000.
pub(in crate::bare) fn start(pages: usize) -> (Start, SharedMem<'static>) {
    let memory = leaked(pages);
    let list = leaked((pages * 8).div_ceil(PAGE_SIZE));
    let set = |at: usize, value: u64| memory.word64(at).unwrap().store(value, Ordering::Relaxed);
    (0..pages).for_each(|page| list.word64(page * 8).unwrap().store(machine_frame(page), Ordering::Relaxed));
    memory.write(b"xen-3.0-x86_64");
    set(start_info::PAGES, pages as u64);
    set(start_info::SHARED_INFO, 77 << 12);
    set(start_info::FRAME_LIST, list.as_ptr().addr() as u64);
    set(start_info::CONSOLE_FRAME, machine_frame(1));
    set(start_info::STORE_FRAME, machine_frame(2));
    memory.word32(start_info::CONSOLE_PORT).unwrap().store(4, Ordering::Relaxed);
    memory.word32(start_info::STORE_PORT).unwrap().store(5, Ordering::Relaxed);
    (look(memory).unwrap(), memory)
}

/// What a guest finds in its memory.
pub(in crate::bare) fn look(memory: SharedMem<'static>) -> Option<Start> {
    let base = NonNull::new(memory.as_ptr())?;
    // SAFETY: pages that stay; the list has as many words.
    unsafe { Start::pv(base, base.addr().get()) }
}

pub(in crate::bare) fn machine_frame(page: usize) -> u64 {
    1000 - page as u64
}

#[test]
fn what_xen_hands_over_is_found() {
    let (start, memory) = start(8);
    memory.part(start_info::COMMAND_LINE, 100).unwrap().write(b"verify queues=2");
    assert_eq!(start.command_line(), "verify queues=2".to_string());
    let Memory::Pv(pages) = start.memory() else { panic!("{start:?}") };
    assert_eq!(pages.shared_info(), 77);
    let place = |daemon: Daemon| (daemon.page.as_ptr().addr() - memory.as_ptr().addr(), daemon.port());
    assert_eq!(place(start.console().unwrap()), (PAGE_SIZE, Port(4)));
    assert_eq!(place(start.store().unwrap()), (2 * PAGE_SIZE, Port(5)));
}

#[test]
fn a_command_line_without_an_end_is_as_long_as_its_room() {
    let (start, memory) = start(2);
    memory.part(start_info::COMMAND_LINE, 1024).unwrap().write(&[b'x'; 1024]);
    assert_eq!(start.command_line().len(), 1024);
}

#[test]
fn pages_have_the_machines_numbers() {
    let (start, memory) = start(8);
    let base = memory.as_ptr().addr();
    let Memory::Pv(memory) = start.memory() else { panic!("{start:?}") };
    assert_eq!(memory.frame(base + 3 * PAGE_SIZE + 17), Some(machine_frame(3)));
    assert_eq!(memory.frame(base + 8 * PAGE_SIZE), None);
    assert_eq!(memory.frame(base - 1), None);
    assert!(memory.page(machine_frame(8)).is_none());
}

#[test]
fn other_pages_are_not_taken_for_a_start() {
    let page = leaked(1);
    page.write(b"xen-3.0-x86_32p");
    assert!(look(page).is_none());
}
