//! The storage alone.

use std::sync::Arc;

use blkback::{
    sandbox::outside::{Outside, Unconfined},
    storage::{
        Engine, Image, ImageError, ImageOptions, contract,
        nbd::{self, Patience},
    },
};
use tests::nbd::Server;

fn open(uri: &str, options: &ImageOptions) -> Result<Arc<Image>, ImageError> {
    let outside: Arc<dyn Outside> = Arc::new(Unconfined);
    nbd::open(&outside, uri, options, Patience::default()).map(Arc::new)
}

fn check(uri: &str, options: &ImageOptions) -> Arc<Image> {
    let image = open(uri, options).unwrap();
    contract::check(&mut Engine::new().unwrap(), &image, true).unwrap();
    image
}

#[test]
fn servers_of_others_pass_the_suite_of_all_storages() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("disk.img");
    std::fs::File::create(&file).unwrap().set_len(16 << 20).unwrap();
    let file = file.to_str().unwrap();
    let usual = ImageOptions::default();

    let memory = Server::nbdkit(dir.path(), "memory", &["memory", "16M"]).unwrap();
    let image = check(&memory.uri("any"), &usual);
    assert_eq!(image.sectors(), 32768);
    check(&memory.uri(""), &ImageOptions { read_only: true, ..usual.clone() });

    let plain = Server::nbdkit(dir.path(), "file", &["file", file]).unwrap();
    assert!(check(&plain.uri(""), &usual).geometry().discard.is_some());
    drop(plain);

    let qemu = Server::qemu(dir.path(), "qemu", &["--format=raw", "--discard=unmap", file]).unwrap();
    let image = check(&qemu.uri(""), &usual);
    assert!(image.geometry().flush && image.geometry().discard.is_some());
}
