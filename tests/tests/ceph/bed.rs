//! A cluster, and a simulated world whose daemon serves its images.

use std::{path::Path, process::Command, time::Duration};

use anyhow::Result;
use blkback::storage::{
    Image, ImageError, ImageOptions,
    rbd::{Ceph, Clusters, Name, wait_until_closed},
};
use blkif_proto::Abi;
use nix::sys::signal::Signal;
use tests::{
    ceph::Cluster,
    conformance::rig::{Connection, Guest, Wish},
    kills::Disks,
    world::{Binaries, Disk, Vbd, World, wait_until},
};
use xen_platform::sim;

pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// What the daemon's configuration says of the cluster.
pub(crate) fn section(cluster: &Cluster) -> String {
    format!("[ceph]\nconf = {:?}\ntimeout-s = 5\n", cluster.conf())
}

/// A world whose daemon serves images of the cluster.
pub(crate) fn world(cluster: &Cluster) -> World {
    let mut world = World::start(Binaries::build().unwrap()).unwrap();
    let config = world.dir().join("blkback.toml");
    let text = format!("[daemon]\nresize-check-s = 1\nworkers = 2\nshutdown-s = 1\n{}", section(cluster));
    std::fs::write(&config, text).unwrap();
    start(&mut world);
    world
}

/// Starts its daemon, again too.
pub(crate) fn start(world: &mut World) {
    let config = world.dir().join("blkback.toml").display().to_string();
    world.start_backend(&["--config".to_owned(), config]).unwrap();
}

/// A guest with this disk, connected.
pub(crate) fn connected(world: &mut World, disk: &str) -> (Guest<sim::World>, Connection<sim::World>) {
    let vbd = world.guest_with_disk(&Disk::new(disk)).unwrap();
    let mut guest = Guest::of(world.dir(), vbd, Abi::X86_64).unwrap();
    let connection = guest.connect(&Wish::default()).unwrap();
    (guest, connection)
}

/// Why a guest does not get this disk.
pub(crate) fn refusal(world: &mut World, disk: &str) -> String {
    let guest = world.toolstack().create_guest(64).unwrap();
    let disk = Disk::new(disk);
    let vbd = world.toolstack().make_nodes(guest, &disk).unwrap();
    world.toolstack().run_script(&vbd, &disk).unwrap();
    let error = format!("{}/error", vbd.backend);
    let said = wait_until("a refusal", PATIENCE, || world.toolstack().read(&error)).unwrap();
    world.toolstack().force_detach(&vbd).unwrap();
    said
}

/// `fio` on a disk of the world, by its export.
pub(crate) fn fio(world: &World, vbd: &Vbd, arguments: &[&str]) -> Result<()> {
    let (_export, socket) = world.serve_nbd(vbd, &[])?;
    let mut command = Command::new("fio");
    command
        .args(["--name=load", "--ioengine=nbd", "--randrepeat=0", "--eta=never"])
        .arg(format!("--uri=nbd+unix:///?socket={}", socket.display()))
        .args(arguments)
        .current_dir(world.dir());
    let output = command.output()?;
    let said = String::from_utf8_lossy(&output.stdout);
    anyhow::ensure!(output.status.success() && !said.contains("verify:"), "{said}");
    Ok(())
}

/// Opens an image in this process.
pub(crate) fn open(cluster: &Cluster, text: &str, options: &ImageOptions) -> Result<Image, ImageError> {
    let ceph = Ceph { conf: cluster.conf(), timeout_s: 5, ..Ceph::default() };
    let credentials = vec![cluster.dir().to_owned()];
    Clusters { ceph: Some(ceph), credentials, records: None }.open(&Name::parse(text).unwrap(), options)
}

/// Images that were let go here are closed.
pub(crate) fn closed() {
    wait_until_closed(PATIENCE);
}

/// Kills the OSD, and starts another on what it left, after `away`.
pub(crate) fn lose_osd(cluster: &mut Cluster, away: Duration) {
    cluster.stop_osd(Signal::SIGKILL).unwrap();
    std::thread::sleep(away);
    cluster.start_osd().unwrap();
}

/// Images of the cluster's pool.
pub(crate) struct Images<'a>(pub(crate) &'a Cluster);

impl Disks for Images<'_> {
    fn config(&self) -> String {
        section(self.0)
    }

    fn make(&self, _: &Path, name: &str, bytes: u64) -> Result<String> {
        self.0.rbd(&["create", "--size", &format!("{bytes}B"), &format!("rbd/{name}")])?;
        Ok(format!("rbd:rbd/{name}"))
    }

    fn contents(&self, folder: &Path, name: &str) -> Result<Vec<u8>> {
        let to = folder.join(format!("{name}.export"));
        self.0.rbd(&["export", &format!("rbd/{name}"), &to.display().to_string()])?;
        Ok(std::fs::read(to)?)
    }
}
