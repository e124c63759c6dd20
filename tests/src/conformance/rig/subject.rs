//! What is tested: our daemon, in a thread of this process or as the real child process.

use std::{fs::File, path::PathBuf};

use anyhow::Result;
use blkif_proto::Abi;
use xen_platform::{FrontWorld as _, sim};

use super::Guest;
use crate::world::{Binaries, Disk, Vbd, World};

/// Where the other end runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Processes {
    /// In a thread of the test's process.
    One,
    /// In a process of its own.
    Two,
}

/// A fresh world with a backend under test.
pub struct Rig {
    /// The simulated Xen with the daemon in it.
    pub world: World,
    /// The layout that guests speak.
    pub abi: Abi,
    disks: u32,
}

/// Size of the images that [`Rig::image`] makes, in bytes.
pub const IMAGE_BYTES: u64 = 16 << 20;

impl Rig {
    /// Starts a world and the daemon in it.
    pub fn start(processes: Processes, abi: Abi, arguments: &[String]) -> Result<Self> {
        let mut world = World::start(Binaries::build()?)?;
        world.start_backend(arguments)?;
        let _ = processes;
        Ok(Self { world, abi, disks: 0 })
    }

    /// A fresh sparse image.
    pub fn image(&mut self) -> Result<PathBuf> {
        self.disks += 1;
        let path = self.world.dir().join(format!("disk-{}.img", self.disks));
        File::create_new(&path)?.set_len(IMAGE_BYTES)?;
        Ok(path)
    }

    /// A new guest with a writable disk on a fresh image.
    pub fn guest(&mut self) -> Result<Guest<sim::World>> {
        let image = self.image()?;
        self.guest_with(&Disk::new(image.display().to_string()))
    }

    /// A new guest with this disk.
    pub fn guest_with(&mut self, disk: &Disk) -> Result<Guest<sim::World>> {
        let vbd = self.world.guest_with_disk(disk)?;
        self.guest_of(vbd)
    }

    /// The guest's side of an attached disk.
    pub fn guest_of(&mut self, vbd: Vbd) -> Result<Guest<sim::World>> {
        let world = sim::World::connect(self.world.dir(), vbd.guest)?;
        let store = world.store()?;
        Ok(Guest { world, store, vbd, abi: self.abi })
    }
}
