//! What is tested: our daemon, in a thread of this process or as the real child process.

use std::{path::Path, sync::OnceLock};

use anyhow::{Context as _, Result, bail, ensure};
use blkback::config::{Config, Strategy};
use blkif_proto::Abi;
use xen_platform::sim;

use super::{Connection, Guest, Image, Wish};
use crate::world::{Binaries, Disk, GUEST_PAGES, Vbd, World};

/// Where the other end runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Processes {
    /// In a thread of the test's process.
    One,
    /// In a process of its own.
    Two,
}

/// A fresh world, with a daemon in it as soon as there is a disk to serve.
pub struct Rig {
    /// The simulated Xen with the daemon in it.
    pub world: World,
    /// The layout that guests speak.
    pub abi: Abi,
    processes: Processes,
    strategy: Strategy,
    config: Option<String>,
    images: u32,
}

/// Size of the images that [`Rig::image`] makes, in bytes: enough for the largest request there is.
pub const IMAGE_BYTES: u64 = 16 << 20;

/// All that the daemon is able to do. When it ends it waits for nobody, so that no clause's end takes long.
pub const CONFIG: &str = r#"
[daemon]
kinds = ["vbd", "qdisk", "vbd3"]
workers = 2
shutdown-s = 0
[offer]
ring-pages = 32
queues = 4
indirect-segments = 4096
persistent = true
"#;

impl Rig {
    /// A world without a daemon.
    pub fn new(processes: Processes, strategy: Strategy, abi: Abi) -> Result<Self> {
        let binaries = match processes {
            Processes::One => Binaries::default(),
            Processes::Two => binaries()?,
        };
        let world = World::start(binaries)?;
        Ok(Self { world, abi, processes, strategy, config: None, images: 0 })
    }

    /// Starts the daemon with this configuration (TOML) instead of [`CONFIG`].
    pub fn configure(&mut self, config: &str) -> Result<()> {
        self.config = Some(config.to_owned());
        self.start()
    }

    /// Starts the daemon, for the first time or again, with the configuration it had.
    pub fn start(&mut self) -> Result<()> {
        ensure!(!self.world.has_backend(), "the daemon runs");
        let text = self.config.get_or_insert_with(|| {
            // Through the page cache the disk works on the kept pages, as with `direct`.
            let direct_io = self.strategy == Strategy::Persistent;
            format!("{CONFIG}[disk]\ndirect-io = {direct_io}\n")
        });
        let path = self.world.dir().join("blkback.toml");
        match self.processes {
            Processes::One => {
                let mut config = Config::parse(text, &path)?;
                config.daemon.strategy.get_or_insert(self.strategy);
                self.world.start_backend_thread(config)
            }
            Processes::Two => {
                std::fs::write(&path, text)?;
                let strategy = strategy_word(self.strategy);
                let arguments = ["--config", &path.display().to_string(), "--strategy", strategy];
                self.world.start_backend(&arguments.map(str::to_owned))
            }
        }
    }

    /// A fresh sparse image.
    pub fn image(&mut self) -> Result<Image> {
        self.images += 1;
        Image::create(self.world.dir().join(format!("disk-{}.img", self.images)), IMAGE_BYTES)
    }

    /// A new guest with a writable disk on a fresh image.
    pub fn guest(&mut self) -> Result<Guest<sim::World>> {
        let image = self.image()?;
        self.guest_with(&image.disk())
    }

    /// A new guest with this disk.
    pub fn guest_with(&mut self, disk: &Disk) -> Result<Guest<sim::World>> {
        if !self.world.has_backend() {
            self.start()?;
        }
        let vbd = self.world.guest_with_disk(disk)?;
        self.guest_of(vbd)
    }

    /// A new guest with this disk's nodes, of which nobody has taken notice yet.
    pub fn guest_unattached(&mut self, disk: &Disk) -> Result<Guest<sim::World>> {
        let toolstack = self.world.toolstack();
        let guest = toolstack.create_guest(GUEST_PAGES)?;
        let vbd = toolstack.make_nodes(guest, disk)?;
        self.guest_of(vbd)
    }

    /// The guest's side of an attached disk.
    pub fn guest_of(&mut self, vbd: Vbd) -> Result<Guest<sim::World>> {
        Guest::of(self.world.dir(), vbd, self.abi)
    }

    /// Another guest that uses its disk.
    pub fn bystander(&mut self) -> Result<Bystander> {
        let mut guest = self.guest()?;
        let connection = guest.connect(&Wish::default())?;
        Ok(Bystander { guest, connection })
    }

    /// For messages: how the daemon has ended, if it has, and the end of its log.
    pub fn last_words(&mut self) -> String {
        let ended = self.world.check_backend().err().map_or(String::new(), |error| format!("{error:#}"));
        ended + &self.world.backend_words()
    }

    /// Ends the world. Errors: the daemon was not there any more, did not stop cleanly, or had panicked somewhere on its way.
    pub fn finish(mut self) -> Result<()> {
        if !self.world.has_backend() {
            return Ok(());
        }
        self.world.check_backend()?;
        self.world.stop_backend()?;
        check_log(&self.world.dir().join("blkback.log"))
    }
}

/// A guest that must not notice what others do to the daemon.
pub struct Bystander {
    guest: Guest<sim::World>,
    connection: Connection<sim::World>,
}

impl Bystander {
    /// Errors unless its disk works as ever.
    pub fn check(&mut self) -> Result<()> {
        let undisturbed = || "another guest's disk is disturbed";
        self.guest.wait_backend(blkif_proto::xenbus::State::Connected).with_context(undisturbed)?;
        self.connection.works().with_context(undisturbed)
    }
}

/// A panic in one device's task leaves no other trace.
fn check_log(log: &Path) -> Result<()> {
    let Ok(text) = std::fs::read(log) else { return Ok(()) };
    let text = String::from_utf8_lossy(&text);
    match text.lines().find(|line| line.contains("panicked at")) {
        Some(line) => bail!("the daemon panicked: {line}"),
        None => Ok(()),
    }
}

fn strategy_word(strategy: Strategy) -> &'static str {
    match strategy {
        Strategy::Copy => "copy",
        Strategy::Persistent => "persistent",
        Strategy::Direct => "direct",
    }
}

/// Built once, however many worlds there are.
fn binaries() -> Result<Binaries> {
    static BUILT: OnceLock<Result<Binaries, String>> = OnceLock::new();
    let built = BUILT.get_or_init(|| Binaries::build().map_err(|error| format!("{error:#}")));
    built.clone().map_err(anyhow::Error::msg)
}
