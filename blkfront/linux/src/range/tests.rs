use std::fs;

use blkif_proto::keys::{BackendDisk, DiskInfo};

use crate::{exit::Usage, testbed::Bed};

const SIZE: usize = 4 << 20;

#[test]
fn any_range_of_bytes_can_be_written_and_read_in_every_mode() {
    for mode in [
        &[][..],
        &["--segments", "direct", "--ring-pages", "1"],
        &["--segments", "indirect"],
        &["--segments", "blocks"],
        &["--no-persistent"],
        &["--abi", "x86_32", "--poll-us", "0"],
    ] {
        let bed = Bed::with(SIZE, |medium| medium.bytes.fill(0xee));
        let (input, output) = (bed.path("in"), bed.path("out"));
        let data: Vec<u8> = (1..=251).cycle().take(1_000_003).collect();
        fs::write(&input, &data).unwrap();
        let run = |words: &[&str]| bed.run(&[mode, words].concat()).unwrap();
        run(&["write", "--offset", "12345", &input]);
        run(&["read", "--offset", "12345", "--length", "1000003", &output]);
        assert!(fs::read(&output).unwrap() == data);
        let medium = bed.medium();
        assert!(medium.bytes[12345..][..data.len()] == data);
        assert!(medium.bytes[..12345].iter().all(|byte| *byte == 0xee), "before it");
        assert!(medium.bytes[12345 + data.len()..].iter().all(|byte| *byte == 0xee), "behind it");
        assert!(medium.flushes > 0);
    }
}

#[test]
fn ranges_within_large_sectors_keep_their_neighbours() {
    let bed = Bed::with(SIZE, |medium| {
        medium.bytes.fill(0xee);
        medium.disk = BackendDisk { sector_size: 4096, ..medium.disk };
    });
    let input = bed.path("in");
    fs::write(&input, [7; 10]).unwrap();
    bed.run(&["write", "--offset", "4090", &input]).unwrap();
    let medium = bed.medium();
    assert_eq!(medium.bytes[4090..4100], [7; 10]);
    assert!(medium.bytes[..4090].iter().chain(&medium.bytes[4100..]).all(|byte| *byte == 0xee));
}

#[test]
fn the_end_of_the_disk_is_respected() {
    let bed = Bed::new(SIZE);
    let (input, output) = (bed.path("in"), bed.path("out"));
    fs::write(&input, [7; 600]).unwrap();
    let end = |before: usize| (SIZE - before).to_string();
    bed.run(&["write", "--offset", &end(600), &input]).unwrap();
    assert!(bed.run(&["write", "--offset", &end(599), &input]).unwrap_err().is::<Usage>());
    assert!(bed.run(&["write", "--offset", &end(0), "--length", "1", &input]).is_err());
    bed.run(&["read", "--offset", &end(600), &output]).unwrap();
    assert_eq!(fs::read(&output).unwrap(), [7; 600]);
    for range in [["0", "4194305"], ["4194304", "1"], ["18446744073709551615", "1"]] {
        let error = bed.run(&["read", "--offset", range[0], "--length", range[1], &output]).unwrap_err();
        assert!(error.is::<Usage>(), "{error:#}");
    }
}

#[test]
fn a_read_only_disk_is_not_written() {
    let bed = Bed::with(SIZE, |medium| medium.disk.info = DiskInfo::READ_ONLY);
    let input = bed.path("in");
    fs::write(&input, [7; 512]).unwrap();
    let error = bed.run(&["write", &input]).unwrap_err();
    assert!(format!("{error:#}").contains("read-only"), "{error:#}");
    bed.run(&["info", "--json"]).unwrap();
}

#[test]
fn an_input_that_is_too_short_is_told() {
    let bed = Bed::new(SIZE);
    let input = bed.path("in");
    fs::write(&input, [7; 512]).unwrap();
    let error = bed.run(&["write", "--length", "1k", &input]).unwrap_err();
    assert!(error.to_string().contains("512 bytes, not 1024"), "{error:#}");
}

#[test]
fn a_backend_that_never_answers_can_be_left() {
    let bed = Bed::with(SIZE, |medium| medium.hang = true);
    let stop = crate::signal::Stop::default();
    stop.request();
    let arguments = ["--timeout", "1", "read", "--length", "4k", &bed.path("out")];
    let error = bed.run_until(&arguments, stop).unwrap_err();
    assert!(format!("{error:#}").contains("interrupted"), "{error:#}");
}
