//! Ceph RBD: a real cluster, and the pair before it.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod bad_input;
mod bed;

use std::{sync::Arc, thread, time::Duration};

use bed::{Images, PATIENCE, closed, connected, fio, lose_osd, open, refusal, start, world};
use blkback::storage::{Engine, ImageOptions, contract};
use nix::sys::signal::Signal;
use tests::{
    ceph::{Auth, Cluster},
    conformance::rig::{Raw, noise},
    kills::Campaign,
    world::{Binaries, Disk, wait_until},
};

#[test]
fn images_and_snapshots_pass_the_suite_of_all_storages() {
    let cluster = Cluster::start(Auth::None).unwrap();
    cluster.rbd(&["create", "--size", "16", "rbd/img"]).unwrap();
    let image = Arc::new(open(&cluster, "rbd/img", &ImageOptions::default()).unwrap());
    let geometry = image.geometry();
    assert_eq!((image.sectors(), geometry.discard.unwrap().granularity), (32768, 65536));
    contract::check(&mut Engine::new().unwrap(), &image, true).unwrap();
    drop(image);
    closed();

    cluster.rbd(&["snap", "create", "rbd/img@before"]).unwrap();
    let image = Arc::new(open(&cluster, "rbd/img@before", &ImageOptions::default()).unwrap());
    assert!(image.read_only() && image.geometry().discard.is_none());
    contract::check(&mut Engine::new().unwrap(), &image, true).unwrap();
    drop(image);
    closed();
}

#[test]
fn a_guest_reads_writes_and_sees_its_disk_grow() {
    let cluster = Cluster::start(Auth::Cephx).unwrap();
    cluster.rbd(&["create", "--size", "16", "rbd/img"]).unwrap();
    cluster.rbd(&["namespace", "create", "rbd/tenant"]).unwrap();
    cluster.rbd(&["create", "--size", "8", "rbd/tenant/img"]).unwrap();
    let mut world = world(&cluster);
    let (mut guest, mut disk) = connected(&mut world, "rbd:rbd/img");
    let (mut other, mut small) = connected(&mut world, "rbd:rbd/tenant/img");

    let bytes = noise(1, 256 << 10);
    disk.write(0, &bytes).unwrap();
    small.write(0, &noise(2, 64 << 10)).unwrap();
    assert!(disk.read(0, bytes.len()).unwrap() == bytes);
    assert!(small.read(0, 64 << 10).unwrap() == noise(2, 64 << 10));
    // What is given back in whole units reads as zeros.
    disk.okay(&Raw::discard(100, 128, 128)).unwrap();
    let after = disk.read(0, bytes.len()).unwrap();
    assert!(
        after[..64 << 10] == bytes[..64 << 10] && after[64 << 10..128 << 10].iter().all(|byte| *byte == 0)
    );
    assert!(after[128 << 10..] == bytes[128 << 10..]);

    // Others may ask us to change it, for we have its lock.
    assert_eq!(guest.disk().unwrap().sectors, 32768);
    for (size, sectors) in [("24", 49152), ("12", 24576)] {
        cluster.rbd(&["resize", "--allow-shrink", "--size", size, "rbd/img"]).unwrap();
        let seen = || Ok((guest.disk()?.sectors == sectors).then_some(()));
        wait_until("another size", PATIENCE, seen).unwrap();
    }
    disk.write(24568, &noise(3, 4096)).unwrap();
    let page = disk.segments(1, 0).unwrap();
    disk.error(&Raw::read(101, 24576, &page)).unwrap();
    assert_eq!(other.disk().unwrap().sectors, 16384);
    world.stop().unwrap();
}

#[test]
fn an_image_has_one_writer() {
    let cluster = Cluster::start(Auth::None).unwrap();
    cluster.rbd(&["create", "--size", "16", "rbd/img"]).unwrap();
    let [mut one, mut other] = [world(&cluster), world(&cluster)];
    let (guest, mut disk) = connected(&mut one, "rbd:rbd/img");
    disk.works().unwrap();

    let said = refusal(&mut one, "rbd:rbd/img");
    assert!(
        said.contains(&format!("rbd:rbd/img is in use by guest {}, disk 51712", guest.vbd.guest)),
        "{said}"
    );
    let said = refusal(&mut other, "rbd:rbd/img");
    assert!(said.contains("rbd:rbd/img is in use by the client at 127.0.0.1:0/"), "{said}");
    // Nor does anybody else's client get it.
    let bench = ["bench", "--io-type", "write", "--io-total", "4K", "--io-size", "4K", "rbd/img"];
    let failed = cluster.rbd(&bench).unwrap_err().to_string();
    assert!(failed.contains("Read-only file system"), "{failed}");
    disk.works().unwrap();

    // What was let go is free at once, also when the daemon ends.
    drop(disk);
    one.toolstack().force_detach(&guest.vbd).unwrap();
    let (_guest, mut disk) = connected(&mut other, "rbd:rbd/img");
    disk.works().unwrap();
    drop(disk);
    other.stop().unwrap();
    let (_guest, mut disk) = connected(&mut one, "rbd:rbd/img");
    disk.works().unwrap();
    one.stop().unwrap();
}

