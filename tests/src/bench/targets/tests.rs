use super::*;

fn table(pair_iops: f64) -> Table {
    let mut table = Table::default();
    let row = |who| Row { storage: Storage::File, job: Job::random(4096, 32), who };
    let sample = |iops| Sample { iops, ..Sample::default() };
    table.add(row(Contender::Raw), sample(1000.0));
    table.add(row(Contender::Qemu), sample(300.0));
    table.add(row(Contender::Pair), sample(pair_iops));
    table
}

#[test]
fn a_miss_is_said_to_be_one() {
    let targets = check(&table(650.0));
    assert_eq!(targets[0].kept(), Some(true));
    assert_eq!(targets[1].kept(), Some(false));
    assert_eq!(targets[2].kept(), None);
    let text = text(&targets);
    assert!(text.contains("MISS") && text.contains("not measured"), "{text}");
}

#[test]
fn the_bound_itself_keeps_the_promise() {
    assert_eq!(check(&table(700.0))[1].kept(), Some(true));
}
