//! Flushes and barriers: what the disk sees, and when.

use blkback::storage::Action;
use blkif_proto::{Op, Status};
use xen_platform::{Access, EventChannels};

use crate::guest::{Rig, Terms, whole};

/// Rule 18: a barrier waits for what came before it and holds back what comes after it.
#[test]
fn a_barrier_has_the_queue_to_itself() {
    let mut rig = Rig::new(Terms::default());
    let pages = rig.pages(1, Access::ReadWrite, 1);
    let data = whole(&pages);
    rig.faults.trace();
    rig.faults.hold(true);
    let ids: Vec<u64> = [Op::Write, Op::Write, Op::WriteBarrier, Op::Write, Op::Read]
        .map(|op| rig.push(op, 0, &data).0)
        .to_vec();
    rig.kick();
    rig.settle();
    assert_eq!(rig.in_flight_at_disk(), 2, "the two writes before the barrier");
    rig.release_one();
    assert_eq!(rig.in_flight_at_disk(), 1, "still one before it");
    rig.release_one();
    assert_eq!(rig.in_flight_at_disk(), 1, "the barrier's first flush, alone");
    rig.release_one();
    assert_eq!(rig.in_flight_at_disk(), 1, "its write, alone");
    rig.release_one();
    assert_eq!(rig.in_flight_at_disk(), 1, "its second flush, alone");
    rig.release_one();
    assert_eq!(rig.in_flight_at_disk(), 2, "then those after it");
    rig.faults.hold(false);
    rig.settle();
    let answers: Vec<_> = std::iter::from_fn(|| rig.answer(1)).collect();
    assert!(answers.iter().all(|answer| answer.status == Status::OKAY));
    let order: Vec<u64> = answers.iter().map(|answer| answer.id).collect();
    assert_eq!(order, ids);
    let (read, write) = (Action::Read { offset: 0 }, Action::Write { offset: 0 });
    let seen = [write, write, Action::Flush, write, Action::Flush, write, read];
    assert_eq!(rig.faults.traced(), seen);
    rig.finish();
}

#[test]
fn a_flush_with_data_flushes_first() {
    let mut rig = Rig::new(Terms::default());
    let pages = rig.pages(1, Access::ReadWrite, 1);
    rig.faults.trace();
    rig.faults.hold(true);
    rig.push(Op::Flush, 0, &whole(&pages));
    rig.push(Op::Flush, 0, &[]);
    rig.kick();
    rig.settle();
    assert_eq!(rig.faults.traced(), [Action::Flush, Action::Flush], "the data waits for its flush");
    rig.faults.hold(false);
    rig.settle();
    assert_eq!(rig.faults.traced()[2..], [Action::Write { offset: 0 }]);
    assert_eq!(std::iter::from_fn(|| rig.answer(1)).count(), 2);
    rig.finish();
}

/// A barrier that fails early writes nothing, and lets the queue go on.
#[test]
fn a_barrier_that_fails() {
    let mut rig = Rig::new(Terms::default());
    let pages = rig.pages(1, Access::ReadWrite, 1);
    rig.faults.trace();
    rig.faults.fail_flushes(Some(nix::errno::Errno::EIO));
    assert_eq!(rig.run(Op::WriteBarrier, 0, &whole(&pages)), Status::ERROR);
    rig.faults.fail_flushes(None);
    assert_eq!(rig.faults.traced(), [Action::Flush], "its data must not be there without its order");
    assert_eq!(rig.run(Op::WriteBarrier, 0, &whole(&pages)), Status::OKAY);
    assert_eq!(rig.run(Op::WriteBarrier, 0, &[]), Status::OKAY, "an empty one is a flush");
    rig.finish();
}

/// A drain while a barrier waits: everything taken is answered first.
#[test]
fn a_drain_finishes_a_waiting_barrier() {
    let mut rig = Rig::new(Terms::default());
    let pages = rig.pages(1, Access::ReadWrite, 1);
    rig.faults.trace();
    rig.faults.hold(true);
    rig.push(Op::Write, 0, &whole(&pages));
    rig.push(Op::WriteBarrier, 8, &whole(&pages));
    rig.kick();
    rig.settle();
    rig.order(blkback::data::handle::Order::Drain(rig.key));
    rig.faults.hold(false);
    rig.settle();
    assert_eq!(std::iter::from_fn(|| rig.answer(1)).count(), 2);
    assert!(rig.reports.try_recv().is_ok());
    rig.give_back(pages);
}

#[test]
fn what_comes_during_a_barrier_is_not_forgotten() {
    let mut rig = Rig::new(Terms::default());
    let pages = rig.pages(1, Access::ReadWrite, 1);
    rig.faults.trace();
    rig.faults.hold(true);
    rig.push(Op::WriteBarrier, 0, &whole(&pages));
    rig.kick();
    rig.settle();
    rig.push(Op::Read, 0, &whole(&pages));
    rig.kick();
    rig.events.notify(rig.port).unwrap();
    rig.settle();
    rig.faults.hold(false);
    rig.settle();
    assert_eq!(std::iter::from_fn(|| rig.answer(1)).count(), 2);
    // And its event is delivered again afterwards.
    assert_eq!(rig.run(Op::Read, 0, &whole(&pages)), Status::OKAY);
    rig.finish();
}
