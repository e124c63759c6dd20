//! What the daemon costs when nothing happens: memory and threads for many connected disks.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;

use tests::world::{Binaries, Disk, Process, World};

/// Disks in addition to the first one.
const MORE: u64 = 63;

#[test]
fn an_idle_disk_costs_no_thread_and_less_than_a_mebibyte() {
    for strategy in ["direct", "copy"] {
        let mut world = World::start(Binaries::build().unwrap()).unwrap();
        world.start_backend(&["--strategy".into(), strategy.into()]).unwrap();
        let mut exports = vec![connect(&mut world)];
        let before = Footprint::of(world.serving().unwrap());
        exports.extend((0..MORE).map(|_| connect(&mut world)));
        let after = Footprint::of(world.serving().unwrap());
        println!("{strategy}: {before:?} with 1 disk, {after:?} with {}", MORE + 1);
        assert_eq!(after.threads, before.threads, "{strategy}");
        let each = after.private_kib.saturating_sub(before.private_kib) / MORE;
        assert!(each <= 1024, "{strategy}: {each} KiB for each disk");
        exports.iter_mut().for_each(|export| export.stop().unwrap());
        world.stop().unwrap();
    }
}

/// A guest whose disk stays connected as long as its NBD export lives.
fn connect(world: &mut World) -> Process {
    let vbd = world.guest_with_disk(&Disk::new("null:64M")).unwrap();
    world.serve_nbd(&vbd, &[]).unwrap().0
}

#[derive(Debug)]
struct Footprint {
    /// Memory that is the process's own: not the guests' rings, not its program file.
    private_kib: u64,
    threads: u64,
}

impl Footprint {
    fn of(process: u32) -> Self {
        let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap();
        let number = |key: &str| -> u64 {
            let line = status.lines().find(|line| line.starts_with(key)).unwrap();
            line.split_whitespace().nth(1).unwrap().parse().unwrap()
        };
        Self { private_kib: number("RssAnon:"), threads: number("Threads:") }
    }
}
