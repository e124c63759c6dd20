use std::{
    sync::{Arc, Barrier},
    thread,
    time::Duration,
};

use proptest::prelude::*;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn iops(rate: u64) -> Rates {
    Rates { iops: Some(rate), ..Rates::default() }
}

fn bytes(rate: u64) -> Rates {
    Rates { bytes: Some(rate), ..Rates::default() }
}

/// A queue that always has a next request of a size, and asks again when it was told to, or somewhat later.
struct Greedy {
    gate: Gate,
    size: usize,
    next: Duration,
    passed: u64,
}

impl Greedy {
    fn new(disk: &DiskThrottle, size: usize) -> Self {
        Self { gate: disk.gate(), size, next: Duration::ZERO, passed: 0 }
    }
}

/// Lets them all work until `end`; each comes up to `late` too late. What was before `from` does not count.
fn work(queues: &mut [Greedy], kind: Kind, [from, end]: [Duration; 2], late: Duration) {
    let mut luck = 1u32;
    while let Some(queue) = queues.iter_mut().min_by_key(|queue| queue.next).filter(|queue| queue.next < end)
    {
        let now = queue.next;
        match queue.gate.pass(kind, queue.size, now) {
            Ok(()) => queue.passed += u64::from(now >= from),
            Err(until) => {
                assert!(until > now, "it would spin");
                luck = luck.wrapping_mul(0x9E37_79B1).wrapping_add(0x7F4A_7C15);
                queue.next = until + late.mul_f64(f64::from(luck >> 8) / f64::from(1 << 24));
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever the rate, the size, the burst, the number of queues and the lateness of threads: what passes in ten seconds is what
    /// was allowed, a burst, and the request that empties the bucket.
    #[test]
    fn a_rate_is_kept(
        rate in 100u64..5000,
        size in 1usize..64,
        by_bytes: bool,
        burst_ms in 10u64..1000,
        queues in 1usize..4,
        late in 0.0f64..0.4,
    ) {
        let size = size * 512;
        let rates = if by_bytes { bytes(rate * 4096) } else { iops(rate) };
        let rates = Rates { burst_ms: Some(burst_ms), ..rates };
        let disk = DiskThrottle::new(&rates, None);
        let mut queues: Vec<Greedy> = (0..queues).map(|_| Greedy::new(&disk, size)).collect();
        work(&mut queues, Kind::Read, [Duration::ZERO, SECOND * 10], rates.burst().mul_f64(late));
        let passed: u64 = queues.iter().map(|queue| queue.passed).sum();
        let (done, unit) = if by_bytes { (passed * size as u64, size as u64) } else { (passed, 1) };
        let allowed = if by_bytes { rate * 4096 } else { rate };
        let burst = allowed * burst_ms / 1000;
        let least = (allowed * 10).saturating_sub(allowed / 1000);
        let most = allowed * 10 + burst + unit + allowed / 1000;
        prop_assert!((least..=most).contains(&done), "{done} is not from {least} to {most}");
    }

    /// Nobody's tokens are lost or made, in whatever order threads come.
    #[test]
    fn what_is_taken_is_what_is_owed(rate in 1u64..1_000_000, sizes in prop::collection::vec(1u64..1 << 24, 1..64)) {
        let bucket = Bucket::default();
        bucket.set_rate(rate, 0);
        let prices: u64 = sizes.iter().map(|size| bucket.take(*size, 5)).sum();
        prop_assert_eq!(bucket.opens(0), 5 + prices);
        let refunds: u64 = sizes.iter().map(|size| bucket.refund(*size)).sum();
        prop_assert_eq!(refunds, prices);
        prop_assert_eq!(bucket.opens(0), 5);
    }

    /// Disks of a group get the same, however many queues they have and however large their requests are.
    #[test]
    fn a_group_is_shared_evenly(
        disks in prop::collection::vec((1usize..4, 0usize..9), 2..5),
        late in 0.0f64..0.2,
    ) {
        let rates = bytes(64 << 20);
        let group = Arc::new(Throttle::new(&rates));
        let throttles: Vec<_> =
            disks.iter().map(|_| DiskThrottle::new(&Rates::default(), Some(&group))).collect();
        let mut queues = Vec::new();
        for (throttle, (count, size)) in throttles.iter().zip(&disks) {
            queues.extend((0..*count).map(|_| Greedy::new(throttle, 4096 << size)));
        }
        work(&mut queues, Kind::Write, [SECOND, SECOND * 11], rates.burst().mul_f64(late));
        let mut rest = queues.iter();
        let each: Vec<u64> = disks
            .iter()
            .map(|(count, _)| rest.by_ref().take(*count).map(|queue| queue.passed * queue.size as u64).sum())
            .collect();
        let fair = (640 << 20) / disks.len() as u64;
        // A lead of a quarter of a burst, and a request of each.
        let slack = fair / 20 + (2 << 20);
        prop_assert!(each.iter().all(|done| done.abs_diff(fair) < slack), "{each:?} of {fair}: {disks:?}");
    }
}

#[test]
fn a_request_larger_than_the_burst_passes_and_is_paid_for() {
    let disk = DiskThrottle::new(&Rates { burst_ms: Some(10), ..bytes(1 << 20) }, None);
    let mut gate = disk.gate();
    assert_eq!(gate.pass(Kind::Write, 16 << 20, SECOND), Ok(()));
    let until = gate.pass(Kind::Write, 512, SECOND).unwrap_err();
    assert_eq!(until, SECOND * 17 - Duration::from_millis(10));
    assert_eq!(gate.pass(Kind::Write, 512, until), Ok(()));
}

#[test]
fn reads_and_writes_apart_and_together() {
    let rates = Rates { read_iops: Some(10), write_bytes: Some(4096), iops: Some(1000), ..Rates::default() };
    let disk = DiskThrottle::new(&rates, None);
    let mut gate = disk.gate();
    let mut count = |kind, size| (0..2000).take_while(|_| gate.pass(kind, size, SECOND).is_ok()).count();
    // A tenth of a second's worth, and one more when that is just used up.
    assert_eq!(count(Kind::Read, 1 << 20), 2);
    assert_eq!(count(Kind::Write, 512), 1);
    assert_eq!(count(Kind::Write, 0), 0, "bytes are owed, and a flush comes after them");
    let flushes = DiskThrottle::new(&iops(1000), None);
    let mut gate = flushes.gate();
    assert_eq!((0..2000).take_while(|_| gate.pass(Kind::Write, 0, SECOND).is_ok()).count(), 101);
}

#[test]
fn a_change_takes_effect_at_once_and_debts_are_kept_in_bytes() {
    let disk = DiskThrottle::new(&bytes(1 << 20), None);
    let mut gate = disk.gate();
    gate.pass(Kind::Read, 10 << 20, SECOND).unwrap();
    disk.own().set(&bytes(10 << 20), SECOND);
    assert_eq!(gate.pass(Kind::Read, 0, SECOND).unwrap_err(), SECOND * 2 - Duration::from_millis(100));
    disk.own().set(&bytes(1 << 20), SECOND);
    assert_eq!(gate.pass(Kind::Read, 0, SECOND).unwrap_err(), SECOND * 11 - Duration::from_millis(100));
    assert!(gate.is_on());
    disk.own().set(&Rates::default(), SECOND);
    assert!(!gate.is_on() && gate.pass(Kind::Read, 0, SECOND).is_ok());
    disk.own().set(&bytes(1 << 20), SECOND);
    assert_eq!(gate.pass(Kind::Read, 0, SECOND), Ok(()), "without a limit nothing is owed");
    assert_eq!(disk.own().rates(), Rates { burst_ms: Some(100), ..bytes(1 << 20) });
}

/// A disk whose worker has something else to do, and one that waits for its own limit, keep nobody from the group's rate.
#[test]
fn nobody_waits_for_who_does_not_come() {
    let group = Arc::new(Throttle::new(&iops(1000)));
    let [absent, busy] = [(), ()].map(|()| DiskThrottle::new(&Rates::default(), Some(&group)));
    let slow = DiskThrottle::new(&iops(10), Some(&group));
    let mut gone = absent.gate();
    while gone.pass(Kind::Read, 0, Duration::ZERO).is_ok() {}
    let mut queues = [Greedy::new(&busy, 0), Greedy::new(&slow, 0)];
    work(&mut queues, Kind::Read, [SECOND, SECOND * 11], Duration::ZERO);
    let [busy, slow] = queues.map(|queue| queue.passed);
    assert!((95..=105).contains(&slow), "{slow}");
    assert!((9800..=10_000).contains(&(busy + slow)), "{busy} and {slow}");
}

/// Idle for long, and then as fast as it can: no more than a burst and a lead over who has worked all the time.
#[test]
fn idleness_is_not_saved_up() {
    let group = Arc::new(Throttle::new(&iops(1000)));
    let [one, two] = [(), ()].map(|()| DiskThrottle::new(&Rates::default(), Some(&group)));
    let mut queues = [Greedy::new(&one, 0), Greedy::new(&two, 0)];
    queues[1].next = SECOND * 5;
    work(&mut queues, Kind::Read, [SECOND * 5, SECOND * 6], Duration::ZERO);
    let [one, two] = queues.map(|queue| queue.passed);
    assert!(one.abs_diff(two) < 60 && one + two < 1110, "{one} and {two}");
}

#[test]
fn threads_together_take_no_more_than_there_is() {
    const THREADS: usize = 4;
    let disk = DiskThrottle::new(&iops(1_000_000), None);
    let begin = Barrier::new(THREADS);
    let passed: u64 = thread::scope(|scope| {
        let work = || {
            let mut queue = Greedy::new(&disk, 0);
            begin.wait();
            // All at one instant: only what a burst allows, and one of each thread that came at the same time.
            while queue.gate.pass(Kind::Read, 0, SECOND).is_ok() {
                queue.passed += 1;
            }
            queue.passed
        };
        let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(work)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    assert!((100_000..=100_000 + THREADS as u64).contains(&passed), "{passed}");
}

/// Whether requests come one by one or are paid for in batches, as many pass; what was paid for and did not come is given back.
#[test]
fn paying_ahead_lets_nothing_more_pass_and_nothing_less() {
    let passed = |expected: usize, come: usize| {
        let rates = Rates { iops: Some(10_000), bytes: Some(100 << 20), ..Rates::default() };
        let group = Arc::new(Throttle::new(&iops(100_000)));
        let disk = DiskThrottle::new(&rates, Some(&group));
        let mut gate = disk.gate();
        let mut passed = 0;
        loop {
            gate.expect(expected);
            for _ in 0..come {
                let kind = if passed % 3 == 0 { Kind::Write } else { Kind::Read };
                if gate.pass(kind, 4096 << (passed % 2), SECOND).is_err() {
                    return passed;
                }
                passed += 1;
            }
            gate.settle();
        }
    };
    // A tenth of a second's worth, and one more when that is just used up.
    assert_eq!(passed(0, 1), 1001);
    for (expected, come) in [(1, 1), (7, 7), (100, 100), (100, 1), (3, 50), (128, 40)] {
        assert_eq!(passed(expected, come), 1001, "{come} of {expected}");
    }
}

#[test]
fn what_a_request_did_not_need_is_given_back() {
    let group = Arc::new(Throttle::new(&bytes(1 << 20)));
    let disk = DiskThrottle::new(&bytes(1 << 20), Some(&group));
    let mut gate = disk.gate();
    gate.pass(Kind::Read, 1 << 20, SECOND).unwrap();
    gate.refund(Kind::Read, (1 << 20) - 512);
    let mut other = disk.gate();
    assert_eq!(other.pass(Kind::Read, 0, SECOND), Ok(()));
}
