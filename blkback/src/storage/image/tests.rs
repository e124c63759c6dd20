use std::fs;

use super::*;

#[test]
fn what_is_no_disk_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let open = |path: &Path, options: &ImageOptions| Image::open(path, options).unwrap_err().to_string();
    let options = ImageOptions::default();
    let missing = folder.path().join("missing");
    let text = open(&missing, &options);
    assert!(text.contains("find") && text.contains("missing"), "{text}");
    let text = open(folder.path(), &options);
    assert!(text.contains("neither a regular file nor a block device"), "{text}");
    let small = folder.path().join("small");
    fs::write(&small, [0; 511]).unwrap();
    assert!(open(&small, &options).contains("smaller than one sector of 512 bytes"));
    let options = ImageOptions { sector_size: 4096, ..options };
    fs::write(&small, [0; 4095]).unwrap();
    assert!(open(&small, &options).contains("smaller than one sector of 4096 bytes"));
    assert!(open(Path::new("/dev/null"), &ImageOptions::default()).contains("neither"));
    assert!(Image::null(100, &ImageOptions::default()).is_err());
}

#[test]
fn a_size_is_whole_sectors_and_follows_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a");
    fs::write(&path, vec![0; 4096 * 3 + 700]).unwrap();
    let image = Image::open(&path, &ImageOptions::default()).unwrap();
    assert_eq!(image.sectors(), 25);
    assert!(!image.refresh().unwrap());
    fs::write(&path, vec![0; 1 << 20]).unwrap();
    assert!(image.refresh().unwrap());
    assert_eq!(image.sectors(), 2048);
    drop(image);
    let options = ImageOptions { sector_size: 4096, ..ImageOptions::default() };
    fs::write(&path, vec![0; 4096 * 3 + 700]).unwrap();
    let image = Image::open(&path, &options).unwrap();
    assert_eq!((image.sectors(), image.geometry().sector_size), (24, 4096));
    assert!(image.geometry().physical_sector_size >= 4096);
}

#[test]
fn a_read_only_image_offers_no_discard() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a");
    fs::write(&path, vec![0; 1 << 20]).unwrap();
    let geometry = |options: ImageOptions| Image::open(&path, &options).unwrap().geometry();
    assert!(geometry(ImageOptions::default()).discard.is_some());
    assert!(geometry(ImageOptions { discard: false, ..ImageOptions::default() }).discard.is_none());
    let read_only = geometry(ImageOptions { read_only: true, ..ImageOptions::default() });
    assert!(read_only.read_only && read_only.discard.is_none());
    assert_eq!(
        fs::metadata(&path).unwrap().len(),
        1 << 20,
        "asking whether holes can be punched changes nothing"
    );
}
