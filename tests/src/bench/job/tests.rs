use super::*;

#[test]
fn random_offsets_are_aligned_and_reach_the_whole_disk() {
    let mut offsets = Offsets::new(&Job::random(4096, 1), 64 * 4096);
    let mut seen = [false; 64];
    for _ in 0..4096 {
        let offset = offsets.next_offset();
        assert_eq!(offset % 4096, 0);
        seen[usize::try_from(offset / 4096).unwrap()] = true;
    }
    assert!(seen.iter().all(|&s| s));
}

#[test]
fn sequential_offsets_wrap_at_the_end() {
    let mut offsets = Offsets::new(&Job::sequential(512, 1), 3 * 512);
    let got: Vec<u64> = (0..4).map(|_| offsets.next_offset()).collect();
    assert_eq!(got, [0, 512, 1024, 0]);
}

#[test]
fn a_partial_block_at_the_end_is_never_read() {
    let mut offsets = Offsets::new(&Job::random(4096, 1), 3 * 4096 - 1);
    for _ in 0..1000 {
        assert!(offsets.next_offset() < 2 * 4096);
    }
}

#[test]
fn names_say_size_pattern_and_depth() {
    assert_eq!(Job::random(4096, 32).name(), "4 KiB random, depth 32");
    assert_eq!(Job::sequential(1 << 20, 8).name(), "1 MiB sequential, depth 8");
}
