use super::*;

#[test]
fn sectors_bytes_and_offset_agree_for_every_valid_segment() {
    for first in 0..=7 {
        for last in first..=7 {
            let segment = Segment { gref: GrantRef(1), first_sect: first, last_sect: last };
            assert!(segment.is_valid());
            assert_eq!(segment.sectors(), u32::from(last - first + 1));
            assert_eq!(segment.bytes(), segment.sectors() as usize * 512);
            assert!(segment.offset() + segment.bytes() <= PAGE_SIZE);
            assert_eq!(Segment::part(GrantRef(1), first, last - first + 1), Some(segment));
        }
    }
    assert_eq!(Segment::page(GrantRef(3)).bytes(), PAGE_SIZE);
}

#[test]
fn no_segment_can_be_built_that_leaves_its_page() {
    for (first, sectors) in [(0, 0), (0, 9), (7, 2), (8, 1), (255, 1), (0, 255), (255, 255)] {
        assert_eq!(Segment::part(GrantRef(0), first, sectors), None, "{first} + {sectors}");
    }
}

#[test]
fn arithmetic_of_senseless_segments_stays_defined() {
    for first in 0..=255 {
        for last in 0..=255 {
            let segment = Segment { gref: GrantRef(0), first_sect: first, last_sect: last };
            assert_eq!(segment.check(0, 0).is_ok(), segment.is_valid());
            assert!(segment.sectors() <= 256);
            assert_eq!(segment.sectors() == 0, first > last);
        }
    }
}

#[test]
fn spans_end_on_the_disk_or_do_not_fit() {
    assert!(span_fits(0, 0, 0));
    assert!(span_fits(8, 8, 16) && !span_fits(9, 8, 16) && !span_fits(17, 0, 16));
    assert!(span_fits(16, 0, 16));
    assert!(!span_fits(u64::MAX, 1, u64::MAX) && !span_fits(1, u64::MAX, u64::MAX));
    assert!(span_fits(u64::MAX, 0, u64::MAX));
    assert_eq!(sector_bytes(u64::MAX), None);
    assert_eq!(sector_bytes(3), Some(1536));
}

#[test]
fn iteration_is_as_long_as_it_says() {
    let list: Vec<Segment> = (0..25).map(|n| Segment::page(GrantRef(n))).collect();
    let segments = Segments::from(&list[..]);
    let mut iter = segments.iter();
    for left in (0..25).rev() {
        assert!(iter.next().is_some());
        assert_eq!(iter.len(), left);
    }
    assert_eq!(iter.next(), None);
    assert_eq!(segments.sectors(), 200);
}
