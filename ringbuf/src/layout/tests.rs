use super::Layout;
use crate::{Index, LayoutError};

/// The table of Xen's blkif rings (PROTOCOL.md, section 1.2), checked when this is compiled.
const _: () = {
    let table: [(usize, u32); 6] = [(1, 32), (2, 64), (4, 128), (8, 256), (16, 512), (32, 1024)];
    let mut row = 0;
    while row < table.len() {
        let (pages, entries) = table[row];
        assert!(matches!(Layout::new(pages, 112), Ok(layout) if layout.entries() == entries));
        assert!(matches!(Layout::new(pages, 108), Ok(layout) if layout.entries() == entries));
        row += 1;
    }
};

#[test]
fn every_slot_lies_in_the_pages() {
    for pages in 1..=Layout::MAX_PAGES {
        for entry_size in (4..=Layout::PAGE - Layout::HEADER).step_by(4) {
            let layout = Layout::new(pages, entry_size).unwrap();
            let used = Layout::HEADER + layout.entries() as usize * entry_size;
            assert!(layout.entries().is_power_of_two());
            assert!(used <= pages * Layout::PAGE, "{layout:?} is too large for {pages} pages");
            let doubled = Layout::HEADER + 2 * layout.entries() as usize * entry_size;
            assert!(doubled > pages * Layout::PAGE, "{layout:?} wastes half of {pages} pages");
        }
    }
}

#[test]
fn an_index_beyond_the_ring_falls_in_a_slot() {
    let layout = Layout::new(1, 112).unwrap();
    assert_eq!(layout.slot(Index::new(u32::MAX)), 31);
    assert_eq!(layout.offset(Index::new(u32::MAX)), 64 + 31 * 112);
    assert_eq!(layout.offset(Index::new(u32::MAX).plus(1)), 64);
}

#[test]
fn sizes_that_make_no_ring_are_refused() {
    let page = Layout::PAGE;
    for (pages, entry_size) in [
        (0, 112),
        (33, 112),
        (usize::MAX, 112),
        (1, 0),
        (1, 2),
        (1, 110),
        (1, page - Layout::HEADER + 4),
        (1, usize::MAX - 3),
    ] {
        let refused = LayoutError { bytes: pages.saturating_mul(page), entry_size };
        assert_eq!(Layout::new(pages, entry_size), Err(refused));
    }
    assert_eq!(Layout::new(1, page - Layout::HEADER).unwrap().entries(), 1);
}
