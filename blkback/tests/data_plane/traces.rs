//! Traces: whose requests are in them, when they end, and what that leaves behind.

use std::time::Duration;

use blkback::data::{
    handle::Order,
    trace::{TraceSpec, Traced},
};
use blkif_proto::{Op, Status};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use xen_platform::Access;

use crate::guest::{Rig, Terms, strategies, whole};

fn begin(rig: &mut Rig, requests: usize, connection: Option<u64>) -> UnboundedReceiver<Vec<Traced>> {
    // A time of zero is none.
    rig.machine.advance(Duration::from_millis(1));
    let (done, traced) = unbounded_channel();
    rig.order(Order::Trace(Box::new(TraceSpec { requests, connection, done })));
    traced
}

fn reads(rig: &mut Rig, count: u64) {
    let pages = rig.pages(1, Access::ReadWrite, 1);
    (0..count).for_each(|n| _ = rig.push(Op::Read, n * 8, &whole(&pages)));
    rig.kick();
    rig.settle();
    assert_eq!(std::iter::from_fn(|| rig.answer(1)).count() as u64, count);
}

#[test]
fn a_trace_has_every_stage_in_order_and_ends_when_it_is_full() {
    for (strategy, persistent) in strategies() {
        let mut rig = Rig::new(Terms { strategy, persistent, ..Terms::default() });
        reads(&mut rig, 3);
        let mut traced = begin(&mut rig, 8, None);
        reads(&mut rig, 5);
        assert!(traced.try_recv().is_err(), "there is room for more");
        reads(&mut rig, 5);
        let requests = traced.try_recv().unwrap();
        assert_eq!(requests.len(), 8);
        for Traced { op, status, bytes, times, kicked, copied, published, .. } in requests {
            assert_eq!((op, status, bytes), (Op::Read, Status::OKAY, 4096));
            let way = [times.seen, times.taken, times.admitted, times.submitted, kicked, copied, published];
            assert!(way.is_sorted() && !times.seen.is_zero(), "{way:?}");
            assert!(times.submitted <= times.reaped && times.reaped <= copied, "{times:?}");
        }
        assert!(traced.try_recv().is_err(), "once");
        rig.finish();
    }
}

#[test]
fn only_the_connection_that_is_asked_for() {
    let mut rig = Rig::new(Terms::default());
    let mut others = begin(&mut rig, 8, Some(u64::MAX));
    reads(&mut rig, 4);
    // Another trace ends it.
    let mut own = begin(&mut rig, 8, None);
    assert_eq!(others.try_recv().unwrap().len(), 0);
    reads(&mut rig, 4);
    rig.order(Order::EndTrace);
    assert_eq!(own.try_recv().unwrap().len(), 4);
    rig.finish();
}
