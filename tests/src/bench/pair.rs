//! Our pair: `blkback` and `blkfront bench`, two processes in a simulated Xen.

use std::{
    fs,
    path::Path,
    process::{Command, Output, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use serde::Deserialize;

use super::{
    job::{Job, Pattern, Sample, Span},
    meter::cpu_nanos,
    table::{Contender, Storage},
};
use crate::world::{Binaries, Disk, Vbd, World, tuning::Tuning};

/// Metrics, and limits that nobody reaches.
const WATCHED: &str = "[metrics]\nlisten = \"127.0.0.1:0\"\n[disk]\ngroup = \"all\"\nlimit = { iops = 1000000000, bytes = \"1T\" }\n\
     [groups.all]\nread-iops = 1000000000\nread-bytes = \"1T\"\n";

/// A daemon with two disks: an image, and nothing.
#[derive(Debug)]
pub struct Pair {
    world: World,
    file: Vbd,
    null: Vbd,
    tuning: Tuning,
}

/// The part of `blkfront bench --json` that is of use here.
#[derive(Debug, Deserialize)]
struct Report {
    depth: u32,
    read: Option<Direction>,
    write: Option<Direction>,
    total: Rate,
    cpu: Cpu,
}

#[derive(Debug, Deserialize)]
struct Rate {
    iops: f64,
    bytes_per_second: f64,
}

#[derive(Debug, Deserialize)]
struct Direction {
    latency_ns: Latency,
}

#[derive(Debug, Deserialize)]
struct Latency {
    p50: f64,
    p99: f64,
}

#[derive(Debug, Deserialize)]
struct Cpu {
    us_per_io: f64,
}

impl Pair {
    /// Starts the world, the daemon and a guest with both disks. Where nothing else is asked for, data takes the way that it takes on
    /// real Xen, to pages that stay mapped.
    pub fn start(binaries: Binaries, image: &Path, null_bytes: u64, mut tuning: Tuning) -> Result<Self> {
        if !tuning.no_persistent {
            tuning.strategy.get_or_insert_with(|| "persistent".into());
        }
        let mut world = World::start(binaries)?;
        let mut arguments = tuning.backend();
        if tuning.watched {
            let config = world.dir().join("watched.toml");
            fs::write(&config, WATCHED)?;
            arguments.extend(["--config".into(), config.display().to_string()]);
        }
        world.start_backend(&arguments)?;
        let image = image.to_str().context("the image's path is not UTF-8")?;
        let file = world.guest_with_disk(&Disk { writable: false, ..Disk::new(image) })?;
        let null = world.guest_with_disk(&Disk::new(format!("null:{null_bytes}")))?;
        Ok(Self { world, file, null, tuning })
    }

    /// Runs `job` on a fresh connection; `who` says how large requests are to be carried.
    pub fn run(&mut self, job: &Job, storage: Storage, who: Contender, span: Span) -> Result<Sample> {
        let mut tuning = self.tuning.clone();
        match who {
            Contender::PairDirect => tuning.segments = Some("direct".into()),
            Contender::PairIndirect => tuning.segments = Some("indirect".into()),
            Contender::PairBlocks => tuning.segments = Some("blocks".into()),
            Contender::Pair
            | Contender::PairUnlogged
            | Contender::PairWatched
            | Contender::Raw
            | Contender::Qemu
            | Contender::QemuPolled => {}
        }
        let vbd = match storage {
            Storage::File => &self.file,
            Storage::Null => &self.null,
        };
        measure(&mut self.world, vbd, &tuning, job, span)
    }

    /// Stops everything; errors when the daemon does not stop cleanly.
    pub fn stop(mut self) -> Result<()> {
        for vbd in [self.file, self.null] {
            self.world.toolstack().detach(&vbd)?;
        }
        self.world.stop()
    }
}

/// Runs `job` on a fresh connection to a disk of a world with a daemon.
pub(super) fn measure(
    world: &mut World,
    vbd: &Vbd,
    tuning: &Tuning,
    job: &Job,
    span: Span,
) -> Result<Sample> {
    let mut command = command(world, vbd, tuning, job, span);
    let backend = world.serving()?;
    let before = cpu_nanos(&[backend])?;
    let output = command.output().context("cannot run blkfront bench")?;
    let used = Duration::from_nanos(cpu_nanos(&[backend])?.saturating_sub(before));
    let sample = sample(&output, job)?;
    // The daemon's time covers the warm-up too, at the same rate of reads.
    let reads = sample.iops * (span.warm_up + span.measure).as_secs_f64();
    Ok(Sample { cpu_us: sample.cpu_us + used.as_secs_f64() * 1e6 / reads.max(1.0), ..sample })
}

/// What runs `job` on a fresh connection.
pub(super) fn command(world: &World, vbd: &Vbd, tuning: &Tuning, job: &Job, span: Span) -> Command {
    let mode = match (job.pattern, job.writes) {
        (Pattern::Random, false) => "randread",
        (Pattern::Sequential, false) => "read",
        (Pattern::Random, true) => "randwrite",
        (Pattern::Sequential, true) => "write",
    };
    let mut command = world.blkfront(vbd);
    command
        .args(tuning.frontend())
        .args(["bench", "--json", "--rw", mode])
        .args(["--bs", &job.block.to_string(), "--depth", &job.depth.to_string()])
        .args(["--warmup", &span.warm_up.as_secs_f64().to_string()])
        .args(["--runtime", &span.measure.as_secs_f64().to_string()])
        .args(job.writes.then_some("--overwrite"))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// What came of it; the CPU time is that of the frontend alone.
pub(super) fn sample(output: &Output, job: &Job) -> Result<Sample> {
    if !output.status.success() {
        bail!("blkfront bench failed: {}", String::from_utf8_lossy(&output.stderr));
    }
    let report: Report = serde_json::from_slice(&output.stdout).context("blkfront bench --json")?;
    ensure!(report.depth == job.depth, "the ring holds only {} of {} reads", report.depth, job.depth);
    let latency = report.read.or(report.write).context("nothing was done")?.latency_ns;
    Ok(Sample {
        iops: report.total.iops,
        bytes_per_second: report.total.bytes_per_second,
        p50_us: latency.p50 / 1e3,
        p99_us: latency.p99 / 1e3,
        cpu_us: report.cpu.us_per_io,
    })
}
