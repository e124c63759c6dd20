use std::{
    fs,
    os::unix::fs::{FileExt as _, MetadataExt as _},
};

use super::*;
use crate::{
    exit::Mismatch,
    signal::Stop,
    testbed::{Bed, Medium},
};

const SIZE: usize = 8 << 20;

/// Bytes that repeat only after 251.
fn noise(length: usize) -> Vec<u8> {
    (1..=251).cycle().take(length).collect()
}

/// An image with data at 0, at 3 MiB + 5000 bytes long, and holes elsewhere.
fn sparse_image(bed: &Bed, name: &str) -> (String, Vec<u8>) {
    let path = bed.path(name);
    let file = File::create(&path).unwrap();
    file.set_len(SIZE as u64).unwrap();
    file.write_all_at(&noise(1 << 20), 0).unwrap();
    file.write_all_at(&noise(5000), 3 << 20).unwrap();
    (path.clone(), fs::read(path).unwrap())
}

fn resume_file(image: &str) -> PathBuf {
    format!("{image}.blkfront-resume").into()
}

#[test]
fn a_sparse_image_overwrites_what_the_disk_held_also_where_it_has_holes() {
    let bed = Bed::with(SIZE, |medium| medium.bytes.fill(0xee));
    let (image, content) = sparse_image(&bed, "in.img");
    bed.run(&["copy", "in", &image, "--verify", "--quiet"]).unwrap();
    assert!(bed.medium().bytes == content);
    assert!(bed.medium().flushes > 0, "the copy is durable");
}

#[test]
fn holes_are_not_written_where_the_disk_reads_as_zeroes() {
    let bed = Bed::new(SIZE);
    let (image, content) = sparse_image(&bed, "in.img");
    bed.run(&["copy", "in", &image]).unwrap();
    assert!(bed.medium().bytes == content);
    assert!(bed.medium().written_bytes < 2 << 20, "{} bytes", bed.medium().written_bytes);
}

#[test]
fn a_discard_that_leaves_rubbish_is_written_over() {
    for discarded in [0, 0xdd] {
        let bed = Bed::with(SIZE, |medium| {
            medium.bytes.fill(0xee);
            medium.discarded = discarded;
        });
        let (image, content) = sparse_image(&bed, "in.img");
        bed.run(&["copy", "in", &image, "--discard"]).unwrap();
        assert!(bed.medium().bytes == content);
        assert!(bed.medium().discards > 0);
        assert_eq!(bed.medium().written_bytes > 2 << 20, discarded != 0);
    }
}

#[test]
fn trust_in_zeroes_passes_holes_over() {
    let bed = Bed::new(SIZE);
    let (image, content) = sparse_image(&bed, "in.img");
    bed.run(&["copy", "in", &image, "--target-is-zero"]).unwrap();
    assert!(bed.medium().bytes == content);
    assert_eq!(bed.medium().reads, 0);
}

#[test]
fn an_odd_end_keeps_the_rest_of_its_sector() {
    let bed = Bed::with(SIZE, |medium| medium.bytes.fill(0xee));
    let image = bed.path("in.img");
    fs::write(&image, noise(1000)).unwrap();
    bed.run(&["copy", "in", &image, "--verify"]).unwrap();
    assert_eq!(bed.medium().bytes[..1000], noise(1000));
    assert!(bed.medium().bytes[1000..].iter().all(|byte| *byte == 0xee));
}

#[test]
fn zeroes_of_the_disk_become_holes_and_old_content_goes() {
    let bed = Bed::new(SIZE);
    let data = noise(1 << 20);
    bed.medium().bytes[2 << 20..3 << 20].copy_from_slice(&data);
    let image = bed.path("out.img");
    fs::write(&image, vec![0x77; SIZE + 4096]).unwrap();
    bed.run(&["copy", "out", &image, "--verify"]).unwrap();
    assert!(fs::read(&image).unwrap() == bed.medium().bytes);
    assert!(fs::metadata(&image).unwrap().blocks() * 512 < 2 << 20, "sparse");
}

