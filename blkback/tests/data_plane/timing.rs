//! How long requests are in each stage, by a clock that stands still unless it is told to go.

use std::time::Duration;

use blkback::{
    limit::Rates,
    stats::{Histogram, Watch},
};
use blkif_proto::Op;
use xen_platform::Access;

use crate::guest::{Rig, Terms, whole};

const MS: Duration = Duration::from_millis(1);

fn timed() -> Terms {
    Terms { watch: Watch { timed: true, slow: None }, ..Terms::default() }
}

/// How many were counted, and how many milliseconds they took together.
fn counted(histogram: &Histogram) -> (u64, f64) {
    let reading = histogram.read();
    (reading.count(), (reading.seconds() * 1e6).round() / 1e3)
}

#[test]
fn the_disk_takes_its_time() {
    let mut rig = Rig::new(timed());
    let pages = rig.pages(1, Access::ReadWrite, 1);
    rig.faults.hold(true);
    rig.push(Op::Read, 0, &whole(&pages));
    rig.push(Op::WriteBarrier, 0, &whole(&pages));
    rig.kick();
    rig.settle();
    rig.machine.advance(MS * 5);
    // The read, and then the three steps of the barrier that waited for it.
    for _ in 0..4 {
        rig.release_one();
        rig.machine.advance(MS * 2);
    }
    let stages = &rig.stats.stages;
    assert_eq!(counted(&stages.storage), (2, 5.0 + 6.0));
    assert_eq!(counted(&stages.ring), (2, 5.0), "the barrier had to be alone");
    assert_eq!((counted(&stages.data), counted(&stages.respond)), ((2, 0.0), (2, 0.0)));
    assert_eq!(stages.storage.read().quantile(1.0), Some(0.008_192));
    while rig.answer(1).is_some() {}
    rig.finish();
}

#[test]
fn what_waits_in_the_ring_is_timed_there() {
    let rates = Rates { iops: Some(10), ..Rates::default() };
    let mut rig = Rig::new(Terms { rates: Some(rates), ..timed() });
    rig.machine.advance(MS * 1000);
    (0..5).for_each(|_| _ = rig.push(Op::Flush, 0, &[]));
    rig.kick();
    rig.settle();
    for _ in 0..3 {
        rig.machine.advance(MS * 100);
        rig.settle();
    }
    // A burst of two; the others one after the other.
    assert_eq!(counted(&rig.stats.stages.ring), (5, 100.0 + 200.0 + 200.0));
    assert_eq!(rig.stats.held.get(), 3);
    while rig.answer(1).is_some() {}
    rig.finish();
}

#[test]
fn a_full_ring_is_timed() {
    let mut rig = Rig::new(timed());
    rig.faults.hold(true);
    let entries = rig.limits.max_requests;
    (0..entries - 1).for_each(|_| _ = rig.push(Op::Flush, 0, &[]));
    rig.kick();
    rig.settle();
    rig.machine.advance(MS * 3);
    rig.push(Op::Flush, 0, &[]);
    rig.kick();
    rig.settle();
    assert_eq!(rig.stats.in_flight.get(), u64::from(entries));
    rig.machine.advance(MS * 7);
    rig.release_one();
    rig.machine.advance(MS * 9);
    rig.faults.hold(false);
    rig.settle();
    assert_eq!(rig.stats.ring_full.get(), 7_000_000);
    assert_eq!(rig.stats.in_flight.get(), 0);
    while rig.answer(1).is_some() {}
    rig.finish();
}

#[test]
fn nobody_asks_nothing_is_timed() {
    let mut rig = Rig::new(Terms::default());
    rig.push(Op::Flush, 0, &[]);
    rig.kick();
    rig.settle();
    assert_eq!(counted(&rig.stats.stages.ring), (0, 0.0));
    assert_eq!(rig.stats.done.flushes.get(), 1);
    while rig.answer(1).is_some() {}
    rig.finish();
}
