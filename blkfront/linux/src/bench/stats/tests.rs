use super::*;

fn of(microseconds: impl IntoIterator<Item = u64>) -> Latencies {
    let mut latencies = Latencies::new().unwrap();
    microseconds.into_iter().for_each(|us| latencies.record(Duration::from_micros(us)));
    latencies
}

#[test]
fn percentiles_are_those_of_the_recorded_latencies() {
    let latencies = of(1..=1000);
    for (percentage, microseconds) in [(50.0, 500), (99.0, 990), (99.9, 999), (100.0, 1000)] {
        let found = latencies.percentile(percentage) / 1000;
        assert!(found.abs_diff(microseconds) <= 1, "{percentage}: {found}");
    }
    let (least, mean, greatest) = latencies.range();
    assert_eq!(least / 100, 10);
    assert!((mean / 1000.0 - 500.5).abs() < 1.0);
    assert_eq!(greatest / 10_000, 100);
}

#[test]
fn absurd_latencies_are_kept_as_the_longest() {
    let mut latencies = of([1]);
    latencies.record(Duration::from_secs(1 << 40));
    latencies.record(Duration::ZERO);
    assert_eq!(latencies.count(), 3);
    assert!(latencies.percentile(100.0) >= LONGEST / 1000 * 999);
}

#[test]
fn nothing_measured_is_zeroes() {
    assert_eq!(of([]).range(), (0, 0.0, 0));
    assert_eq!(of([]).percentile(99.0), 0);
}

#[test]
fn queues_add_up_and_the_longest_time_counts() {
    let mut one = Stats { time: Duration::from_secs(1), requests: 5, ..Stats::new().unwrap() };
    one.reads = of([10, 20]);
    let mut two = Stats { time: Duration::from_secs(2), requests: 7, ..Stats::new().unwrap() };
    two.writes = of([30]);
    one.add(&two).unwrap();
    assert_eq!((one.count(), one.requests, one.time), (3, 12, Duration::from_secs(2)));
}
