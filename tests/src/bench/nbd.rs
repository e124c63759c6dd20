//! An export of `nbdkit`: the pair against `fio` with libnbd, from the same server, in one run.

use std::process::Command;

use anyhow::{Result, ensure};

use super::{
    fio::{self, Line},
    job::{Job, Sample, Span},
    pair::measure,
};
use crate::{
    nbd::Server,
    world::{Binaries, Disk, World, tuning::Tuning},
};

/// What is measured.
pub const JOBS: [Job; 4] = [
    Job::random(4096, 32),
    Job::random(4096, 32).writing(),
    Job::sequential(1 << 20, 8),
    Job::sequential(1 << 20, 8).writing(),
];

/// A server with a disk in its memory, and a daemon.
#[derive(Debug)]
pub struct Nbd {
    // In the order in which they must end.
    world: World,
    server: Server,
    tuning: Tuning,
    samples: Vec<(Job, Vec<[Sample; 2]>)>,
}

impl Nbd {
    /// Starts them, the daemon with this data strategy, and fills the disk, of so many mebibytes.
    pub fn start(binaries: Binaries, mebibytes: u64, strategy: &str) -> Result<Self> {
        let mut world = World::start(binaries)?;
        let server = Server::nbdkit(world.dir(), "bench", &["memory", &format!("{mebibytes}M")])?;
        let config = world.dir().join("blkback.toml");
        std::fs::write(&config, "[sandbox]\nimages = [\"nbd:\"]\n")?;
        let tuning = Tuning { strategy: Some(strategy.to_owned()), ..Tuning::default() };
        let config = ["--config".to_owned(), config.display().to_string()];
        world.start_backend(&[&config[..], &tuning.backend()].concat())?;
        let samples = JOBS.map(|job| (job, Vec::new())).into();
        let nbd = Self { world, server, tuning, samples };
        let fill = ["--name=fill", "--rw=write", "--bs=1m", "--iodepth=4", "--eta=never"];
        let output = nbd.fio().args(fill).output()?;
        ensure!(output.status.success(), "fio: {}", String::from_utf8_lossy(&output.stderr));
        Ok(nbd)
    }

    /// Runs all jobs once, by the pair and by `fio` in turn.
    pub fn round(&mut self, span: Span) -> Result<()> {
        let vbd = self.world.guest_with_disk(&Disk::new(self.server.uri("")))?;
        for at in 0..self.samples.len() {
            let job = self.samples[at].0;
            let pair = measure(&mut self.world, &vbd, &self.tuning, &job, span)?;
            let fio = fio::run(self.fio(), &job, span)?;
            self.samples[at].1.push([pair, fio]);
        }
        self.world.toolstack().detach(&vbd)
    }

    /// `fio`, as a client of the server.
    fn fio(&self) -> Command {
        let mut fio = Command::new("fio");
        fio.args(["--ioengine=nbd", &format!("--uri={}", self.server.uri(""))]);
        // Its statistics would lie in the folder that we are in.
        fio.current_dir(self.world.dir());
        fio
    }

    /// Medians of all rounds.
    pub fn lines(&self) -> Vec<Line> {
        self.samples.iter().map(|(job, samples)| Line::of(*job, samples)).collect()
    }

    /// Stops the daemon and the server.
    pub fn stop(self) -> Result<()> {
        self.world.stop()
    }
}