#[test]
fn a_part_may_be_copied_out() {
    let bed = Bed::new(SIZE);
    bed.medium().bytes.copy_from_slice(&noise(SIZE));
    let image = bed.path("out.img");
    bed.run(&["copy", "out", &image, "--length", "100001"]).unwrap();
    assert_eq!(fs::read(&image).unwrap(), noise(100_001));
}

#[test]
fn a_full_disk_is_told_and_the_copy_goes_on_later() {
    let bed = Bed::with(SIZE, |medium| medium.full_from = Some(5 << 20));
    let image = bed.path("in.img");
    fs::write(&image, noise(SIZE)).unwrap();
    let error = bed.run(&["copy", "in", &image]).unwrap_err();
    assert!(format!("{error:#}").contains("writing"), "{error:#}");
    let kept: Progress = serde_json::from_str(&fs::read_to_string(resume_file(&image)).unwrap()).unwrap();
    assert!((4 << 20..=5 << 20).contains(&kept.done), "{}", kept.done);
    let done = usize::try_from(kept.done).unwrap();
    assert!(bed.medium().bytes[..done] == noise(SIZE)[..done], "what is said to be done is done");

    bed.medium().full_from = None;
    bed.medium().written_bytes = 0;
    bed.run(&["copy", "in", &image, "--resume", "--verify"]).unwrap();
    assert!(bed.medium().bytes == noise(SIZE));
    assert_eq!(bed.medium().written_bytes, SIZE as u64 - kept.done, "nothing was written twice");
    assert!(!resume_file(&image).exists());
}

#[test]
fn a_stop_in_the_middle_can_be_gone_on_with_both_ways() {
    for direction in ["in", "out"] {
        let bed = Bed::new(SIZE);
        let image = bed.path("image");
        fs::write(&image, noise(SIZE)).unwrap();
        if direction == "out" {
            bed.medium().bytes = noise(SIZE);
        }
        let stop = Stop::default();
        let arguments = ["copy", direction, &image, "--piece", "4k", "--depth", "2"];
        let error = std::thread::scope(|scope| {
            let copy = scope.spawn(|| bed.run_until(&arguments, stop.clone()));
            let begun = |medium: &Medium| medium.reads > 50 || medium.written_bytes > 200_000;
            while !begun(&bed.medium()) {
                std::thread::yield_now();
            }
            stop.request();
            copy.join().unwrap().unwrap_err()
        });
        assert!(format!("{error:#}").contains("interrupted"), "{error:#}");
        bed.run(&["copy", direction, &image, "--resume", "--verify"]).unwrap();
        assert!(bed.medium().bytes == noise(SIZE));
        assert!(fs::read(&image).unwrap() == noise(SIZE));
    }
}

#[test]
fn a_changed_image_is_not_gone_on_with() {
    let bed = Bed::with(SIZE, |medium| medium.full_from = Some(1 << 20));
    let image = bed.path("in.img");
    fs::write(&image, noise(SIZE)).unwrap();
    bed.run(&["copy", "in", &image]).unwrap_err();
    fs::write(&image, noise(SIZE)).unwrap();
    assert!(bed.run(&["copy", "in", &image, "--resume"]).unwrap_err().is::<Usage>());
}

#[test]
fn verification_notices_a_single_bit() {
    let bed = Bed::with(SIZE, |medium| medium.rotten = Some(1_234_567));
    let image = bed.path("in.img");
    fs::write(&image, noise(SIZE)).unwrap();
    let error = bed.run(&["copy", "in", &image, "--verify"]).unwrap_err();
    assert!(error.is::<Mismatch>(), "{error:#}");
}

#[test]
fn what_does_not_fit_is_refused_before_anything_is_written() {
    let bed = Bed::new(SIZE);
    let image = bed.path("in.img");
    fs::write(&image, noise(SIZE + 1)).unwrap();
    assert!(bed.run(&["copy", "in", &image]).unwrap_err().is::<Usage>());
    assert!(bed.run(&["copy", "out", &bed.path("out.img"), "--length", "9M"]).unwrap_err().is::<Usage>());
    assert!(bed.run(&["copy", "in", &bed.path("missing")]).is_err());
    assert_eq!(bed.medium().written_bytes, 0);
}
