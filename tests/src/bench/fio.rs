//! `fio` with an engine of its own for what a pair's daemon has a driver for.

use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;

use super::job::{Job, Pattern, Sample, Span};

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
