use blkfront::{
    Config, Frontend,
    fake::{Bed, Setup},
};

use super::*;

/// What a job comes to that is done by two queues in turn.
fn measured(bed: &Bed, job: &Job) -> Result<Stats, Failure> {
    let frontend = Frontend::probe(bed.world(), &bed.path()).unwrap();
    let configured = frontend.configure(Config { queues: 2, ..Config::default() }).unwrap();
    let (device, mut queues) = configured.set_up_queues().unwrap().start().unwrap();
    let blocks = job.blocks(device.capabilities(), 2).unwrap();
    let now = queues[0].clock().now();
    let loads = queues.iter_mut().zip(0..).map(|(queue, index)| Load::new(queue, job, blocks, index, 2));
    let mut loads: Vec<_> = loads.map(Result::unwrap).collect();
    assert!(loads.iter().all(|load| load.depth() == usize::from(job.depth).min(32)));
    measure(&mut loads, &Limits::new(job, now), || Ok(true))
}

fn bed(serve: bool) -> Bed {
    let mut setup = Setup { serve, ..Setup::plain(2048) };
    setup.features.max_queues = 2;
    Bed::new(setup)
}

fn job(count: u64) -> Job {
    Job { depth: 4, warmup: Duration::ZERO, count: Some(count), poll: Duration::ZERO, ..Job::default() }
}

#[test]
fn it_ends_after_so_many_and_counts_those_only() {
    let bed = bed(true);
    let stats = measured(&bed, &Job { mode: crate::Mode::Rw, overwrite: true, ..job(100) }).unwrap();
    // A turn takes what is there.
    assert!((100..108).contains(&stats.count()), "{}", stats.count());
    assert!(stats.reads.count() > stats.writes.count() && stats.writes.count() > 0);
    let requests = bed.backend().seen.len() as u64;
    assert!(stats.requests <= requests && requests <= stats.count() + 8, "{requests}");
}

#[test]
fn sequential_reads_of_two_queues_go_over_each_block_once() {
    let bed = bed(true);
    measured(&bed, &Job { mode: crate::Mode::Read, ..job(160) }).unwrap();
    let mut blocks: Vec<_> = bed.backend().seen.iter().take(160).map(|request| request.sector / 8).collect();
    blocks.sort_unstable();
    blocks.dedup();
    assert_eq!(blocks.len(), 160);
}

#[test]
fn a_backend_that_is_silent_for_too_long_is_told_of() {
    let patience = Duration::from_secs(2);
    let bed = bed(false);
    let begin = bed.machine.now();
    let silent = measured(&bed, &Job { patience, ..job(100) });
    assert!(matches!(silent, Err(Failure::Silent)), "{silent:?}");
    let waited = bed.machine.now() - begin;
    assert!((patience..patience * 2).contains(&waited), "{waited:?}");
}

#[test]
fn more_in_flight_than_the_ring_holds_is_cut_down() {
    let bed = bed(true);
    assert!(measured(&bed, &Job { depth: 100, ..job(50) }).unwrap().count() >= 50);
}
