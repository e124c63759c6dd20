use super::*;

fn progress(done: u64) -> Progress {
    Progress {
        direction: Direction::In,
        disk: "/local/domain/1/device/vbd/51712".into(),
        disk_bytes: 1 << 30,
        length: 1 << 20,
        changed: Some(1_700_000_000_123_456_789),
        done,
    }
}

#[test]
fn what_was_kept_is_recalled() {
    let directory = tempfile::tempdir().unwrap();
    let image = directory.path().join("disk.img");
    progress(4096).keep(&image).unwrap();
    assert_eq!(progress(0).recall(&image).unwrap(), 4096);
    forget(&image).unwrap();
    assert!(progress(0).recall(&image).unwrap_err().is::<Usage>());
    forget(&image).unwrap();
}

#[test]
fn another_copy_is_not_gone_on_with() {
    let directory = tempfile::tempdir().unwrap();
    let image = directory.path().join("disk.img");
    progress(4096).keep(&image).unwrap();
    for other in [
        Progress { direction: Direction::Out, ..progress(0) },
        Progress { disk: "/other".into(), ..progress(0) },
        Progress { disk_bytes: 1, ..progress(0) },
        Progress { length: 1 << 21, ..progress(0) },
        Progress { changed: Some(5), ..progress(0) },
    ] {
        assert!(other.recall(&image).unwrap_err().is::<Usage>(), "{other:?}");
    }
}

#[test]
fn garbage_in_the_state_file_is_an_error_that_names_it() {
    let directory = tempfile::tempdir().unwrap();
    let image = directory.path().join("disk.img");
    for text in ["", "{", "[]", "{\"done\":-1}", "\u{0}"] {
        fs::write(state_file(&image), text).unwrap();
        let error = progress(0).recall(&image).unwrap_err();
        assert!(error.to_string().contains("disk.img.blkfront-resume"), "{error:#}");
    }
    progress(1 << 40).keep(&image).unwrap();
    assert!(progress(0).recall(&image).is_err(), "progress past the end");
}
