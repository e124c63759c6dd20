use alloc::vec::Vec;

use super::*;
use crate::{bare::abi, page::tests::leaked};

const INDICES: [usize; 2] = [abi::console::OUT.consumer, abi::console::OUT.producer];

fn ring(at: u32) -> (ByteRing, SharedMem<'static>) {
    let page = leaked(1);
    for index in INDICES {
        page.word32(index).unwrap().store(at, Ordering::Relaxed);
    }
    (ByteRing::new(page, abi::console::OUT).unwrap(), page)
}

#[test]
fn bytes_come_out_in_order_across_every_wrap() {
    // Just before the ring's end, and before that of the indices.
    let (ring, _) = ring(0u32.wrapping_sub(1000));
    let (mut sent, mut received) = (Vec::new(), Vec::new());
    for round in 0u32..200 {
        let bytes: Vec<u8> =
            (0..round % 97).map(|i| round.wrapping_mul(31).wrapping_add(i).to_le_bytes()[0]).collect();
        let written = ring.write(&bytes).unwrap();
        sent.extend_from_slice(&bytes[..written]);
        let mut out = [0; 61];
        let read = ring.read(&mut out).unwrap();
        received.extend_from_slice(&out[..read]);
    }
    let mut rest = [0; 2048];
    let read = ring.read(&mut rest).unwrap();
    received.extend_from_slice(&rest[..read]);
    assert_eq!(received, sent);
}

#[test]
fn a_full_ring_takes_no_more_and_an_empty_one_gives_none() {
    let (ring, _) = ring(77);
    assert_eq!(ring.write(&[7; 3000]), Ok(2048));
    assert_eq!(ring.write(&[7]), Ok(0));
    assert_eq!(ring.read(&mut [0; 3000]), Ok(2048));
    assert_eq!(ring.read(&mut [0; 1]), Ok(0));
}

#[test]
fn indices_that_cannot_be_are_told() {
    let (ring, page) = ring(0);
    page.word32(INDICES[1]).unwrap().store(2049, Ordering::Relaxed);
    assert_eq!(ring.write(&[1]), Err(Corrupt));
    assert_eq!(ring.read(&mut [0]), Err(Corrupt));
    let mut outside = [1; 1024];
    page.read(&mut outside);
    assert_eq!(outside, [0; 1024], "nothing before the ring was touched");
}

#[test]
fn a_ring_must_lie_in_its_page() {
    let small = leaked(1).part(0, 2048).unwrap();
    assert!(ByteRing::new(small, abi::console::OUT).is_none());
}
