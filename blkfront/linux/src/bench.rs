//! `bench`: how fast the disk is, through the ring. One thread drives each queue.

#[cfg(test)]
mod tests;

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use anyhow::anyhow;
use blkfront_bench::{CpuTime, Job, Limits, Load, Mode, Report, Stats, measure};
use clap::builder::{PossibleValuesParser, TypedValueParser as _};
use nix::sys::{
    resource::{UsageWho, getrusage},
    time::{TimeVal, TimeValLike as _},
};
use xen_platform::Clock as _;

use crate::{
    connect::{Disk, World, look_after},
    exit::Usage,
    say, size,
};

/// Arguments of `bench`.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// What to do; the names are those of fio
    #[arg(long, default_value_t = Mode::Randread, value_name = "MODE", value_parser = mode())]
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

fn mode() -> impl clap::builder::TypedValueParser<Value = Mode> {
    PossibleValuesParser::new(Mode::ALL.map(Mode::as_str)).try_map(|name| name.parse::<Mode>())
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.0..=1e6).contains(&seconds) => Ok(seconds),
        _ => Err("must be a number of seconds".into()),
    }
}

impl Args {
    fn job(&self, poll: Duration) -> Job {
        Job {
            mode: self.rw,
            mix: self.rwmix,
            block: self.bs,
            depth: self.depth,
            warmup: Duration::from_secs_f64(self.warmup),
            runtime: Duration::from_secs_f64(self.runtime),
            count: self.count,
            span: self.span,
            seed: self.seed,
            overwrite: self.overwrite,
            poll,
            ..Job::default()
        }
    }
}

/// Runs the benchmark and prints its report. Errors: [`Usage`] for a load that the disk cannot take, and the first I/O error.
pub(crate) fn run<W: World>(args: &Args, disk: &mut Disk<W>) -> anyhow::Result<()> {
    let job = args.job(disk.poll);
    let count = disk.queues.len() as u64;
    let blocks = job.blocks(&disk.capabilities(), count).map_err(|unfit| Usage(unfit.to_string()))?;
    let Disk { device, queues, stop, .. } = disk;
    let Some(clock) = queues.first().map(|queue| queue.clock().clone()) else { return Ok(()) };

    let queues = queues.iter_mut().zip(0..);
    let loads = queues.map(|(queue, index)| Load::new(queue, &job, blocks, index, count));
    let loads = loads.collect::<Result<Vec<_>, _>>()?;
    let depth = loads.iter().map(Load::depth).min().unwrap_or_default();
    let ended = AtomicBool::new(false);
    let mut limits = Limits::new(&job, clock.now());
    limits.count = limits.count.map(|ios| ios.div_ceil(count));
    let (results, cpu) = thread::scope(|scope| {
        let (limits, ended) = (&limits, &ended);
        let measured =
            move |load| measure(&mut [load], limits, || anyhow::Ok(!ended.load(Ordering::Relaxed)));
        let threads: Vec<_> = loads.into_iter().map(|load| scope.spawn(move || measured(load))).collect();
        let supervised = supervise(
            limits,
            || clock.now(),
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
    let mut stats = Stats::default();
    for result in results {
        stats.add(&result?);
    }
    let report = Report::new(&job, depth, disk.negotiated(), &stats, Some(cpu));
    say::line(if args.json { serde_json::to_string_pretty(&report)? } else { report.to_string() })
}

/// Waits for the end of the measurement with an eye on signals and the backend. Answers the CPU time used meanwhile.
fn supervise(
    limits: &Limits,
    now: impl Fn() -> Duration,
    mut watch: impl FnMut() -> anyhow::Result<()>,
    finished: impl Fn() -> bool,
) -> anyhow::Result<CpuTime> {
    let mut wait_until = |time: Duration| -> anyhow::Result<()> {
        while !finished() {
            let left = time.saturating_sub(now());
            if left.is_zero() {
                break;
            }
            thread::sleep(left.min(Duration::from_millis(100)));
            watch()?;
        }
        Ok(())
    };
    wait_until(limits.begin)?;
    let before = cpu_time()?;
    wait_until(limits.end)?;
    let used = cpu_time()?.since(before);
    // Threads end by themselves now, also one whose backend is silent.
    wait_until(Duration::MAX)?;
    Ok(used)
}

/// What this process has used so far.
fn cpu_time() -> anyhow::Result<CpuTime> {
    let usage = getrusage(UsageWho::RUSAGE_SELF)?;
    let microseconds = |time: TimeVal| u64::try_from(time.num_microseconds()).unwrap_or_default();
    Ok(CpuTime { user_us: microseconds(usage.user_time()), system_us: microseconds(usage.system_time()) })
}
