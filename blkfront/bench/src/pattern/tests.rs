use alloc::vec::Vec;

use super::*;

#[test]
fn sequential_queues_share_the_disk_without_overlap() {
    let mut second = Pattern::new(false, 100, 10, 1, 2, 7);
    let blocks: Vec<u64> = (0..7).map(|_| second.next_block().0).collect();
    assert_eq!(blocks, [5, 6, 7, 8, 9, 5, 6]);
}

#[test]
fn random_blocks_reach_everything_evenly() {
    let mut pattern = Pattern::new(true, 100, 10, 0, 1, 7);
    let mut seen = [0u32; 10];
    for _ in 0..10_000 {
        seen[usize::try_from(pattern.next_block().0).unwrap()] += 1;
    }
    assert!(seen.iter().all(|count| (800..1200).contains(count)), "{seen:?}");
}

#[test]
fn the_mix_is_kept() {
    for (percentage, expected) in [(0, 0..=0), (30, 2800..=3200), (70, 6800..=7200), (100, 10_000..=10_000)] {
        let mut pattern = Pattern::new(true, percentage, 1000, 0, 1, 3);
        let reads = (0..10_000).filter(|_| pattern.next_block().1).count();
        assert!(expected.contains(&reads), "{percentage} %: {reads}");
    }
}

#[test]
fn seeds_repeat_and_queues_differ() {
    let take = |index, seed| {
        let mut pattern = Pattern::new(true, 50, 1 << 30, index, 2, seed);
        (0..8).map(|_| pattern.next_block()).collect::<Vec<_>>()
    };
    assert_eq!(take(0, 1), take(0, 1));
    assert_ne!(take(0, 1), take(1, 1));
    assert_ne!(take(0, 1), take(0, 2));
}
