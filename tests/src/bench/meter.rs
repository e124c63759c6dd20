//! Counting completions and their latencies, and the CPU time of processes.

use std::{
    fs,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use hdrhistogram::Histogram;

use super::job::{Job, Sample, Span};

/// Collects the completions of one run.
///
/// Time stamps are taken once per batch, not once per read: at high depths the clock itself would show.
#[derive(Debug)]
pub struct Meter {
    histogram: Histogram<u64>,
    span: Span,
    started: Instant,
    /// Set when the warm-up is over: from when, and the CPU time (ns) spent until then.
    from: Option<(Instant, u64)>,
    done: u64,
    processes: Vec<u32>,
}

impl Meter {
    /// Starts the warm-up. CPU time is counted of this process and of `servers`.
    pub fn start(span: Span, servers: &[u32]) -> Result<Self> {
        let mut processes = vec![std::process::id()];
        processes.extend_from_slice(servers);
        Ok(Self {
            histogram: Histogram::new_with_bounds(1, 60_000_000_000, 3)?,
            span,
            started: Instant::now(),
            from: None,
            done: 0,
            processes,
        })
    }

    /// Tells the time after a batch of completions; true when the run is over.
    pub fn tick(&mut self, now: Instant) -> Result<bool> {
        match self.from {
            None if now - self.started >= self.span.warm_up => {
                self.from = Some((now, cpu_nanos(&self.processes)?));
                Ok(false)
            }
            None => Ok(false),
            Some((from, _)) => Ok(now - from >= self.span.measure),
        }
    }

    /// Counts one read that took `latency`; ignored during the warm-up.
    pub fn record(&mut self, latency: Duration) {
        if self.from.is_some() {
            self.done += 1;
            self.histogram.saturating_record(u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX));
        }
    }

    /// Ends the run at `now`.
    pub fn finish(self, job: &Job, now: Instant) -> Result<Sample> {
        let (from, cpu_before) = self.from.context("the run ended before its warm-up")?;
        let cpu = cpu_nanos(&self.processes)?.saturating_sub(cpu_before);
        let seconds = (now - from).as_secs_f64();
        let done = self.done as f64;
        Ok(Sample {
            iops: done / seconds,
            bytes_per_second: done * f64::from(job.block) / seconds,
            p50_us: self.histogram.value_at_quantile(0.5) as f64 / 1e3,
            p99_us: self.histogram.value_at_quantile(0.99) as f64 / 1e3,
            cpu_us: cpu as f64 / 1e3 / done.max(1.0),
        })
    }
}

/// CPU time (user and system) that the processes have used so far, all their threads together, in nanoseconds.
///
/// Read from `/proc/PID/task/*/schedstat`; threads that have ended are not in it, so compare only while threads live on.
pub fn cpu_nanos(processes: &[u32]) -> Result<u64> {
    let mut total = 0;
    for pid in processes {
        let tasks =
            fs::read_dir(format!("/proc/{pid}/task")).with_context(|| format!("process {pid} is gone"))?;
        for task in tasks {
            let text = fs::read_to_string(task?.path().join("schedstat")).unwrap_or_default();
            total += text.split_whitespace().next().and_then(|n| n.parse::<u64>().ok()).unwrap_or(0);
        }
    }
    Ok(total)
}
