//! The driver in the engine, against the suite and QEMU's tools.

use std::{
    fs,
    path::PathBuf,
    process::Command,
    time::{Duration, Instant},
};

use super::*;
use crate::{
    sandbox::{
        outside::{How, Progress, Unconfined},
        servers::Server,
    },
    storage::{
        Action, Engine, IoMemory, Op, Part, Storage as _,
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

    fn qemu_io(&self, command: &str, path: &Path) {
        let output = Command::new("qemu-io").args(["-c", command]).arg(path).output().unwrap();
        assert!(output.status.success(), "qemu-io {command}: {output:?}");
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

/// Memory in one part.
struct Whole(Vec<u8>);

impl IoMemory for Whole {
    fn parts(&mut self, mut each: impl FnMut(Part<'_>)) {
        each(Part::Private(&mut self.0));
    }
}

/// xorshift64*
struct Chance(u64);

impl Chance {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 16) % end
    }
}

/// Reads and writes here and there; how many of the operations went well. All come back, in time.
fn use_it(image: &Arc<Image>, chance: &mut Chance) -> usize {
    let mut engine = Engine::new().unwrap();
    let disk = engine.attach(image).unwrap();
    let bytes = (image.sectors() * 512).min(LEAST_BYTES);
    let mut sent = 0;
    for _ in 0..40 {
        let len = 512 * (1 + chance.below(256)).min(bytes / 512);
        let offset = chance.below((bytes - len) / 512 + 1) * 512;
        let (action, len) = match chance.below(8) {
            0 => (Action::Flush, 0),
            1 if image.geometry().discard.is_some() => (Action::Discard { offset, len, secure: false }, 0),
            2..5 => (Action::Read { offset }, len),
            _ => (Action::Write { offset }, len),
        };
        let data = Whole(vec![9; usize::try_from(len).unwrap()]);
        engine
            .submit(Box::new(Op { disk, action, outcome: Ok(()), data }))
            .unwrap_or_else(|_| unreachable!());
        sent += 1;
    }
    engine.kick().unwrap();
    let (mut well, begin) = (0, Instant::now());
    while sent > 0 {
        assert!(begin.elapsed() < Duration::from_secs(30), "{sent} operations do not come back");
        match engine.reap() {
            Some(op) => {
                sent -= 1;
                well += usize::from(op.outcome.is_ok());
            }
            None => _ = engine.wait(Some(Duration::from_millis(100))).unwrap(),
        }
    }
    engine.detach(disk);
    well
}

/// Bytes of tables are changed, files cut short: either the image is refused, or its operations come back, whatever becomes of them.
#[test]
fn corrupt_images_harm_nobody() {
    let bench = Bench::new();
    let mut chance = Chance(0x9E37_79B9_7F4A_7C15);
    fs::write(bench.path("base.raw"), vec![7; usize::try_from(LEAST_BYTES).unwrap()]).unwrap();
    let (mut refused, mut served, mut well) = (0, 0, 0);
    for options in [
        &["-o", "cluster_size=512"][..],
        &["-o", "cluster_size=4096,refcount_bits=1"],
        &["-o", "compat=0.10"],
    ] {
        let path = bench.create("a.qcow2", options);
        assert!(use_it(&opened(&path, &ImageOptions::default()).unwrap(), &mut chance) == 40);
        let sound = fs::read(&path).unwrap();
        let broken = bench.path("broken.qcow2");
        // The first clusters hold the header, tables of reference counts, and the table of level 1.
        let tables = u64::try_from(sound.len()).unwrap().min(5 << 16);
        for _ in 0..60 {
            let mut image = sound.clone();
            for _ in 0..1 + chance.below(6) {
                let at = match chance.below(3) {
                    0 => chance.below(112),
                    1 => chance.below(tables),
                    _ => chance.below(sound.len() as u64),
                };
                let at = usize::try_from(at).unwrap();
                match chance.below(4) {
                    0 => image[at] ^= 1 << chance.below(8),
                    1 => image[at] = u8::try_from(chance.below(256)).unwrap(),
                    2 => image[at / 8 * 8..at / 8 * 8 + 8].fill(0xFF),
                    // Something that another table has.
                    _ => {
                        let from = usize::try_from(chance.below(tables)).unwrap() / 8 * 8;
                        image.copy_within(from..from + 8, at / 8 * 8);
                    }
                }
            }
            if chance.below(6) == 0 {
                image.truncate(usize::try_from(chance.below(sound.len() as u64)).unwrap());
            }
            fs::write(&broken, &image).unwrap();
            match opened(&broken, &ImageOptions::default()) {
                Err(why) => {
                    assert!(why.contains("broken.qcow2"), "{why}");
                    refused += 1;
                }
                Ok(image) => {
                    served += 1;
                    well += use_it(&image, &mut chance);
                }
            }
        }
    }
    println!("{refused} refused, {served} served, {well} operations done");
    assert!(refused > 30 && served > 30 && well > served * 10);
}

/// A keeper of one folder.
#[derive(Debug)]
struct Folder(PathBuf);

impl Outside for Folder {
    fn open(&self, path: &Path, how: How) -> std::io::Result<fs::File> {
        if path.starts_with(&self.0) {
            Unconfined.open(path, how)
        } else {
            Err(nix::errno::Errno::EXDEV.into())
        }
    }

    fn connect(&self, _: &Server) -> std::io::Result<std::os::fd::OwnedFd> {
        Err(std::io::ErrorKind::Unsupported.into())
    }

    fn tell(&self, _: Progress) {}
}

#[test]
fn a_base_outside_of_the_folders_is_refused() {
    let bench = Bench::new();
    fs::create_dir(bench.path("inside")).unwrap();
    fs::write(bench.path("base.raw"), [7; 4096]).unwrap();
    for base in ["../base.raw", bench.path("base.raw").to_str().unwrap()] {
        let path = bench.create("inside/a.qcow2", &["-F", "raw", "-b", base]);
        let outside = Folder(bench.path("inside"));
        let refused = open(&outside, &path, &ImageOptions::default()).unwrap_err().to_string();
        assert!(refused.contains("outside of the folders") && refused.contains("base.raw"), "{refused}");
        opened(&path, &ImageOptions::default()).unwrap();
    }
}

/// Of an image with one cluster of data: where its tables are, by what QEMU makes, in clusters of 64 KiB.
#[test]
fn tables_that_contradict_each_other_are_refused() {
    const CLUSTER: usize = 64 << 10;
    let (counts, l1, l2, data) = (2 * CLUSTER, 3 * CLUSTER, 4 * CLUSTER, 5u64);
    let bench = Bench::new();
    let path = bench.create("a.qcow2", &[]);
    bench.qemu_io("write -P 7 0 64k", &path);
    let sound = fs::read(&path).unwrap();
    let own = 1u64 << 63;
    let put = |at: usize, bytes: &[u8]| {
        let mut image = sound.clone();
        image[at..at + bytes.len()].copy_from_slice(bytes);
        fs::write(&path, image).unwrap();
        opened(&path, &ImageOptions::default()).map(drop)
    };
    let counted = |cluster: usize, count: u16| put(counts + cluster * 2, &count.to_be_bytes());
    let led =
        |at: usize, cluster: u64, flags: u64| put(at, &((cluster * CLUSTER as u64) | flags).to_be_bytes());
    led(l2, data, own).unwrap();
    let refused = |outcome: Result<(), String>, why: &str| {
        let said = outcome.unwrap_err();
        assert!(said.contains(why) && said.contains("qemu-img check -r all"), "{said}");
    };
    refused(counted(5, 0), "cluster 5 is led to 1 times and counted 0 times");
    refused(counted(5, 2), "cluster 5 is led to 1 times and counted 2 times");
    refused(counted(3, 0), "cluster 3 is led to 1 times and counted 0 times");
    refused(led(l2, 3, own), "cluster 3 is led to 2 times");
    refused(led(l2 + 8, 5, own), "cluster 5 is led to 2 times");
    refused(led(l1, 2, own), "cluster 2 is led to 2 times");
    // A cluster that is lost harms nobody.
    counted(9, 1).unwrap();
}
