use proptest::prelude::*;

use super::*;

/// Every piece as (start, length).
fn pieces(offset: u32, len: u32, max_pages: u32) -> Vec<(u32, u32)> {
    let split = Split::new(offset, len, max_pages);
    let mut cursor = offset;
    let mut all = Vec::new();
    while cursor < split.end() {
        let piece = split.piece(cursor);
        all.push((cursor, piece));
        cursor += piece;
    }
    all
}

#[test]
fn one_request_stays_whole() {
    assert_eq!(pieces(0, 44 * 1024, 11), [(0, 44 * 1024)]);
    assert_eq!(pieces(512, 512, 11), [(512, 512)]);
    // 11 pages of data that lie across 12 pages do not fit.
    assert_eq!(pieces(512, 44 * 1024, 11).len(), 2);
}

#[test]
fn cuts_are_balanced() {
    let sizes: Vec<u32> = pieces(0, 12 * 4096, 11).into_iter().map(|(_, len)| len / 4096).collect();
    assert_eq!(sizes, [6, 6]);
    let sizes: Vec<u32> = pieces(0, 256 * 4096, 255).into_iter().map(|(_, len)| len / 4096).collect();
    assert_eq!(sizes, [128, 128]);
}

#[test]
fn nothing_has_no_pieces() {
    assert!(pieces(4096, 0, 11).is_empty());
}

proptest! {
    #[test]
    fn pieces_cover_the_data_and_keep_the_limits(
        offset in 0u32..1 << 20, len in 1u32..1 << 26, max_pages in 1u32..=4096
    ) {
        let (offset, len) = (offset & !511, (len | 511) & !511 | 512);
        let all = pieces(offset, len, max_pages);
        let mut expected = offset;
        for &(start, piece) in &all {
            prop_assert_eq!(start, expected);
            prop_assert!(piece > 0 && piece % 512 == 0);
            prop_assert!(pages_of(start, piece) <= max_pages);
            prop_assert!(start == offset || start % 4096 == 0);
            expected += piece;
        }
        prop_assert_eq!(expected, offset + len);
        prop_assert_eq!(all.len(), pages_of(offset, len).div_ceil(max_pages) as usize, "no more pieces than needed");
    }

    #[test]
    fn the_end_of_the_address_space_is_no_trap(offset in any::<u32>(), len in any::<u32>(), max_pages in 0u32..=64) {
        let split = Split::new(offset, len, max_pages);
        prop_assert!(split.piece(offset) <= len);
        prop_assert_eq!(split.piece(split.end()), 0);
    }
}
