//! What a batch costs, counted: system calls and notifications.

use blkif_proto::Op;
use xen_platform::{Access, EventChannels};

use crate::guest::{Rig, Terms, strategies, whole};

#[test]
fn one_notification_for_a_batch() {
    for (strategy, persistent) in strategies() {
        let mut rig = Rig::new(Terms { strategy, persistent, ..Terms::default() });
        let pages = rig.pages(4, Access::ReadWrite, 1);
        for round in 1..=5 {
            (0..32).for_each(|n| _ = rig.push(Op::Read, n * 8, &whole(&pages)));
            assert!(!rig.ring.arm().unwrap(), "ask for a notification");
            rig.kick();
            rig.settle();
            assert_eq!(rig.stats.notifications.get(), round, "{strategy:?}");
            assert_eq!(rig.stats.batches.get(), round, "{strategy:?}");
            assert_eq!(std::iter::from_fn(|| rig.answer(1)).count(), 32);
        }
        assert_eq!(rig.stats.requests.get(), 160);
        assert_eq!(rig.stats.bytes_read.get(), 160 * 4 * 4096);
        rig.finish();
    }
}

#[test]
fn no_notification_that_nobody_asked_for() {
    let mut rig = Rig::new(Terms::default());
    let pages = rig.pages(1, Access::ReadWrite, 1);
    rig.faults.hold(true);
    (0..16).for_each(|n| _ = rig.push(Op::Read, n * 8, &whole(&pages)));
    rig.kick();
    rig.settle();
    assert!(!rig.ring.arm_after(16).unwrap(), "ask for one when all are answered");
    rig.faults.pass(10);
    rig.settle();
    assert_eq!(rig.stats.notifications.get(), 0);
    rig.faults.hold(false);
    rig.settle();
    assert_eq!(rig.stats.notifications.get(), 1);
    rig.finish();
}

/// While a worker looks at a ring, it asks for no notification; when it sleeps, for one.
#[test]
fn one_event_wakes_one_batch() {
    let mut rig = Rig::new(Terms::default());
    let pages = rig.pages(1, Access::ReadWrite, 1);
    let before = rig.stats.events.get();
    (0..10).for_each(|n| _ = rig.push(Op::Read, n * 8, &whole(&pages)));
    assert!(rig.ring.publish().is_needed(), "the sleeping worker asked for it");
    rig.events.notify(rig.port).unwrap();
    rig.events.notify(rig.port).unwrap();
    rig.push(Op::Read, 0, &whole(&pages));
    assert!(!rig.ring.publish().is_needed(), "once is enough");
    rig.settle();
    assert_eq!(rig.stats.events.get() - before, 1, "events merge");
    assert_eq!(std::iter::from_fn(|| rig.answer(1)).count(), 11);
    rig.finish();
}

/// Spurious events change nothing.
#[test]
fn an_event_storm() {
    let mut rig = Rig::new(Terms::default());
    for _ in 0..100 {
        rig.events.notify(rig.port).unwrap();
        rig.settle();
    }
    assert_eq!((rig.stats.requests.get(), rig.stats.notifications.get()), (0, 0));
    rig.finish();
}