#[test]
fn an_osd_that_is_away_is_a_pause() {
    let mut cluster = Cluster::start(Auth::None).unwrap();
    cluster.rbd(&["create", "--size", "64", "rbd/img"]).unwrap();
    let mut world = world(&cluster);
    let vbd = world.guest_with_disk(&Disk::new("rbd:rbd/img")).unwrap();
    thread::scope(|scope| {
        let load = scope.spawn(|| {
            let verify = ["--verify=crc32c", "--verify_fatal=1", "--verify_backlog=256"];
            let shape =
                ["--rw=randwrite", "--bs=4k", "--iodepth=16", "--size=48m", "--time_based", "--runtime=14"];
            fio(&world, &vbd, &[&shape[..], &verify[..]].concat())
        });
        for _ in 0..2 {
            thread::sleep(Duration::from_secs(2));
            lose_osd(&mut cluster, Duration::from_secs(2));
        }
        assert!(!load.is_finished(), "it was to go on for longer");
        load.join().unwrap().unwrap();
    });
    world.toolstack().detach(&vbd).unwrap();
    world.stop().unwrap();
}

#[test]
fn a_daemon_that_is_killed_is_followed_by_one_that_goes_on() {
    let cluster = Cluster::start(Auth::Cephx).unwrap();
    let binaries = Binaries::build().unwrap();
    let seed = u64::from(std::process::id());
    // On a busy host a next daemon takes a second or two to have five images open.
    let longest = Duration::from_secs(3);
    let campaign = Campaign { kills: 12, seed, longest, steps: cfg!(debug_assertions), binaries };
    let report = campaign.run(&Images(&cluster), |_| {}).unwrap();
    println!("{report}");
    assert!(report.requests > 1000, "{report}");
}

/// The client that has the image's lock.
fn owner(cluster: &Cluster) -> Option<String> {
    let list = cluster.rbd(&["lock", "ls", "rbd/img"]).unwrap();
    list.lines().last()?.split_whitespace().last().map(str::to_owned)
}

/// Their last requests cannot come late: the cluster does not listen to them any more.
#[test]
fn the_dead_are_kept_out() {
    let mut cluster = Cluster::start(Auth::None).unwrap();
    cluster.rbd(&["create", "--size", "16", "rbd/img"]).unwrap();
    let mut world = world(&cluster);
    let (guest, mut disk) = connected(&mut world, "rbd:rbd/img");
    disk.works().unwrap();
    let dead = owner(&cluster).unwrap();
    world.kill_backend().unwrap();
    start(&mut world);
    disk.works().unwrap();
    assert_ne!(owner(&cluster).as_ref(), Some(&dead));
    let blocked = cluster.ceph(&["osd", "blocklist", "ls"]).unwrap();
    assert!(blocked.contains(&dead), "{dead} is not among {blocked}");

    // One that hands over lets its image go by itself.
    let gone = owner(&cluster).unwrap();
    let (worked, said) = world.upgrade_backend().unwrap();
    assert!(worked, "{said}");
    disk.works().unwrap();
    let blocked = cluster.ceph(&["osd", "blocklist", "ls"]).unwrap();
    assert!(!blocked.contains(&gone) && owner(&cluster).as_ref() != Some(&gone), "{gone} is among {blocked}");

    // When nobody answers the next daemon, it asks again.
    let dead = owner(&cluster);
    cluster.stop_osd(Signal::SIGKILL).unwrap();
    world.kill_backend().unwrap();
    start(&mut world);
    thread::sleep(Duration::from_secs(7));
    cluster.start_osd().unwrap();
    let next = || Ok(owner(&cluster).filter(|now| Some(now) != dead.as_ref()).map(drop));
    wait_until("another owner", PATIENCE, next).unwrap();
    disk.works().unwrap();

    // Of all three, nothing is left to be taken for a client.
    drop(disk);
    world.toolstack().force_detach(&guest.vbd).unwrap();
    let logs = world.run_dir().join("inflight");
    let clients = || -> anyhow::Result<usize> {
        let names = std::fs::read_dir(&logs)?.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        Ok(names.filter(|name| name.starts_with("rbd-client-")).count())
    };
    wait_until("the end of the client", PATIENCE, || Ok((clients()? == 0).then_some(()))).unwrap();
    world.stop().unwrap();
}
