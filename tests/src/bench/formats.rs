//! Images of formats of their own, against QEMU's daemon on a copy of the same image, in one run.

use std::{fmt::Write as _, path::Path, process::Command};

use anyhow::{Context as _, Result, ensure};
use serde::Serialize;

use super::{
    job::{Job, Sample, Span},
    pair::measure,
    qemu::{self, Daemon, Wait},
    table::median,
};
use crate::world::{Binaries, Disk, Vbd, World, tuning::Tuning};

/// What is measured.
pub const JOBS: [Job; 4] = [
    Job::random(4096, 32),
    Job::random(4096, 32).writing(),
    Job::sequential(1 << 20, 8),
    Job::sequential(1 << 20, 8).writing(),
];
/// What the pair promises of QEMU's operations per second.
pub const BOUND: f64 = 0.8;

/// One job, on a qcow2 image whose clusters are all there.
#[derive(Debug, Serialize)]
pub struct Line {
    job: Job,
    pair: Sample,
    qemu: Sample,
    /// IOPS of the pair over QEMU's.
    ratio: f64,
}

impl Line {
    /// True when the promise is kept.
    pub fn is_met(&self) -> bool {
        self.ratio >= BOUND
    }
}

/// Both contenders, each with an image of its own.
#[derive(Debug)]
pub struct Formats {
    world: World,
    vbd: Vbd,
    tuning: Tuning,
    qemu: Daemon,
    samples: Vec<(Job, Vec<[Sample; 2]>)>,
}

impl Formats {
    /// Makes two qcow2 images of what is in the raw image `full`, in `folder`, and serves them.
    pub fn start(binaries: Binaries, full: &Path, folder: &Path) -> Result<Self> {
        let images = [folder.join("pair.qcow2"), folder.join("qemu.qcow2")];
        for image in &images {
            let mut command = Command::new("qemu-img");
            command.args(["convert", "-f", "raw", "-O", "qcow2", "-S", "0"]).arg(full).arg(image);
            let output = command.output().context("qemu-img")?;
            ensure!(output.status.success(), "qemu-img convert: {}", String::from_utf8_lossy(&output.stderr));
        }
        let [of_pair, of_qemu] = &images;
        let tuning = Tuning { strategy: Some("persistent".into()), ..Tuning::default() };
        let mut world = World::start(binaries)?;
        world.start_backend(&tuning.backend())?;
        let vbd = world.guest_with_disk(&Disk::new(format!("qcow2:{}", of_pair.display())))?;
        let qemu = Daemon::start(qemu::Disk::Format("qcow2", of_qemu))?;
        let samples = JOBS.map(|job| (job, Vec::new())).into();
        Ok(Self { world, vbd, tuning, qemu, samples })
    }

    /// Runs all jobs once.
    pub fn round(&mut self, span: Span) -> Result<()> {
        for (job, samples) in &mut self.samples {
            let pair = measure(&mut self.world, &self.vbd, &self.tuning, job, span)?;
            samples.push([pair, self.qemu.run(job, Wait::Event, span)?]);
        }
        Ok(())
    }

    /// Medians of all rounds.
    pub fn lines(&self) -> Vec<Line> {
        let lines = self.samples.iter().map(|(job, samples)| {
            let of = |who: usize| median(&samples.iter().map(|both| both[who]).collect::<Vec<_>>());
            let (pair, qemu) = (of(0), of(1));
            Line { job: *job, pair, qemu, ratio: pair.iops / qemu.iops }
        });
        lines.collect()
    }

    /// Stops the servers.
    pub fn stop(mut self) -> Result<()> {
        self.world.toolstack().detach(&self.vbd)?;
        self.world.stop()
    }
}

/// The lines as a table.
pub fn text(lines: &[Line]) -> String {
    let mut text = format!(
        "{:<36}{:>12}{:>12}{:>8}{:>11}{:>11}\n",
        "qcow2", "pair IOPS", "qemu IOPS", "ratio", "p50 us", "p99 us"
    );
    for Line { job, pair, qemu, ratio } in lines {
        let (name, verdict) = (job.name(), if *ratio >= BOUND { "pass" } else { "MISS" });
        let _ = writeln!(
            text,
            "{name:<36}{:>12.0}{:>12.0}{ratio:>8.2}{:>11.1}{:>11.1}  {verdict}",
            pair.iops, qemu.iops, pair.p50_us, pair.p99_us
        );
    }
    text
}
