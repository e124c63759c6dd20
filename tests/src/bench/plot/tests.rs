use super::*;
use crate::bench::table::Row;

#[test]
fn the_plot_shows_every_contender_that_was_measured() {
    let mut table = Table::default();
    for who in [Contender::Raw, Contender::Pair] {
        for depth in [1, 8, 128] {
            let row = Row { storage: Storage::File, job: Job::random(4096, depth), who };
            table.add(row, Sample { iops: 1e5 * f64::from(depth), p50_us: 3.0, ..Sample::default() });
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("depth.svg");
    draw(&table, &file).unwrap();
    let svg = std::fs::read_to_string(&file).unwrap();
    assert!(svg.contains("raw io_uring") && svg.contains("blkif pair"), "{svg}");
    assert!(!svg.contains("qemu"), "not measured, not drawn");
}

#[test]
fn nothing_to_draw_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    assert!(draw(&Table::default(), &dir.path().join("empty.svg")).is_err());
}
