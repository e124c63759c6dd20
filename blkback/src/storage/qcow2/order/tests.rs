//! What is written when.

use std::cell::RefCell;

use super::*;

/// Level 1 at 0x3000, the list of blocks at 0x1000, clusters of 4 KiB.
fn header(l1: u64, reftable: u64) -> Vec<u8> {
    let mut bytes = vec![0; HEADER_BYTES];
    bytes[36..40].copy_from_slice(&4u32.to_be_bytes());
    bytes[40..48].copy_from_slice(&l1.to_be_bytes());
    bytes[48..56].copy_from_slice(&reftable.to_be_bytes());
    bytes[56..60].copy_from_slice(&1u32.to_be_bytes());
    bytes
}

fn order() -> Order {
    Order::new(&Header {
        version: 3,
        cluster_bits: 12,
        size: 1 << 20,
        l1: 0x3000..0x3020,
        reftable: 0x1000..0x2000,
        refcount_order: 4,
        snapshots: 0,
        snapshots_at: 0,
        backing: None,
    })
}

#[test]
fn tables_above_others_wait() {
    let order = order();
    assert_eq!(order.step(0x5000, &[0; 4096]), Step::Now);
    assert_eq!(order.step(0x3018, &[0; 8]), Step::Last);
    assert_eq!(order.step(0x3020, &[0; 8]), Step::Now);
    assert_eq!(order.step(0x1FF8, &[0; 8]), Step::Later);
    assert_eq!(order.step(0, &header(0x3000, 0x1000)), Step::Now);
}

#[test]
fn tables_that_move_are_followed() {
    let order = order();
    assert_eq!(order.step(0, &header(0x8000, 0x1000)), Step::Last);
    assert_eq!((order.step(0x3000, &[0; 8]), order.step(0x8000, &[0; 8])), (Step::Now, Step::Last));
    order.hold(0x1000, vec![1]);
    // What was to go to the old list is in the new one.
    assert_eq!(order.step(0, &header(0x8000, 0x9000)), Step::Now);
    assert_eq!(
        (order.held(), order.step(0x1000, &[0; 8]), order.step(0x9000, &[0; 8])),
        (0, Step::Now, Step::Later)
    );
}

#[test]
fn what_fails_stays() {
    let order = order();
    (1..=3).for_each(|at| order.hold(at, vec![0]));
    let done = RefCell::new(Vec::new());
    let write = |at, _: &[u8]| {
        if at == 2 {
            return Err(io::ErrorKind::StorageFull.into());
        }
        done.borrow_mut().push(at);
        Ok(())
    };
    order.release(2, write).unwrap_err();
    assert_eq!((order.held(), done.borrow().clone()), (2, vec![1]));
    order.release(1, |_, _| Ok(())).unwrap();
    assert_eq!(order.held(), 1, "what came later waits");
}
