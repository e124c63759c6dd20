//! Loom explores every interleaving, and every value a relaxed load may see, of two ends on a tiny ring: no wake-up is
//! lost in either direction, and what an index covers can be read. Then the same models with one fence or the second
//! look left out: each must fail, which proves both that the models can fail and that nothing in the ring is for show.
//!
//! `RUSTFLAGS="--cfg loom" cargo test -p xen-ringbuf --release --test loom`
#![cfg(loom)]
#![expect(clippy::unwrap_used, reason = "a model fails by panicking")]

use loom::sync::Notify;
use loom::thread;
use ringbuf::sync::{Fence, without};
use ringbuf::{BackRing, FrontRing, Heap, Layout, RingMem};
// Not loom's: it adds nothing to explore here, and aborts the process when a model deadlocks.
use std::sync::Arc;

/// What an end does between arming and sleeping.
#[derive(Clone, Copy, PartialEq)]
enum Sleeper {
    /// Looks again, as the ring demands.
    Careful,
    /// Sleeps whatever the second look finds.
    Hasty,
}

fn ring(entries: usize) -> (FrontRing<Heap>, BackRing<Heap>) {
    let memory = Heap::new(Layout::tiny(entries, 4));
    let front = FrontRing::init(memory.clone());
    (front, BackRing::attach(memory).unwrap())
}

fn push<M: RingMem>(front: &mut FrontRing<M>, value: u32, event: &Notify) {
    front.push(&value.to_ne_bytes()).unwrap();
    if front.publish().is_needed() {
        event.notify();
    }
}

/// Takes the next request, if there is one, which must be `expected`.
fn take<M: RingMem>(back: &mut BackRing<M>, expected: u32) -> bool {
    if back.available().unwrap() == 0 {
        return false;
    }
    let mut bytes = [0; 4];
    back.read(0, &mut bytes).unwrap();
    assert_eq!(u32::from_ne_bytes(bytes), expected, "stale request");
    back.consume(1).unwrap();
    true
}

fn respond<M: RingMem>(back: &mut BackRing<M>, value: u32, event: &Notify) {
    back.respond(&value.to_ne_bytes(), 1).unwrap();
    if back.publish().is_needed() {
        event.notify();
    }
}

/// Collects the next response, if there is one, which must be `expected`.
fn collect<M: RingMem>(front: &mut FrontRing<M>, expected: u32) -> bool {
    let mut bytes = [0; 4];
    if !front.peek(&mut bytes).unwrap() {
        return false;
    }
    assert_eq!(u32::from_ne_bytes(bytes), expected, "stale response");
    front.consume(1).unwrap();
    true
}

/// A frontend publishes two requests one by one; the backend sleeps whenever it finds none.
fn backend_sleeps(sleeper: Sleeper) {
    loom::model(move || {
        let (mut front, mut back) = ring(2);
        let event = Arc::new(Notify::new());
        let bell = event.clone();
        let frontend = thread::spawn(move || {
            push(&mut front, 1, &bell);
            push(&mut front, 2, &bell);
        });
        let mut taken = 0;
        while taken < 2 {
            if take(&mut back, taken + 1) {
                taken += 1;
            } else if !back.arm().unwrap() || sleeper == Sleeper::Hasty {
                event.wait();
            }
        }
        frontend.join().unwrap();
    });
}

/// A backend answers two requests one by one; the frontend sleeps whenever it finds no response, until `batch` are
/// there.
fn frontend_sleeps(sleeper: Sleeper, batch: u32) {
    loom::model(move || {
        let (mut front, mut back) = ring(2);
        let event = Arc::new(Notify::new());
        push(&mut front, 1, &event);
        push(&mut front, 2, &event);
        let bell = event.clone();
        let backend = thread::spawn(move || {
            for value in 1..=2 {
                assert!(take(&mut back, value));
                respond(&mut back, value + 10, &bell);
            }
        });
        let mut collected = 0;
        while collected < 2 {
            if collect(&mut front, collected + 11) {
                collected += 1;
            } else if !front.arm_after(batch).unwrap() || sleeper == Sleeper::Hasty {
                event.wait();
            }
        }
        backend.join().unwrap();
    });
}

