//! Random operations, and what happens to the disk meanwhile.

use super::*;

#[test]
fn a_soaked_disk_is_found_right_by_every_kind_of_operation() {
    let bed = bed(|setup| {
        all_features(setup);
        setup.features.operations.barrier = true;
        setup.features.operations.discard = Some(Discard { granularity: 512, alignment: 0, secure: false });
    });
    let (done, out) = told(&bed, "soak count=300 runtime=600 seed=7 queues=3");
    assert!(done && out.starts_with("seed 7\n"), "{out}");
    let counts = out.lines().find(|line| line.starts_with("soaked ")).unwrap();
    assert!(!counts.contains(" 0 "), "{counts}");
    let seen = &bed.backend().seen;
    assert!(seen.iter().all(|request| request.sector == 0 || request.sector >= 32 * 1024 - 4096));
    assert!(seen.iter().any(|request| request.segments.len() == 256));
    assert!(seen.iter().any(|request| request.op == blkif_proto::Op::WriteBarrier));
}

#[test]
fn a_soak_finds_the_one_write_that_was_lost() {
    let bed = bed(|setup| setup.serve = false);
    let (done, out) = served(&bed, "soak runtime=600 seed=1", |backend, request| {
        let lost = request.op == blkif_proto::Op::Write && backend.seen.len() > 500;
        if lost { blkif_proto::Status::OKAY } else { backend.run(request) }
    });
    assert!(!done && out.contains("failed: byte ") && out.contains(" instead of "), "{out}");
}

#[test]
fn operations_come_again_with_their_seed() {
    let begin = |seed| {
        let bed = bed(|_| ());
        let (done, out) = told(&bed, &format!("soak count=50 span=65536 seed={seed}"));
        assert!(done && out.contains("\nsoaked 1 rounds: "), "{out}");
        let seen = &bed.backend().seen;
        assert!(seen.len() >= 50);
        seen.iter().map(|request| (request.op, request.sector)).collect::<Vec<_>>()
    };
    let first = begin(3);
    assert_eq!(first, begin(3));
    assert_ne!(first, begin(4));
}

#[test]
fn a_disk_that_grows_is_soaked_at_its_new_end() {
    let bed = bed(|_| ());
    let out = while_it_runs(&bed, "soak runtime=2 seed=1", |backend| backend.resize(40 * 1024));
    assert!(out.contains("the disk has 40960 sectors now") && out.contains("\ndone"), "{out}");
    assert!(bed.backend().seen.iter().any(|request| request.sector >= 36 * 1024));
}

#[test]
fn a_backend_that_comes_back_is_given_the_work_again() {
    let bed = bed(all_features);
    let out = while_it_runs(&bed, "soak runtime=2 seed=1 queues=2", |backend| {
        backend.disconnect();
        backend.write_state(State::Closed);
    });
    for line in ["the backend is gone: waiting for it, 30 s at most", "the backend is back: ", "done"] {
        assert!(out.lines().any(|told| told.starts_with(line)), "{line}: {out}");
    }
}

#[test]
fn a_backend_that_closes_and_offers_the_disk_again_finds_the_soak_back() {
    for loses in [false, true] {
        let bed = bed(all_features);
        let out = while_it_runs(&bed, "soak runtime=2 seed=1", |backend| {
            // What it holds when it has closed is what it holds when it comes back, or not.
            backend.write_state(State::Closing);
            if loses {
                backend.image.fill(0);
            }
        });
        let again = "the backend closes the disk: waiting for it to offer it again";
        let last = if loses { "failed: byte " } else { "done" };
        for line in [again, last] {
            assert!(out.lines().any(|told| told.starts_with(line)), "{line}: {out}");
        }
    }
}
