//! The daemon under a toolstack's hands: disks that come and go, in haste.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use blkback::config::Config;
use blkif_proto::{Abi, xenbus::State};
use tests::{
    conformance::rig::{Guest, Wish},
    world::{Binaries, Disk, Middleman, World, wait_until},
};
use xen_platform::{FrontWorld as _, sim, wire::Errno};

fn world() -> World {
    let mut world = World::start(Binaries::build().unwrap()).unwrap();
    world.start_backend(&[]).unwrap();
    world
}

/// The frontend goes back to state 1 just as the toolstack detaches: neither may lose the other's word.
#[test]
fn a_disk_is_detached_right_after_its_frontend_closed() {
    let mut world = world();
    for _ in 0..50 {
        let vbd = world.guest_with_disk(&Disk::new("null:1M")).unwrap();
        let output = world.blkfront(&vbd).arg("info").output().unwrap();
        assert!(output.status.success(), "{output:?}");
        world.toolstack().detach(&vbd).unwrap();
        world.toolstack().destroy_guest(vbd.guest, &[]).unwrap();
    }
    world.stop().unwrap();
}

/// A daemon that is told to end while its last device's nodes are being deleted.
#[test]
fn the_daemon_stops_right_after_a_detach() {
    for _ in 0..20 {
        let mut world = world();
        let vbd = world.guest_with_disk(&Disk::new("null:1M")).unwrap();
        world.toolstack().detach(&vbd).unwrap();
        world.stop().unwrap();
    }
}

/// Disks that are never connected, and disks of a guest that is destroyed.
#[test]
fn a_destroyed_guest_leaves_no_device() {
    let mut world = world();
    let guest = world.toolstack().create_guest(64).unwrap();
    let disks: Vec<_> =
        (0..8).map(|index| world.attach(guest, &Disk { index, ..Disk::new("null:1M") }).unwrap()).collect();
    world.toolstack().destroy_guest(guest, &disks).unwrap();
    for vbd in &disks {
        assert_eq!(world.toolstack().read(&format!("{}/state", vbd.backend)).unwrap(), None);
    }
    world.stop().unwrap();
}

/// Both ends say what they wanted or offered, and what it came down to.
#[test]
fn what_is_reduced_is_told() {
    let mut world = world();
    let vbd = world.guest_with_disk(&Disk::new("null:1M")).unwrap();
    let output = world.blkfront(&vbd).args(["--ring-pages", "2", "info"]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let frontend = String::from_utf8(output.stderr).unwrap();
    assert!(frontend.contains("feature-persistent: wanted 1, offered 0, using 0"), "{frontend}");
    let backend = world.backend_words();
    for told in [r#"key="max-ring-pages" offered=16 used=2"#, r#"key="max-requests" offered=512 used=64"#] {
        assert!(backend.contains(told), "{backend}");
    }
    world.stop().unwrap();
}

/// A guest whose disk cannot be announced would wait for ever.
#[test]
fn what_xenstore_does_not_take_closes_the_disk_until_it_does() {
    let mut world = World::start(Binaries::default()).unwrap();
    let middleman = Middleman::start(world.dir(), world.xenstore()).unwrap();
    world.start_backend_behind(&middleman, Config::default()).unwrap();
    let vbd = world.guest_with_disk(&Disk::new("null:1M")).unwrap();
    let front = sim::World::connect(world.dir(), vbd.guest).unwrap();
    let store = front.store().unwrap();
    let mut guest = Guest { world: front, store, vbd, abi: Abi::X86_64 };

    middleman.refuse(Some(("sectors", Errno::Io)));
    let connection = guest.publish(&Wish::default()).unwrap();
    guest.refused_for("cannot announce the disk: XS interface error EIO").unwrap();
    drop(connection);

    middleman.refuse(None);
    guest.set_state(State::Closed).unwrap();
    guest.wait_backend(State::Closed).unwrap();
    guest.set_state(State::Initialising).unwrap();
    guest.connect(&Wish::default()).unwrap().read(0, 4096).unwrap();
    world.stop().unwrap();
}

/// As a driver domain's daemon meets it when its quota is used up: no state is shown without the keys it stands for.
#[test]
fn a_full_xenstore_keeps_new_disks_out_and_nobody_else() {
    let mut world = World::start(Binaries::default()).unwrap();
    let middleman = Middleman::start(world.dir(), world.xenstore()).unwrap();
    world.start_backend_behind(&middleman, Config::default()).unwrap();
    middleman.refuse(Some(("feature-flush-cache", Errno::Nospc)));
    let guest = world.toolstack().create_guest(64).unwrap();
    let vbd = world.toolstack().make_nodes(guest, &Disk::new("null:1M")).unwrap();
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(world.toolstack().backend_state(&vbd).unwrap(), State::Initialising);
    world.toolstack().detach(&vbd).unwrap();
    middleman.refuse(None);
    world.attach(guest, &Disk::new("null:1M")).unwrap();
    world.stop().unwrap();
}

/// It removes the nodes itself, some time after it has closed, whatever other times it was waiting for: the toolstack waits
/// 10 s for that.
#[test]
fn a_driver_domain_removes_a_disk_that_is_detached_soon_after_it_came() {
    let mut world = World::start(Binaries::default()).unwrap();
    let mut config = Config::default();
    config.daemon.driver_domain = Some(true);
    world.start_backend_thread(config).unwrap();
    let guest = world.toolstack().create_guest(64).unwrap();
    let vbd = world.attach(guest, &Disk::new("null:1M")).unwrap();
    // The daemon gives an image 5 s to be opened, and leaves a closed device for 2 s: the second ends after the first.
    std::thread::sleep(Duration::from_millis(3500));
    world.toolstack().ask_to_close(&vbd).unwrap();
    let state = format!("{}/state", vbd.backend);
    wait_until("the nodes to be removed", Duration::from_secs(8), || {
        Ok(world.toolstack().read(&state)?.is_none().then_some(()))
    })
    .unwrap();
    world.stop().unwrap();
}
