//! An image of a Ceph cluster: the pair against `fio` with librbd, on the same image, without a cache, in one run.

use std::process::Command;

use anyhow::{Result, ensure};

use super::{
    fio::{self, Line},
    job::{Job, Sample, Span},
    pair::measure,
};
use crate::{
    ceph::{Auth, Cluster},
    world::{Binaries, Disk, World, tuning::Tuning},
};

/// What is measured.
pub const JOBS: [Job; 4] = [
    Job::random(4096, 16),
    Job::random(4096, 16).writing(),
    Job::sequential(1 << 20, 8),
    Job::sequential(1 << 20, 8).writing(),
];
/// A cluster with an image, and a daemon.
#[derive(Debug)]
pub struct Rbd {
    // In the order in which they must end.
    world: World,
    cluster: Cluster,
    tuning: Tuning,
    samples: Vec<(Job, Vec<[Sample; 2]>)>,
}

impl Rbd {
    /// Starts them, and fills the image, of so many mebibytes.
    pub fn start(binaries: Binaries, mebibytes: u64) -> Result<Self> {
        let cluster = Cluster::start(Auth::None)?;
        cluster.rbd(&["create", "--size", &mebibytes.to_string(), "rbd/bench"])?;
        let mut world = World::start(binaries)?;
        let config = world.dir().join("blkback.toml");
        std::fs::write(&config, format!("[ceph]\nconf = {:?}\n", cluster.conf()))?;
        let tuning = Tuning { strategy: Some("persistent".into()), ..Tuning::default() };
        let config = ["--config".to_owned(), config.display().to_string()];
        world.start_backend(&[&config[..], &tuning.backend()].concat())?;
        let samples = JOBS.map(|job| (job, Vec::new())).into();
        let rbd = Self { world, cluster, tuning, samples };
        let fill = ["--name=fill", "--rw=write", "--bs=4m", "--iodepth=4", "--eta=never"];
        let output = rbd.fio().args(fill).output()?;
        ensure!(output.status.success(), "fio: {}", String::from_utf8_lossy(&output.stderr));
        Ok(rbd)
    }

    /// Runs all jobs once: those of the pair, and when it has let the image go, those of `fio`.
    pub fn round(&mut self, span: Span) -> Result<()> {
        let vbd = self.world.guest_with_disk(&Disk::new("rbd:rbd/bench"))?;
        let mut pair = Vec::new();
        for (job, _) in &self.samples {
            pair.push(measure(&mut self.world, &vbd, &self.tuning, job, span)?);
        }
        self.world.toolstack().detach(&vbd)?;
        for (at, pair) in pair.into_iter().enumerate() {
            let fio = fio::run(self.fio(), &self.samples[at].0, span)?;
            self.samples[at].1.push([pair, fio]);
        }
        Ok(())
    }

    /// `fio`, as a client of the cluster, whose configuration has no cache either.
    fn fio(&self) -> Command {
        let mut fio = self.cluster.programs().command("fio");
        let image = ["--ioengine=rbd", "--clientname=admin", "--pool=rbd", "--rbdname=bench"];
        fio.env("CEPH_CONF", self.cluster.conf()).args(image);
        fio
    }

    /// Medians of all rounds.
    pub fn lines(&self) -> Vec<Line> {
        self.samples.iter().map(|(job, samples)| Line::of(*job, samples)).collect()
    }

    /// Stops the daemon and the cluster.
    pub fn stop(self) -> Result<()> {
        self.world.stop()
    }
}
