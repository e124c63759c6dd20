use core::fmt::Write as _;
use std::thread;

use super::*;
use crate::{
    PAGE_SIZE,
    bare::{hypercall::tests::install_ours, start::pv::tests::start},
};

/// A console, and the daemon's end of it.
fn console() -> (Console, ByteRing) {
    install_ours();
    let (start, memory) = start(4);
    let page = memory.part(PAGE_SIZE, PAGE_SIZE).unwrap();
    (Console::new(&start).unwrap(), ByteRing::new(page, abi::console::OUT).unwrap())
}

#[test]
fn text_longer_than_the_ring_waits_for_the_daemon() {
    let (mut console, daemon) = console();
    let text = "0123456789".repeat(1000);
    let reader = thread::spawn(move || {
        let mut shown = std::vec::Vec::new();
        while shown.len() < 10_000 {
            let mut chunk = [0; 300];
            let count = daemon.read(&mut chunk).unwrap();
            shown.extend_from_slice(&chunk[..count]);
        }
        shown
    });
    write!(console, "{text}").unwrap();
    console.flush();
    assert_eq!(reader.join().unwrap(), text.as_bytes());
}

#[test]
fn nobody_waits_for_ever_for_a_daemon_that_takes_nothing() {
    let (mut console, daemon) = console();
    console.write(&[b'x'; 3000]);
    console.flush();
    assert_eq!(daemon.waiting(), Ok(2048));
}