/// The backend looks once: it may find nothing, but what it finds is whole.
fn one_look_at_a_request() {
    loom::model(|| {
        let (mut front, mut back) = ring(1);
        let bell = Arc::new(Notify::new());
        let frontend = thread::spawn(move || push(&mut front, 7, &bell));
        take(&mut back, 7);
        frontend.join().unwrap();
    });
}

/// The frontend looks once for the response, which lies where its request lay.
fn one_look_at_a_response() {
    loom::model(|| {
        let (mut front, mut back) = ring(1);
        let bell = Arc::new(Notify::new());
        push(&mut front, 7, &bell);
        let backend = thread::spawn(move || {
            assert!(take(&mut back, 7));
            respond(&mut back, 17, &bell);
        });
        collect(&mut front, 17);
        backend.join().unwrap();
    });
}

#[test]
fn a_request_is_visible_when_its_index_is() {
    one_look_at_a_request();
}

#[test]
fn a_response_is_visible_when_its_index_is() {
    one_look_at_a_response();
}

#[test]
fn no_wakeup_is_lost_by_the_backend() {
    backend_sleeps(Sleeper::Careful);
}

#[test]
fn no_wakeup_is_lost_by_the_frontend() {
    frontend_sleeps(Sleeper::Careful, 1);
}

#[test]
fn no_wakeup_is_lost_by_a_frontend_that_waits_for_a_batch() {
    frontend_sleeps(Sleeper::Careful, 2);
}

/// Both ends sleep, and the only slot is used by request, response and request in turn. Every interleaving with up to
/// two preemptions (besides those where an end waits): all of them would take hours.
#[test]
fn both_ends_sleep_and_share_one_slot() {
    let mut bounded = loom::model::Builder::new();
    bounded.preemption_bound = Some(2);
    bounded.check(|| {
        let (mut front, mut back) = ring(1);
        let (to_front, to_back) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let (bell, event) = (to_front.clone(), to_back.clone());
        let backend = thread::spawn(move || {
            for value in 1..=2 {
                while !take(&mut back, value) {
                    if !back.arm().unwrap() {
                        event.wait();
                    }
                }
                respond(&mut back, value + 10, &bell);
            }
        });
        for value in 1..=2 {
            push(&mut front, value, &to_back);
            while !collect(&mut front, value + 10) {
                if !front.arm().unwrap() {
                    to_front.wait();
                }
            }
        }
        backend.join().unwrap();
    });
}

#[test]
#[should_panic(expected = "stale request")]
fn data_is_lost_without_the_publish_fence() {
    without(Fence::Publish, one_look_at_a_request);
}

#[test]
#[should_panic(expected = "stale request")]
fn data_is_lost_without_the_observe_fence() {
    without(Fence::Observe, one_look_at_a_request);
}

#[test]
#[should_panic(expected = "stale response")]
fn a_response_is_lost_without_the_publish_fence() {
    without(Fence::Publish, one_look_at_a_response);
}

#[test]
#[should_panic(expected = "stale response")]
fn a_response_is_lost_without_the_observe_fence() {
    without(Fence::Observe, one_look_at_a_response);
}

#[test]
#[should_panic(expected = "deadlock")]
fn the_backend_sleeps_forever_without_the_publishers_fence() {
    without(Fence::PublishThenLook, || backend_sleeps(Sleeper::Careful));
}

#[test]
#[should_panic(expected = "deadlock")]
fn the_backend_sleeps_forever_without_the_sleepers_fence() {
    without(Fence::ArmThenLook, || backend_sleeps(Sleeper::Careful));
}

#[test]
#[should_panic(expected = "deadlock")]
fn the_backend_sleeps_forever_without_the_second_look() {
    backend_sleeps(Sleeper::Hasty);
}

#[test]
#[should_panic(expected = "deadlock")]
fn the_frontend_sleeps_forever_without_the_publishers_fence() {
    without(Fence::PublishThenLook, || frontend_sleeps(Sleeper::Careful, 1));
}

#[test]
#[should_panic(expected = "deadlock")]
fn the_frontend_sleeps_forever_without_the_sleepers_fence() {
    without(Fence::ArmThenLook, || frontend_sleeps(Sleeper::Careful, 1));
}

#[test]
#[should_panic(expected = "deadlock")]
fn the_frontend_sleeps_forever_without_the_second_look() {
    frontend_sleeps(Sleeper::Hasty, 1);
}
