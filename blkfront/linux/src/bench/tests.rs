use super::*;
use crate::testbed::Bed;

const SIZE: usize = 4 << 20;

#[test]
fn every_mode_runs_on_several_queues_and_closes_the_disk() {
    let bed = Bed::new(SIZE);
    for mode in ["read", "write", "rw", "randread", "randwrite", "randrw"] {
        let arguments =
            ["--queues", "2", "bench", "--rw", mode, "--bs", "16k", "--depth", "4", "--overwrite"];
        let limits = ["--warmup", "0.01", "--runtime", "10", "--count", "200", "--json"];
        bed.run(&[&arguments[..], &limits].concat()).unwrap();
    }
    assert!(bed.medium().reads >= 400 && bed.medium().written_bytes >= 400 * 16384);
}

#[test]
fn reads_alone_change_nothing() {
    let bed = Bed::new(SIZE);
    bed.run(&["bench", "--warmup", "0", "--runtime", "0.05"]).unwrap();
    assert_eq!(bed.medium().written_bytes, 0);
}

#[test]
fn destruction_must_be_asked_for() {
    let bed = Bed::new(SIZE);
    for mode in ["write", "rw", "randwrite", "randrw"] {
        assert!(bed.run(&["bench", "--rw", mode, "--runtime", "0.01"]).unwrap_err().is::<Usage>(), "{mode}");
    }
    assert_eq!(bed.medium().written_bytes, 0);
}

#[test]
fn loads_that_the_disk_cannot_take_are_refused() {
    let bed = Bed::new(SIZE);
    for arguments in [["--bs", "1000"], ["--bs", "8M"], ["--span", "100"]] {
        let error = bed.run(&[&["bench", "--runtime", "0.01"][..], &arguments].concat()).unwrap_err();
        assert!(error.is::<Usage>(), "{error:#}");
    }
}

#[test]
fn failed_writes_end_the_benchmark_with_the_place() {
    let bed = Bed::with(SIZE, |medium| medium.full_from = Some(0));
    let error = bed.run(&["bench", "--rw", "write", "--overwrite", "--runtime", "5"]).unwrap_err();
    assert!(format!("{error:#}").contains("I/O at sector"), "{error:#}");
}
