use std::os::unix::fs::FileExt as _;

use super::*;

/// All stretches of a file.
fn extents(file: &File) -> Vec<Extent> {
    let length = file.metadata().unwrap().len();
    let (mut all, mut at) = (Vec::new(), 0);
    while at < length {
        let next = extent(file, at, length).unwrap();
        assert!(next.end > at && next.end <= length, "{next:?} at {at}");
        at = next.end;
        all.push(next);
    }
    all
}

#[test]
fn data_and_holes_alternate_and_cover_the_file() {
    let file = tempfile::tempfile().unwrap();
    file.set_len(10 << 20).unwrap();
    file.write_all_at(&[1; 100], 1 << 20).unwrap();
    file.write_all_at(&[1; 5000], (5 << 20) + 3).unwrap();
    let found = extents(&file);
    let in_hole = |at: u64| found.iter().find(|extent| at < extent.end).unwrap().hole;
    for data in [1 << 20, (1 << 20) + 99, (5 << 20) + 3, (5 << 20) + 5002] {
        assert!(!in_hole(data), "{data}: {found:?}");
    }
    assert!(in_hole(0) && in_hole(3 << 20) && in_hole((10 << 20) - 1), "{found:?}");
    assert!(found.iter().all(|extent| extent.end % BLOCK == 0));
}

#[test]
fn a_file_without_holes_is_one_stretch() {
    let file = tempfile::tempfile().unwrap();
    file.write_all_at(&[7; 12345], 0).unwrap();
    assert_eq!(extents(&file), [Extent { end: 12345, hole: false }]);
}

#[test]
fn a_file_of_nothing_is_one_hole_to_its_odd_end() {
    let file = tempfile::tempfile().unwrap();
    file.set_len((1 << 20) + 17).unwrap();
    assert_eq!(extents(&file), [Extent { end: (1 << 20) + 17, hole: true }]);
}
