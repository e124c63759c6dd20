use super::*;

fn extent(sector: u64, sectors: usize) -> Extent {
    Extent { sector, sectors, offset: 0 }
}

#[test]
fn it_is_the_end_of_the_disk_in_whole_pages() {
    for (sectors, span, range) in [
        (1000, 64, 936..1000),
        (1000, 70, 936..1000),
        (16, 4096, 0..16),
        (5, 4096, 0..5),
        (1000, 3, 997..1000),
    ] {
        assert_eq!(Model::of_the_end(sectors, span).range(), range);
    }
}

#[test]
fn the_last_pass_counts_and_what_is_not_known_is_not() {
    let mut model = Model::of_the_end(100, 16);
    assert_eq!(model.pass(90), None);
    model.set(&extent(84, 16), Some(1));
    model.set(&extent(90, 2), Some(2));
    model.set(&extent(99, 1), None);
    let passes: Vec<_> = [84, 89, 90, 91, 92, 98, 99].map(|sector| model.pass(sector)).into();
    assert_eq!(passes, [Some(1), Some(1), Some(2), Some(2), Some(1), Some(1), None]);
}

#[test]
fn what_lies_elsewhere_is_not_its_business() {
    let mut model = Model::of_the_end(100, 16);
    model.set(&extent(0, 8), Some(1));
    model.set(&extent(96, 100), Some(2));
    assert_eq!(
        [0, 83, 95, 96, 99, 100].map(|sector| model.pass(sector)),
        [None, None, None, Some(2), Some(2), None]
    );
}
