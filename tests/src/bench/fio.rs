//! `fio` with an engine of its own for what a pair's daemon has a driver for, and the pair against it.

use std::{fmt::Write as _, process::Command};

use anyhow::{Context as _, Result, ensure};
use serde::{Deserialize, Serialize};

use super::{
    job::{Job, Pattern, Sample, Span},
    table::median,
};

/// What the pair promises of fio's operations per second.
pub const BOUND: f64 = 0.9;

/// One job.
#[derive(Debug, Serialize)]
pub struct Line {
    job: Job,
    pair: Sample,
    fio: Sample,
    /// IOPS of the pair over fio's.
    ratio: f64,
}

impl Line {
    /// Medians of rounds, in each of which the pair is first.
    pub(super) fn of(job: Job, samples: &[[Sample; 2]]) -> Self {
        let of = |who: usize| median(&samples.iter().map(|both| both[who]).collect::<Vec<_>>());
        let (pair, fio) = (of(0), of(1));
        Self { job, pair, fio, ratio: pair.iops / fio.iops }
    }

    /// True when the promise is kept.
    pub fn is_met(&self) -> bool {
        self.ratio >= BOUND
    }
}

#[derive(Debug, Deserialize)]
struct Report {
    jobs: [JobReport; 1],
}

/// The part of it that is of use here; of a job that only reads, what is written is nothing.
#[derive(Debug, Deserialize)]
struct JobReport {
    read: Direction,
    write: Direction,
    usr_cpu: f64,
    sys_cpu: f64,
}

#[derive(Debug, Deserialize)]
struct Direction {
    iops: f64,
    bw_bytes: f64,
    clat_ns: Latency,
}

#[derive(Debug, Deserialize)]
struct Latency {
    #[serde(default)]
    percentile: Percentiles,
}

#[derive(Debug, Default, Deserialize)]
struct Percentiles {
    #[serde(rename = "50.000000")]
    p50: f64,
    #[serde(rename = "99.000000")]
    p99: f64,
}

/// Runs `job` by `fio`, a command that lacks nothing but the job.
pub fn run(mut fio: Command, job: &Job, span: Span) -> Result<Sample> {
    let mode = match (job.pattern, job.writes) {
        (Pattern::Random, false) => "randread",
        (Pattern::Sequential, false) => "read",
        (Pattern::Random, true) => "randwrite",
        (Pattern::Sequential, true) => "write",
    };
    fio.args(["--name=bench", "--output-format=json", "--eta=never", "--time_based", "--randrepeat=0"])
        .args([format!("--rw={mode}"), format!("--bs={}", job.block), format!("--iodepth={}", job.depth)])
        .arg(format!("--ramp_time={}ms", span.warm_up.as_millis()))
        .arg(format!("--runtime={}ms", span.measure.as_millis()));
    let output = fio.output().context("cannot run fio")?;
    ensure!(output.status.success(), "fio failed: {}", String::from_utf8_lossy(&output.stderr));
    // Engines may say something before the report.
    let begin = output.stdout.iter().position(|byte| *byte == b'{').context("fio reports nothing")?;
    let Report { jobs: [report] } =
        serde_json::from_slice(&output.stdout[begin..]).context("fio's report")?;
    let done = if job.writes { report.write } else { report.read };
    let Percentiles { p50, p99 } = done.clat_ns.percentile;
    Ok(Sample {
        iops: done.iops,
        bytes_per_second: done.bw_bytes,
        p50_us: p50 / 1e3,
        p99_us: p99 / 1e3,
        // Percents of one processor.
        cpu_us: (report.usr_cpu + report.sys_cpu) * 1e4 / done.iops.max(1.0),
    })
}

/// The lines as a table, with a headline that says `what` was measured.
pub fn text(what: &str, lines: &[Line]) -> String {
    let mut text = format!(
        "{:<36}{:>12}{:>12}{:>8}{:>11}{:>11}{:>11}\n",
        what, "pair IOPS", "fio IOPS", "ratio", "p50 us", "p99 us", "fio p99"
    );
    for Line { job, pair, fio, ratio } in lines {
        let (name, verdict) = (job.name(), if *ratio >= BOUND { "pass" } else { "MISS" });
        let _ = writeln!(
            text,
            "{name:<36}{:>12.0}{:>12.0}{ratio:>8.2}{:>11.1}{:>11.1}{:>11.1}  {verdict}",
            pair.iops, fio.iops, pair.p50_us, pair.p99_us, fio.p99_us
        );
    }
    text
}
