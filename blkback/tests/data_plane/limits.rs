//! Disks with limits: what is held, what is left in the ring, and what becomes of it.

use std::{sync::Arc, time::Duration};

use blkback::{
    data::{
        handle::{Order, Report},
        queue::{QueueKey, QueueSpec},
    },
    limit::{DiskThrottle, Rates},
    stats::QueueStats,
    storage::Image,
};
use blkif_proto::{Op, Request, SegmentMode, Segments, Status};
use ringbuf::{FrontRing, Mapped};
use tokio::sync::mpsc::unbounded_channel;
use xen_platform::{Access, DomId, EventChannels as _, FrontWorld as _, Lender as _};

use crate::guest::{Rig, SECTORS, Terms, whole};

/// One a tenth of a second, and two of those who come after a pause.
fn slow() -> Terms {
    let rates = Rates { iops: Some(10), ..Rates::default() };
    Terms { rates: Some(rates), ..Terms::default() }
}

/// Answers there are.
fn answers(rig: &mut Rig) -> usize {
    std::iter::from_fn(|| rig.answer(1)).inspect(|answer| assert_eq!(answer.status, Status::OKAY)).count()
}

fn flushes(rig: &mut Rig, count: usize) {
    (0..count).for_each(|_| _ = rig.push(Op::Flush, 0, &[]));
    rig.kick();
    rig.settle();
}

#[test]
fn what_may_not_go_yet_waits_in_the_ring() {
    let mut rig = Rig::new(slow());
    rig.machine.advance(Duration::from_secs(1));
    flushes(&mut rig, 10);
    assert_eq!(answers(&mut rig), 2, "a burst");
    assert_eq!(rig.stats.requests.get(), 3, "one is held, the others are in the ring");
    let wakes = rig.worker.wakes_at().unwrap();
    assert_eq!(wakes, rig.machine.now() + Duration::from_millis(100));
    for _ in 0..8 {
        rig.settle();
        assert_eq!(answers(&mut rig), 0, "it is not its time");
        rig.machine.advance(Duration::from_millis(100));
        rig.settle();
        assert_eq!(answers(&mut rig), 1);
    }
    assert_eq!(rig.worker.wakes_at(), None);
    rig.finish();
}

/// Whatever is owed: who ends a connection does not wait for that.
#[test]
fn a_drain_lets_go_what_is_held() {
    let mut rig = Rig::new(slow());
    flushes(&mut rig, 10);
    let before = answers(&mut rig);
    rig.order(Order::Drain(rig.key));
    rig.settle();
    assert_eq!(answers(&mut rig), 1, "the one that was taken after {before}");
    assert!(matches!(rig.reports.try_recv(), Ok(Report::Drained(_))));
}

#[test]
fn a_hand_over_lets_go_what_is_held() {
    let mut rig = Rig::new(slow());
    let pages = rig.pages(1, Access::ReadWrite, 1);
    flushes(&mut rig, 1);
    rig.push(Op::Write, 0, &whole(&pages));
    rig.push(Op::WriteBarrier, 0, &whole(&pages));
    flushes(&mut rig, 5);
    let before = answers(&mut rig);
    let (send, mut paused) = unbounded_channel();
    rig.order(Order::Pause(send));
    rig.settle();
    assert_eq!(answers(&mut rig), 1, "the one that was taken after {before}");
    rig.worker.look_outside();
    assert_eq!(rig.worker.wakes_at(), None);
    assert!(paused.try_recv().is_err(), "only the loop around turns tells");
}

#[test]
fn a_held_barrier_is_a_barrier() {
    let mut rig = Rig::new(slow());
    let pages = rig.pages(1, Access::ReadWrite, 1);
    flushes(&mut rig, 2);
    rig.faults.hold(true);
    rig.faults.trace();
    rig.push(Op::WriteBarrier, 0, &whole(&pages));
    rig.push(Op::Write, 0, &whole(&pages));
    rig.kick();
    for _ in 0..4 {
        rig.machine.advance(Duration::from_secs(1));
        rig.settle();
    }
    assert_eq!(rig.faults.traced().len(), 1, "its flush, and nothing behind it");
    rig.faults.hold(false);
    rig.settle();
    rig.machine.advance(Duration::from_secs(1));
    rig.settle();
    assert_eq!(answers(&mut rig), 4);
    rig.finish();
}

/// Limits are in bytes that are moved, not in pages that were announced.
#[test]
fn indirect_requests_pay_for_what_they_move() {
    let rates = Rates { bytes: Some(64 << 10), burst_ms: Some(1000), ..Rates::default() };
    let terms = Terms { mode: SegmentMode::Indirect, rates: Some(rates), ..Terms::default() };
    let mut rig = Rig::new(terms);
    rig.machine.advance(Duration::from_secs(2));
    let pages = rig.pages(16, Access::ReadWrite, 1);
    let sectors: Vec<_> =
        whole(&pages).iter().map(|page| blkif_proto::Segment { last_sect: 0, ..*page }).collect();
    for sector in 0..7 {
        // 8 KiB each, where 64 KiB were announced.
        assert_eq!(rig.run(Op::Read, sector, &sectors), Status::OKAY);
    }
    rig.finish();
}

/// A guest that waits for its disk's limit costs one beside it, on the same thread, nothing.
#[test]
fn a_limited_disk_slows_no_other() {
    let mut rig = Rig::new(slow());
    flushes(&mut rig, 10);
    assert!(rig.worker.wakes_at().is_some());
    // The other guest.
    let dom = rig.machine.create_domain(1 << 10).unwrap();
    let world = rig.machine.world(dom);
    let (mut lender, mut events) = (world.lender(DomId::DOM0).unwrap(), world.events().unwrap());
    let port = events.alloc_unbound(DomId::DOM0).unwrap();
    let mut pages = lender.alloc(1).unwrap();
    lender.lend(&mut pages, Access::ReadWrite).unwrap();
    let ring_refs = pages.grants().to_vec();
    let mut ring = FrontRing::init(Mapped::new(pages, rig.limits.abi.entry_size()).unwrap());
    rig.order(Order::Start(Box::new(QueueSpec {
        key: QueueKey { connection: 8, queue: 0 },
        dom,
        ring_refs,
        port,
        limits: rig.limits,
        strategy: blkback::config::Strategy::Direct,
        persistent: false,
        cache_pages: 0,
        used: false,
        log: None,
        image: Arc::new(Image::null(SECTORS * 512, &Default::default()).unwrap()),
        throttle: Some(DiskThrottle::new(&Rates { iops: Some(1_000_000), ..Rates::default() }, None)),
        stats: Arc::new(QueueStats::default()),
        tap: None,
    })));
    assert!(matches!(rig.reports.try_recv(), Ok(Report::Started(_, Ok(())))));
    let before = rig.machine.now();
    for id in 0..1000 {
        let mut entry = [[0; 112]];
        let request = Request { id, op: Op::Flush, sector: 0, segments: Segments::from(&[][..]) };
        request.emit(&rig.limits, &mut entry).unwrap();
        ring.push(&entry[0][..rig.limits.abi.entry_size()]).unwrap();
        if ring.publish().is_needed() {
            events.notify(port).unwrap();
        }
        rig.settle();
        let mut answer = [0; 112];
        assert!(ring.peek(&mut answer).unwrap(), "request {id} waits for another guest's limit");
        ring.consume(1).unwrap();
    }
    assert_eq!(rig.machine.now(), before, "in no time");
}
