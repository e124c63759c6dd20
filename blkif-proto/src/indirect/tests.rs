#![expect(clippy::cast_possible_truncation, reason = "the numbers of the examples are small")]

use super::*;
use crate::{GrantRef, Segment};

fn list(count: u32) -> Vec<Segment> {
    (0..count)
        .map(|n| Segment {
            gref: GrantRef(n * 7919),
            first_sect: (n % 4) as u8,
            last_sect: (n % 4 + 4) as u8,
        })
        .collect()
}

#[test]
fn descriptors_round_trip_over_page_borders() {
    for count in [0, 1, 511, 512, 513, 4096] {
        let list = list(count);
        let mut pages = vec![0xAA; pages_for(list.len()) * PAGE_SIZE];
        assert_eq!(encode(Segments::from(&list[..]), &mut pages), Some(list.len() * 8));
        let decoded: Vec<Segment> = decode(&pages, list.len()).unwrap().iter().collect();
        assert_eq!(decoded, list);
        assert!(
            pages[list.len() * 8..].iter().all(|byte| *byte == 0xAA),
            "nothing beyond the last is written"
        );
    }
    assert_eq!([0, 1, 512, 513, 4096].map(pages_for), [0, 1, 1, 2, 8]);
}

#[test]
fn short_pages_are_refused_untouched() {
    let list = list(3);
    let mut pages = [0xAA; 23];
    assert_eq!(encode(Segments::from(&list[..]), &mut pages), None);
    assert_eq!(pages, [0xAA; 23]);
    assert!(decode(&pages, 3).is_none());
    assert_eq!(decode(&pages, 2).unwrap().len(), 2);
}
