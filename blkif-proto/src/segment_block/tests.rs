use super::*;

#[test]
fn entries_follow_the_extensions_formula() {
    // BLKIF_SEGS_TO_BLOCKS of 2010: (n - 11 + 14 - 1) / 14 + 1.
    for n in 0..=MAX_SEGMENTS {
        assert_eq!(entries_for(n) as usize, (n + 13 - 11) / 14 + 1, "{n} segments");
    }
    for (n, blocks) in [(0, 1), (11, 1), (12, 2), (25, 2), (26, 3), (249, 18), (250, 19), (255, 19)] {
        assert_eq!(entries_for(n), blocks);
    }
    assert_eq!(MAX_ENTRIES, 19);
    assert!(entries_for(usize::MAX) >= 1);
}

#[test]
fn on_i386_no_segment_reaches_into_the_next_entry() {
    let reach = |segments: usize, abi: Abi| {
        let in_last_block = (segments - HEADER_SEGMENTS - 1) % BLOCK_SEGMENTS + 1;
        in_last_block * 8 <= abi.entry_size()
    };
    for abi in Abi::ALL {
        assert!((HEADER_SEGMENTS + 1..=max_segments(abi)).all(|n| reach(n, abi)), "{abi:?}");
    }
    assert!(!reach(max_segments(Abi::X86_32) + 1, Abi::X86_32));
}

#[test]
fn ring_pages_are_the_fewest_that_do() {
    for abi in Abi::ALL {
        assert_eq!(ring_pages_for(0, 11, abi), Some(1));
        assert_eq!(ring_pages_for(32, 11, abi), Some(1));
        for (requests, segments) in [(33, 11), (32, 12), (64, 128), (256, 33), (256, 255)] {
            let pages = ring_pages_for(requests, segments, abi).unwrap();
            assert!(pages.is_power_of_two());
            let entries = requests * entries_for(segments);
            assert!(abi.ring_entries(pages) >= entries && abi.ring_entries(pages / 2) < entries);
        }
    }
    // The default of 2010: 256 requests of 33 segments.
    assert_eq!(ring_pages_for(256, 33, Abi::X86_64), Some(32));
    assert_eq!(ring_pages_for(u32::MAX, 255, Abi::X86_64), None);
    assert_eq!(ring_pages_for(u32::MAX, 1, Abi::X86_64), None);
}
