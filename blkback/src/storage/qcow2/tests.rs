//! The driver in the engine, against the suite and QEMU's tools.

use std::{fs, path::PathBuf, process::Command};

use super::*;
use crate::{
    sandbox::outside::Unconfined,
    storage::{
        Engine,
        contract::{self, LEAST_BYTES},
    },
};

/// A folder for images.
struct Bench(tempfile::TempDir);

impl Bench {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Makes an image by `qemu-img create`.
    fn create(&self, name: &str, options: &[&str]) -> PathBuf {
        let path = self.path(name);
        let size = LEAST_BYTES.to_string();
        let based = options.contains(&"-b");
        let mut words = vec!["create", "-q", "-f", "qcow2"];
        words.extend(options);
        words.push(path.to_str().unwrap());
        if !based {
            words.push(&size);
        }
        self.qemu_img(&words);
        path
    }

    fn qemu_img(&self, words: &[&str]) -> String {
        let output = Command::new("qemu-img").args(words).current_dir(self.0.path()).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(
            output.status.success(),
            "qemu-img {words:?}: {said}{}",
            String::from_utf8_lossy(&output.stderr)
        );
        said
    }
}

fn opened(path: &Path, options: &ImageOptions) -> Result<Arc<Image>, String> {
    open(&Unconfined, path, options).map(Arc::new).map_err(|error| error.to_string())
}

fn suite(bench: &Bench, path: &Path, options: &ImageOptions) {
    let image = opened(path, options).unwrap();
    contract::check(&mut Engine::new().unwrap(), &image, true).unwrap();
    drop(image);
    bench.qemu_img(&["check", path.to_str().unwrap()]);
}

#[test]
fn every_kind_of_image_passes_the_suite() {
    let bench = Bench::new();
    fs::write(bench.path("base.raw"), vec![7; usize::try_from(LEAST_BYTES).unwrap()]).unwrap();
    bench.create("base.qcow2", &["-F", "raw", "-b", "base.raw"]);
    for options in [
        &["-o", "cluster_size=512"][..],
        &["-o", "cluster_size=4096,refcount_bits=1"],
        &["-o", "cluster_size=64k,refcount_bits=64"],
        &["-o", "cluster_size=2M,lazy_refcounts=on"],
        &["-o", "compat=0.10"],
        &["-o", "preallocation=metadata"],
        &["-o", "preallocation=full,cluster_size=16k"],
        &["-F", "qcow2", "-b", "base.qcow2", "-o", "cluster_size=8k"],
        &["-F", "raw", "-b", "base.raw", "-o", "compat=0.10"],
    ] {
        let path = bench.create("a", options);
        suite(&bench, &path, &ImageOptions::default());
        suite(&bench, &path, &ImageOptions { direct_io: true, ..ImageOptions::default() });
        suite(&bench, &path, &ImageOptions { read_only: true, ..ImageOptions::default() });
    }
}
