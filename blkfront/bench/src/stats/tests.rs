use super::*;

fn of(microseconds: impl IntoIterator<Item = u64>) -> Latencies {
    let mut latencies = Latencies::default();
    microseconds.into_iter().for_each(|us| latencies.record(Duration::from_micros(us)));
    latencies
}

#[test]
fn quantiles_are_those_of_the_recorded_latencies() {
    let latencies = of(1..=1000);
    for (quantile, microseconds) in [(5_000, 500), (9_900, 990), (9_990, 999), (10_000, 1000)] {
        let found = latencies.quantile(quantile) / 1000;
        assert!(found.abs_diff(microseconds) <= 1, "{quantile}: {found}");
    }
    let (least, mean, greatest) = latencies.range();
    assert_eq!((least, greatest), (1000, 1_000_000));
    assert!((mean / 1000.0 - 500.5).abs() < 1.0);
}

#[test]
fn a_latency_is_known_to_a_thousandth() {
    let mut last = 0;
    for exponent in 2..36 {
        for nanoseconds in [1 << exponent, (1 << exponent) + 1, (3 << exponent) / 2, (2 << exponent) - 1] {
            let at = place(nanoseconds);
            assert!(at >= last, "{nanoseconds}");
            last = at;
            let error = greatest(at) - nanoseconds;
            assert!(error <= nanoseconds / 1000, "{nanoseconds}: {}", greatest(at));
        }
    }
    assert!((1..=place(LONGEST)).all(|at| place(greatest(at)) == at));
}

#[test]
fn absurd_latencies_are_kept_as_the_longest() {
    let mut latencies = of([1]);
    latencies.record(Duration::from_secs(1 << 40));
    latencies.record(Duration::ZERO);
    assert_eq!(latencies.count(), 3);
    assert_eq!((latencies.quantile(10_000), latencies.quantile(1)), (LONGEST, 1));
}

#[test]
fn nothing_measured_is_zeroes() {
    let mut latencies = of([7]);
    latencies.clear();
    for nothing in [latencies, of([])] {
        assert_eq!((nothing.count(), nothing.range()), (0, (0, 0.0, 0)));
        assert_eq!(nothing.quantile(9_900), 0);
    }
}

#[test]
fn threads_add_up_and_the_longest_time_counts() {
    let mut one = Stats { time: Duration::from_secs(1), requests: 5, ..Stats::default() };
    one.reads = of([10, 20]);
    let mut two = Stats { time: Duration::from_secs(2), requests: 7, ..Stats::default() };
    two.reads = of([40]);
    two.writes = of([30]);
    one.add(&two);
    assert_eq!((one.count(), one.requests, one.time), (4, 12, Duration::from_secs(2)));
    assert_eq!((one.reads.range().0, one.reads.range().2), (10_000, 40_000));
}
