//! `bench`: how fast the disk is, through the ring.
//!
//! One thread drives each queue. A turn submits what is due, publishes once, and takes every completion that is there; the
//! clock is read once a turn, nothing is allocated, and buffers go round with the I/Os.

mod load;
mod pattern;
mod report;
mod stats;
#[cfg(test)]
mod tests;

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{anyhow, bail};
use clap::ValueEnum;

use self::{
    load::Load,
    pattern::Pattern,
    report::{CpuTime, Report},
    stats::Stats,
};
use crate::{
    connect::{Disk, World, look_after},
    exit::Usage,
    say, size,
};

/// Arguments of `bench`.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// What to do
    #[arg(long, value_enum, default_value_t = Mode::Randread)]
    rw: Mode,
    /// Percentage of reads in mixed modes
    #[arg(long, default_value_t = 70, value_name = "PERCENT", value_parser = clap::value_parser!(u8).range(0..=100))]
    rwmix: u8,
    /// Bytes of each I/O
    #[arg(long, short = 'b', default_value = "4k", value_name = "SIZE", value_parser = size::parse_u32)]
    bs: u32,
    /// I/Os in flight on each queue
    #[arg(long, short = 'd', default_value_t = 32, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    depth: u16,
    /// How long to measure, in seconds
    #[arg(long, short = 't', default_value_t = 10.0, value_name = "SECONDS", value_parser = seconds)]
    runtime: f64,
    /// How long to run before measuring, in seconds
    #[arg(long, default_value_t = 1.0, value_name = "SECONDS", value_parser = seconds)]
    warmup: f64,
    /// Stop after this many measured I/Os if the time is not up before
    #[arg(long, value_name = "N")]
    count: Option<u64>,
    /// Use only the first bytes of the disk [default: all]
    #[arg(long, value_name = "SIZE", value_parser = size::parse)]
    span: Option<u64>,
    /// Seed of the random numbers
    #[arg(long, default_value_t = 1, value_name = "N")]
    seed: u64,
    /// Allow modes that write: they destroy what is on the disk
    #[arg(long)]
    overwrite: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Order and direction of the I/Os; the names are those of fio.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Mode {
    /// Reads, one after the other
    Read,
    /// Writes, one after the other
    Write,
    /// Reads and writes, one after the other
    Rw,
    /// Reads at random places
    Randread,
    /// Writes at random places
    Randwrite,
    /// Reads and writes at random places
    Randrw,
}

impl Mode {
    fn random(self) -> bool {
        matches!(self, Mode::Randread | Mode::Randwrite | Mode::Randrw)
    }

    /// Percentage of reads.
    fn reads(self, mix: u8) -> u8 {
        match self {
            Mode::Read | Mode::Randread => 100,
            Mode::Write | Mode::Randwrite => 0,
            Mode::Rw | Mode::Randrw => mix,
        }
    }
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.0..=1e6).contains(&seconds) => Ok(seconds),
        _ => Err("must be a number of seconds".into()),
    }
}

/// Runs the benchmark and prints its report. Errors: [`Usage`] for a load that the disk cannot take, and the first I/O error.
pub(crate) fn run<W: World>(args: &Args, disk: &mut Disk<W>) -> anyhow::Result<()> {
    let blocks = check(args, disk)?;
    let (warmup, runtime) = (Duration::from_secs_f64(args.warmup), Duration::from_secs_f64(args.runtime));
    let queues = disk.queues.len();
    let count = args.count.map(|count| count.div_ceil(queues as u64));
    let Disk { device, queues, stop, poll } = disk;

    let mut loads = Vec::with_capacity(queues.len());
    let threads = queues.len() as u64;
    for (queue, index) in queues.iter_mut().zip(0..) {
        let pattern =
            Pattern::new(args.rw.random(), args.rw.reads(args.rwmix), blocks, index, threads, args.seed);
        loads.push(Load::new(queue, pattern, args.bs, args.depth, *poll)?);
    }
    let depth = loads.iter().map(Load::depth).min().unwrap_or_default();
    let ended = AtomicBool::new(false);
    let begin = Instant::now() + warmup;
    let limits = load::Limits { begin, end: begin + runtime, count, ended: &ended };
    let (results, cpu) = thread::scope(|scope| {
        let threads: Vec<_> = loads.into_iter().map(|load| scope.spawn(move || load.run(limits))).collect();
        let supervised = supervise(
            &limits,
            || {
                stop.check()?;
                look_after(device)
            },
            || threads.iter().all(|thread| thread.is_finished()),
        );
        ended.store(true, Ordering::Relaxed);
        let results: Vec<_> = threads
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|_| Err(anyhow!("a benchmark thread failed"))))
            .collect();
        (results, supervised)
    });
    let cpu = cpu?;
    let results = results.into_iter().collect::<anyhow::Result<Vec<Stats>>>()?;
    let report = Report::new(args, depth, disk.negotiated().into(), &results, cpu)?;
    say::line(if args.json { serde_json::to_string_pretty(&report)? } else { report.text() })
}

/// The number of blocks to work on, if the load fits the disk.
fn check<W: World>(args: &Args, disk: &Disk<W>) -> anyhow::Result<u64> {
    let capabilities = disk.capabilities();
    let reads = args.rw.reads(args.rwmix);
    if reads < 100 && capabilities.read_only {
        return Err(Usage("the disk is read-only".into()).into());
    }
    if reads < 100 && !args.overwrite {
        return Err(
            Usage("this would destroy what is on the disk; say --overwrite if that is meant".into()).into()
        );
    }
    if !args.bs.is_multiple_of(capabilities.alignment.max(1)) {
        return Err(Usage(format!("--bs must be a multiple of {} bytes", capabilities.alignment)).into());
    }
    let span = args.span.unwrap_or(u64::MAX).min(capabilities.bytes());
    let blocks = span / u64::from(args.bs);
    if blocks < disk.queues.len() as u64 {
        return Err(Usage(format!("{span} bytes are too few for blocks of {} on each queue", args.bs)).into());
    }
    Ok(blocks)
}

/// Waits for the end of the measurement with an eye on signals and the backend. Answers the CPU time used meanwhile.
fn supervise(
    limits: &load::Limits<'_>,
    mut watch: impl FnMut() -> anyhow::Result<()>,
    finished: impl Fn() -> bool,
) -> anyhow::Result<CpuTime> {
    let mut wait_until = |time: Instant| -> anyhow::Result<()> {
        while !finished() {
            let left = time.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            thread::sleep(left.min(Duration::from_millis(100)));
            watch()?;
        }
        Ok(())
    };
    wait_until(limits.begin)?;
    let before = CpuTime::now()?;
    wait_until(limits.end)?;
    let used = CpuTime::now()?.since(before);
    // Threads end by themselves now; one that does not within reason is stuck behind the backend.
    wait_until(limits.end + Duration::from_secs(30))?;
    if !finished() {
        bail!("the backend does not answer");
    }
    Ok(used)
}
