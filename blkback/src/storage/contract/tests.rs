//! Every storage, against the suite.

use std::{fs, path::Path};

use super::*;
use crate::storage::{Engine, Fault, Faults, ImageOptions, Memory, Null, Uring};

fn image(path: &Path, options: &ImageOptions) -> Arc<Image> {
    fs::File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path)
        .unwrap()
        .set_len(LEAST_BYTES)
        .unwrap();
    Arc::new(Image::open(path, options).unwrap())
}

/// In the folder for temporary files, which `TMPDIR` names.
fn folder() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

fn null() -> Arc<Image> {
    Arc::new(Image::null(LEAST_BYTES, &ImageOptions::default()).unwrap())
}

#[test]
fn uring_buffered() {
    let folder = folder();
    let image = image(&folder.path().join("a"), &ImageOptions::default());
    check(&mut Uring::new().unwrap(), &image, true).unwrap();
}

#[test]
fn uring_direct() {
    let folder = folder();
    let options = ImageOptions { direct_io: true, ..ImageOptions::default() };
    let image = image(&folder.path().join("a"), &options);
    assert!(image.geometry().direct_io, "the test's folder has no O_DIRECT");
    check(&mut Uring::new().unwrap(), &image, true).unwrap();
}

#[test]
fn uring_read_only() {
    let folder = folder();
    let options = ImageOptions { read_only: true, ..ImageOptions::default() };
    let image = image(&folder.path().join("a"), &options);
    check(&mut Uring::new().unwrap(), &image, true).unwrap();
}

#[test]
fn memory_and_null() {
    check(&mut Memory::default(), &null(), true).unwrap();
    check(&mut Null::default(), &null(), false).unwrap();
}

#[test]
fn the_daemons_engine() {
    let folder = folder();
    let image = image(&folder.path().join("a"), &ImageOptions::default());
    let mut engine = Engine::new().unwrap();
    check(&mut engine, &image, true).unwrap();
    check(&mut engine, &null(), false).unwrap();
}

#[test]
fn a_decorator_without_faults_is_none() {
    let mut fault = Fault::new(Memory::default(), Arc::new(Faults::default()));
    check(&mut fault, &null(), true).unwrap();
    let faults = Arc::new(Faults::default());
    faults.delay(Duration::from_millis(2));
    check(&mut Fault::new(Memory::default(), faults), &null(), true).unwrap();
}

#[test]
fn faults_are_as_ordered() {
    let faults = Arc::new(Faults::default());
    let mut storage = Fault::new(Memory::default(), Arc::clone(&faults));
    let image = null();
    let disk = storage.attach(&image).unwrap();
    let mut suite = Suite { storage: &mut storage, disk, image: &image };
    faults.fail_flushes(Some(Errno::ENOSPC));
    let failed = suite.one(Action::Flush, Scattered::default());
    assert!(failed.is_err_and(|text| text.contains("ENOSPC")));
    faults.fail_flushes(None);
    suite.one(Action::Flush, Scattered::default()).unwrap();
    faults.hold(true);
    suite.submit(Action::Flush, Scattered::default()).unwrap();
    assert!(suite.storage.reap().is_none());
    faults.hold(false);
    assert!(suite.storage.reap().is_some());
}

/// A file that became shorter while it was served: an error, and nothing of the buffer is passed off as data.
#[test]
fn a_truncated_image() {
    let folder = folder();
    let path = folder.path().join("a");
    let image = image(&path, &ImageOptions::default());
    let mut storage = Uring::new().unwrap();
    let disk = storage.attach(&image).unwrap();
    fs::File::options().write(true).open(&path).unwrap().set_len(6144).unwrap();
    let mut suite = Suite { storage: &mut storage, disk, image: &image };
    suite.one(Action::Read { offset: 0 }, Scattered::new(1, 4096, 0)).unwrap();
    let cut = suite.one(Action::Read { offset: 4096 }, Scattered::new(1, 4096, 0));
    assert!(cut.is_err_and(|text| text.contains("EIO")));
    assert!(image.refresh().unwrap());
    assert_eq!(image.sectors(), 12);
}

/// Dropping a storage with operations in the kernel waits for them: their memory goes only after.
#[test]
fn dropped_in_flight() {
    let folder = folder();
    let options = ImageOptions { direct_io: true, ..ImageOptions::default() };
    let image = image(&folder.path().join("a"), &options);
    for _ in 0..20 {
        let mut storage = Uring::new().unwrap();
        let disk = storage.attach(&image).unwrap();
        let mut suite = Suite { storage: &mut storage, disk, image: &image };
        for n in 0..32 {
            suite.submit(Action::Read { offset: n * 65536 }, Scattered::new(8, 4096, 0)).unwrap();
        }
        storage.kick().unwrap();
        drop(storage);
    }
}

/// On real block devices; needs root and a free loop device, and says so where they are missing.
#[test]
fn block_devices_discard() {
    use std::process::Command;
    let folder = folder();
    let backing = folder.path().join("a");
    fs::File::create(&backing).unwrap().set_len(LEAST_BYTES).unwrap();
    let made = Command::new("losetup").args(["--find", "--show"]).arg(&backing).output();
    let Some(made) = made.ok().filter(|made| made.status.success()) else {
        eprintln!("no loop device to be had: block devices are not tested here");
        return;
    };
    let device = String::from_utf8(made.stdout).unwrap().trim().to_owned();
    let result = Image::open(Path::new(&device), &ImageOptions::default())
        .map_err(|e| e.to_string())
        .and_then(|image| {
            assert!(matches!(image.target(), super::super::Target::Block(_)));
            assert_eq!(image.sectors() * 512, LEAST_BYTES);
            let discard = image.geometry().discard.expect("loop devices on files discard");
            assert!(!discard.secure, "loop devices cannot");
            check(&mut Uring::new().unwrap(), &Arc::new(image), true)
        });
    Command::new("losetup").args(["--detach", &device]).status().unwrap();
    result.unwrap();
}
