//! Guests whose disks are served over NBD: what `up` and `run` share.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use tests::world::{Binaries, Disk, Process, Vbd, World, tuning::Tuning};

/// A guest with one disk, served by `blkfront nbd`.
#[derive(Debug)]
pub(crate) struct Guest {
    /// The disk.
    pub(crate) vbd: Vbd,
    /// The export's socket.
    pub(crate) socket: PathBuf,
    /// What the disk is made of.
    pub(crate) target: String,
    process: Process,
}

impl Guest {
    /// The export's address.
    pub(crate) fn uri(&self) -> String {
        format!("nbd+unix:///?socket={}", self.socket.display())
    }
}

/// A world with a guest for each target: the daemon and one `blkfront nbd` a guest.
#[derive(Debug)]
pub(crate) struct Guests {
    // Dropped first: an export closes its disk while the world is still there.
    guests: Vec<Guest>,
    world: World,
}

impl Guests {
    /// Starts all of them.
    ///
    /// Each program writes a trace into the folder `traces`, if there is one.
    pub(crate) fn start(
        world: World,
        targets: &[String],
        tuning: &Tuning,
        traces: Option<&Path>,
    ) -> Result<Self> {
        let mut all = Self { guests: Vec::new(), world };
        let trace = |name: String| traces.map(|folder| format!("--trace={}/{name}.json", folder.display()));
        let arguments = tuning.backend().into_iter().chain(trace("backend".into()));
        all.world.start_backend(&arguments.collect::<Vec<_>>())?;
        for target in targets {
            let vbd = all.world.guest_with_disk(&Disk::new(target))?;
            let arguments = tuning.frontend().into_iter().chain(trace(format!("guest-{}", vbd.guest)));
            let (process, socket) = all.world.serve_nbd(&vbd, &arguments.collect::<Vec<_>>())?;
            all.guests.push(Guest { vbd, socket, target: target.clone(), process });
        }
        Ok(all)
    }

    /// The guests, in the order of their targets.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Guest> {
        self.guests.iter()
    }

    /// The world they live in.
    pub(crate) fn world(&self) -> &World {
        &self.world
    }

    /// Errors when one of the processes has ended.
    pub(crate) fn check_alive(&mut self) -> Result<()> {
        self.world.backend()?;
        self.guests.iter_mut().try_for_each(|guest| guest.process.check_alive())
    }

    /// Stops exports, disks and the daemon, in this order.
    pub(crate) fn stop(mut self) -> Result<()> {
        for mut guest in self.guests {
            guest.process.stop()?;
            self.world.toolstack().detach(&guest.vbd)?;
        }
        self.world.stop()
    }
}

/// A new world with our two programs, built when needed.
pub(crate) fn new_world() -> Result<World> {
    World::start(Binaries::build()?)
}

/// What the backend is told to serve: an image's absolute path, or a storage's name as it stands (`null:1G`).
pub(crate) fn target(image: &Path) -> Result<String> {
    let text = image.to_str().context("the image's path is not UTF-8")?;
    if text.starts_with("null:") || text.starts_with("memory:") {
        return Ok(text.to_owned());
    }
    let path = image.canonicalize().with_context(|| format!("cannot open {text}"))?;
    Ok(path.to_str().context("the image's path is not UTF-8")?.to_owned())
}
