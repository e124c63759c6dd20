use super::*;

fn sample(iops: f64) -> Sample {
    Sample { iops, ..Sample::default() }
}

const ROW: Row = Row { storage: Storage::File, job: Job::random(4096, 1), who: Contender::Raw };

#[test]
fn the_median_ignores_an_outlier() {
    let mut table = Table::default();
    for iops in [100.0, 1.0, 101.0, 99.0, 100_000.0] {
        table.add(ROW, sample(iops));
    }
    assert_eq!(table.median(ROW).unwrap().iops, 100.0);
}

#[test]
fn an_even_count_takes_the_middle_of_the_middle() {
    assert_eq!(median(&[sample(4.0), sample(2.0)]).iops, 3.0);
}

#[test]
fn what_was_not_measured_has_no_median() {
    assert!(Table::default().median(ROW).is_none());
}

#[test]
fn the_text_names_every_row() {
    let mut table = Table::default();
    table.add(ROW, sample(123_456.0));
    table.add(Row { who: Contender::Pair, ..ROW }, sample(654_321.0));
    let text = table.text();
    assert!(text.contains("4 KiB random, depth 1 (page-cached file)"), "{text}");
    assert!(text.contains("raw io_uring") && text.contains("123456"), "{text}");
    assert!(text.contains("blkif pair") && text.contains("654321"), "{text}");
}
