//! fio and others over the whole path: NBD client, `blkfront nbd`, the ring, `blkback`, the image; and what QEMU finds there.

use std::{fs, path::PathBuf, process::Command, time::Duration};

use tests::world::{Binaries, Process, Vbd, World};

use crate::qemu::{Health, Images, check, disk};

/// Longest run of one program.
const PATIENCE: Duration = Duration::from_secs(120);
const MIB: usize = 1 << 20;

/// A guest's disk as an NBD export.
struct Export {
    world: World,
    vbd: Vbd,
    server: Process,
    uri: String,
    image: PathBuf,
}

impl Export {
    fn start(image: PathBuf) -> Self {
        let mut world = World::start(Binaries::build().unwrap()).unwrap();
        world.start_backend(&[]).unwrap();
        let vbd = world.guest_with_disk(&disk(&image)).unwrap();
        let (server, socket) = world.serve_nbd(&vbd, &[]).unwrap();
        let uri = format!("nbd+unix:///?socket={}", socket.display());
        Self { world, vbd, server, uri, image }
    }

    /// Runs fio; its files are its own.
    fn fio(&self, arguments: &[&str]) {
        let mut command = Command::new("fio");
        command
            .args(["--name=load", "--ioengine=nbd", "--iodepth=32", "--randrepeat=1", "--eta=never"])
            .arg(format!("--uri={}", self.uri))
            .args(arguments);
        self.run(command);
    }

    fn run(&self, mut command: Command) {
        let name = command.get_program().to_string_lossy().into_owned();
        let log = self.world.dir().join("program.log");
        let mut process = Process::spawn_logged(&name, command.current_dir(self.world.dir()), &log).unwrap();
        process.wait_success(PATIENCE).unwrap();
    }

    fn stop(mut self) -> PathBuf {
        self.server.stop().unwrap();
        self.world.toolstack().detach(&self.vbd).unwrap();
        self.world.stop().unwrap();
        self.image
    }
}

/// What was verified by fio through the ring, QEMU reads too; nothing is wrong with the image, and nothing lost.
#[test]
fn fio_verifies_and_qemu_agrees() {
    let images = Images::new();
    let base: Vec<u8> = (0..32 * MIB).map(|at| u8::try_from(at / 4096 % 251).unwrap()).collect();
    fs::write(images.path("base.raw"), &base).unwrap();
    images.create("base.qcow2", "", &["-F", "raw", "-b", "base.raw"]);
    let compressed = ["convert", "-c", "-O", "qcow2", "base.raw", "compressed.qcow2"];
    images.qemu_img(&compressed);
    images.create("plain.qcow2", "32M", &[]);
    images.create("old.qcow2", "32M", &["-o", "compat=0.10,cluster_size=4k"]);
    images.create("full.qcow2", "32M", &["-o", "preallocation=full"]);
    images.create("based.qcow2", "", &["-F", "qcow2", "-b", "base.qcow2", "-o", "cluster_size=16k"]);
    for name in ["plain.qcow2", "old.qcow2", "full.qcow2", "based.qcow2", "compressed.qcow2"] {
        let export = Export::start(images.path(name));
        export.fio(&[
            "--rw=randwrite",
            "--bsrange=4k-256k",
            "--size=16m",
            "--offset=8m",
            "--verify=crc32c",
            "--verify_fatal=1",
            "--end_fsync=1",
        ]);
        // All of the disk through the ring is what QEMU finds in the image.
        let mut copy = Command::new("nbdcopy");
        copy.arg(&export.uri).arg(images.path("ring.raw"));
        export.run(copy);
        export.stop();
        images.qemu_img(&["compare", "-f", "raw", "-F", "qcow2", "ring.raw", name]);
        assert_eq!(check(&images.path(name)), Health::Sound, "{name}");
        let map = images.qemu_img(&["map", "--output=json", name]);
        assert!(map.contains(r#""data": true"#), "{map}");
        let outside = 0..8 * MIB;
        let there = fs::read(images.path("ring.raw")).unwrap();
        let expected = if ["based.qcow2", "compressed.qcow2"].contains(&name) {
            &base[outside.clone()]
        } else {
            &[0; 8 * MIB][..]
        };
        assert!(&there[outside] == expected, "{name}: what nobody wrote to has changed");
    }
}

/// Discarded clusters read as zeros, are free for others, and QEMU sees that.
#[test]
fn discarded_clusters_are_free() {
    let images = Images::new();
    fs::write(images.path("base.raw"), vec![7; 16 * MIB]).unwrap();
    images.create("a.qcow2", "", &["-F", "raw", "-b", "base.raw"]);
    let export = Export::start(images.path("a.qcow2"));
    export.fio(&["--rw=write", "--bs=1m", "--size=16m"]);
    let before = fs::metadata(&export.image).unwrap().len();
    export.fio(&["--rw=trim", "--bs=1m", "--size=16m"]);
    export.fio(&["--rw=write", "--bs=1m", "--size=8m"]);
    let image = export.stop();
    assert!(fs::metadata(&image).unwrap().len() <= before + 2 * MIB as u64, "clusters were not used again");
    assert_eq!(check(&image), Health::Sound);
    images.qemu_io("a.qcow2", &["read -P 0 8m 8m"]);
}

/// Another guest's disk on the same base; neither notices the other, and the base is never written to.
#[test]
fn guests_share_what_their_images_are_based_on() {
    let images = Images::new();
    fs::write(images.path("base.raw"), vec![7; 8 * MIB]).unwrap();
    for name in ["a.qcow2", "b.qcow2"] {
        images.create(name, "", &["-F", "raw", "-b", "base.raw"]);
    }
    let mut export = Export::start(images.path("a.qcow2"));
    let other = export.world.guest_with_disk(&disk(&images.path("b.qcow2"))).unwrap();
    export.fio(&["--rw=write", "--bs=64k", "--size=4m"]);
    let state = export.world.toolstack().backend_state(&other).unwrap();
    assert_eq!(state, xen_platform_state());
    export.stop();
    images.qemu_io("b.qcow2", &["read -P 7 0 8m"]);
    assert!(fs::read(images.path("base.raw")).unwrap().iter().all(|byte| *byte == 7));
}

fn xen_platform_state() -> blkif_proto::xenbus::State {
    blkif_proto::xenbus::State::InitWait
}
