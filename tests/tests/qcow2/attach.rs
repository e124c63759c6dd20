//! What is refused when a disk is attached, and how that is said; what grows and shrinks; what is read only.

use std::{fs, os::unix::fs::FileExt as _, path::Path};

use blkif_proto::Abi;
use tests::{
    conformance::rig::{Guest, Wish},
    world::{Binaries, Disk, World},
};
use xen_platform::sim;

use crate::qemu::{Images, disk};

fn world() -> World {
    let mut world = World::start(Binaries::build().unwrap()).unwrap();
    world.start_backend(&[]).unwrap();
    world
}

fn guest(world: &mut World, disk: &Disk) -> Guest<sim::World> {
    let vbd = world.guest_with_disk(disk).unwrap();
    Guest::of(world.dir(), vbd, Abi::X86_64).unwrap()
}

/// Overwrites bytes of a file.
fn patch(path: &Path, at: u64, bytes: &[u8]) {
    fs::File::options().write(true).open(path).unwrap().write_all_at(bytes, at).unwrap();
}

#[test]
fn what_is_not_served_is_refused_with_a_reason() {
    let images = Images::new();
    let mut world = world();
    fs::write(images.path("raw.img"), vec![0; 1 << 20]).unwrap();
    let refused = |world: &mut World, name: &str, why: &str| {
        let mut guest = guest(world, &disk(&images.path(name)));
        guest.refused_for(why).unwrap_or_else(|error| panic!("{name}: {error:#}"));
        assert!(world.backend_words().contains(why), "{why}");
    };
    refused(&mut world, "raw.img", "no qcow2 image");
    refused(&mut world, "missing.qcow2", "missing.qcow2");
    images.create("extended.qcow2", "1M", &["-o", "extended_l2=on"]);
    refused(&mut world, "extended.qcow2", "extended");
    let secret = [
        "--object",
        "secret,id=s,data=x",
        "-o",
        "encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10",
    ];
    images.create("secret.qcow2", "1M", &secret);
    refused(&mut world, "secret.qcow2", "encrypted");
    images.create("apart.qcow2", "1M", &["-o", "data_file=apart.raw"]);
    refused(&mut world, "apart.qcow2", "file of its own");
    images.create("future.qcow2", "1M", &[]);
    patch(&images.path("future.qcow2"), 72, &[0x80]);
    refused(&mut world, "future.qcow2", "not known");

    // Chains: a parent that is gone, one that says nothing of its format, circles, too long, a format nobody has.
    images.create("a.qcow2", "1M", &[]);
    images.create("b.qcow2", "", &["-F", "qcow2", "-b", "a.qcow2"]);
    images.create("c.qcow2", "", &["-F", "qcow2", "-b", "b.qcow2"]);
    images.qemu_img(&["rebase", "-u", "-F", "qcow2", "-b", "c.qcow2", "a.qcow2"]);
    refused(&mut world, "c.qcow2", "in the chain already");
    images.qemu_img(&["rebase", "-u", "-F", "qcow2", "-b", "gone.qcow2", "a.qcow2"]);
    refused(&mut world, "c.qcow2", "gone.qcow2");
    let log = world.backend_words();
    let names = ["c.qcow2", "b.qcow2, that on", "a.qcow2, that on"];
    assert!(names.iter().all(|name| log.contains(name)), "the way is not told: {log}");
    images.qemu_img(&["rebase", "-u", "-F", "qcow2", "-b", "nbd://localhost/x", "a.qcow2"]);
    refused(&mut world, "c.qcow2", "is none");
    images.qemu_img(&["rebase", "-u", "-F", "vpc", "-b", "raw.img", "a.qcow2"]);
    refused(&mut world, "c.qcow2", "vpc");
    images.create("0.qcow2", "1M", &[]);
    for number in 1..40 {
        images.create(
            &format!("{number}.qcow2"),
            "1M",
            &["-u", "-F", "qcow2", "-b", &format!("{}.qcow2", number - 1)],
        );
    }
    refused(&mut world, "39.qcow2", "more than 31");
    let mut long = guest(&mut world, &disk(&images.path("31.qcow2")));
    drop(long.connect(&Wish::default()).unwrap());
    long.close().unwrap();

    // A base that a guest writes to is not for others, nor the other way round.
    images.create("base.qcow2", "1M", &[]);
    images.create("over.qcow2", "", &["-F", "qcow2", "-b", "base.qcow2"]);
    let mut writer = guest(&mut world, &disk(&images.path("base.qcow2")));
    let connection = writer.connect(&Wish::default()).unwrap();
    refused(&mut world, "over.qcow2", "in use by guest");
    drop(connection);
    writer.close().unwrap();
    world.stop().unwrap();
}

#[test]
fn disks_grow_and_shrink_online() {
    let images = Images::new();
    let mut world = world();
    fs::write(images.path("base.raw"), vec![7; 4 << 20]).unwrap();
    images.create("a.qcow2", "2M", &["-F", "raw", "-b", "base.raw", "-o", "cluster_size=512"]);
    let vbd = world.guest_with_disk(&disk(&images.path("a.qcow2"))).unwrap();
    let mut guest: Guest<sim::World> = Guest::of(world.dir(), vbd.clone(), Abi::X86_64).unwrap();
    let mut connection = guest.connect(&Wish::default()).unwrap();
    connection.write(0, &[3; 4096]).unwrap();
    for (size, mib) in [("64M", 64), ("1M", 1), ("3M", 3)] {
        let mut command = world.blkctl();
        command.args(["resize", &format!("{}/{}", vbd.guest.0, vbd.number), size]);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{size}: {}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(guest.disk().unwrap().sectors, mib * 2048, "{size}");
        let info = images.qemu_img(&["info", "-U", "a.qcow2"]);
        assert!(info.contains(&format!("({} bytes)", mib << 20)), "{info}");
        let last = mib * 2048 - 8;
        if mib > 1 {
            // What was added is zeros, though there is something below.
            assert!(connection.read(last, 4096).unwrap() == [0; 4096], "{size}");
        }
        connection.write(last, &[5; 4096]).unwrap();
        assert!(connection.read(0, 4096).unwrap() == [3; 4096]);
    }
    drop(connection);
    guest.close().unwrap();
    world.stop().unwrap();
    crate::qemu::check(&images.path("a.qcow2"));
}

#[test]
fn flat_vmdk_images_are_read() {
    let images = Images::new();
    fs::write(images.path("a.raw"), vec![7; 1 << 20]).unwrap();
    images.qemu_img(&["convert", "-O", "vmdk", "-o", "subformat=monolithicFlat", "a.raw", "a.vmdk"]);
    images.qemu_img(&["convert", "-O", "vmdk", "a.raw", "sparse.vmdk"]);
    let mut world = world();
    let vmdk = |name: &str, writable| Disk {
        writable,
        ..Disk::new(format!("vmdk:{}", images.path(name).display()))
    };
    let mut reader = guest(&mut world, &vmdk("a.vmdk", false));
    let mut connection = reader.connect(&Wish::default()).unwrap();
    assert!(connection.read(0, 1 << 20).unwrap() == vec![7; 1 << 20]);
    guest(&mut world, &vmdk("a.vmdk", true)).refused_for("read only").unwrap();
    guest(&mut world, &vmdk("sparse.vmdk", false)).refused_for("sparse").unwrap();
    drop(connection);
    reader.close().unwrap();
    world.stop().unwrap();
}
