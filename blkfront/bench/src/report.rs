//! What a benchmark tells: for people (`Display`) and for programs (`Serialize`).

use alloc::string::String;
use core::{fmt, time::Duration};

use blkfront::Negotiated;
use serde::Serialize;

use crate::{
    Connection, Job,
    stats::{Latencies, Stats},
};

/// CPU time of the tool, in microseconds. The backend's is its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct CpuTime {
    /// In user space.
    pub user_us: u64,
    /// In the kernel.
    pub system_us: u64,
}

impl CpuTime {
    /// What has been used since `before`.
    #[must_use]
    pub fn since(self, before: Self) -> Self {
        Self {
            user_us: self.user_us.saturating_sub(before.user_us),
            system_us: self.system_us.saturating_sub(before.system_us),
        }
    }
}

/// The measured part of one run.
#[derive(Debug, Serialize)]
pub struct Report {
    mode: String,
    block_bytes: u32,
    depth: usize,
    queues: u32,
    seconds: f64,
    read: Option<Direction>,
    write: Option<Direction>,
    total: Rate,
    /// Of the tool; none where there is nobody else who could use a processor.
    cpu: Option<Cpu>,
    /// Ring requests, notifications sent and events received, per I/O.
    per_io: PerIo,
    connection: Connection,
}

#[derive(Debug, Serialize)]
struct Rate {
    ios: u64,
    iops: f64,
    bytes_per_second: f64,
}

#[derive(Debug, Serialize)]
struct Direction {
    #[serde(flatten)]
    rate: Rate,
    latency_ns: Latency,
}

#[derive(Debug, Serialize)]
struct Latency {
    min: u64,
    mean: f64,
    p50: u64,
    p90: u64,
    p99: u64,
    p99_9: u64,
    p99_99: u64,
    max: u64,
}

#[derive(Debug, Serialize)]
struct Cpu {
    #[serde(flatten)]
    time: CpuTime,
    us_per_io: f64,
}

#[derive(Debug, Serialize)]
struct PerIo {
    requests: f64,
    notifications: f64,
    events: f64,
}

impl Report {
    /// What `job` came to, with `depth` I/Os in flight on each queue of a connection.
    pub fn new(
        job: &Job,
        depth: usize,
        negotiated: &Negotiated,
        stats: &Stats,
        time: Option<CpuTime>,
    ) -> Self {
        let ios = ratio(stats.count()).max(1.0);
        let cpu = |time: CpuTime| Cpu { time, us_per_io: ratio(time.user_us + time.system_us) / ios };
        Self {
            mode: job.name(),
            block_bytes: job.block,
            depth,
            queues: negotiated.queues,
            seconds: stats.time.as_secs_f64(),
            read: Direction::new(&stats.reads, job.block, stats.time),
            write: Direction::new(&stats.writes, job.block, stats.time),
            total: Rate::new(stats.count(), job.block, stats.time),
            cpu: time.map(cpu),
            per_io: PerIo {
                requests: ratio(stats.requests) / ios,
                notifications: ratio(stats.notifications) / ios,
                events: ratio(stats.events) / ios,
            },
            connection: negotiated.into(),
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { mode, block_bytes, depth, queues, seconds, total, cpu, per_io, .. } = self;
        writeln!(f, "{mode}, {block_bytes} bytes, {queues} queue(s) of depth {depth}, {seconds:.2} s")?;
        for (name, direction) in [("read", &self.read), ("write", &self.write)] {
            let Some(Direction { rate, latency_ns: l }) = direction else { continue };
            write!(f, "{name:<6} {rate}  latency µs:")?;
            for (name, nanoseconds) in [
                ("min", l.min),
                ("p50", l.p50),
                ("p90", l.p90),
                ("p99", l.p99),
                ("p99.9", l.p99_9),
                ("p99.99", l.p99_99),
                ("max", l.max),
            ] {
                write!(f, " {name} {:.1}", ratio(nanoseconds) / 1e3)?;
            }
            writeln!(f, ", mean {:.1}", l.mean / 1e3)?;
        }
        if self.read.is_some() && self.write.is_some() {
            writeln!(f, "{:<6} {total}", "total")?;
        }
        if let Some(Cpu { time, us_per_io }) = cpu {
            let (user, system) = (ratio(time.user_us) / 1e6, ratio(time.system_us) / 1e6);
            writeln!(f, "cpu    {us_per_io:.3} µs per I/O (user {user:.2} s, system {system:.2} s)")?;
        }
        let PerIo { requests, notifications, events } = per_io;
        writeln!(
            f,
            "per I/O: {requests:.3} ring requests, {notifications:.4} notifications, {events:.4} events"
        )
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:>10.0} IOPS  {:>9.1} MB/s", self.iops, self.bytes_per_second / 1e6)
    }
}

impl Rate {
    fn new(ios: u64, block: u32, time: Duration) -> Self {
        let iops = ratio(ios) / time.as_secs_f64().max(1e-9);
        Self { ios, iops, bytes_per_second: iops * f64::from(block) }
    }
}

impl Direction {
    fn new(latencies: &Latencies, block: u32, time: Duration) -> Option<Self> {
        if latencies.count() == 0 {
            return None;
        }
        let (min, mean, max) = latencies.range();
        let latency_ns = Latency {
            min,
            mean,
            p50: latencies.quantile(5_000),
            p90: latencies.quantile(9_000),
            p99: latencies.quantile(9_900),
            p99_9: latencies.quantile(9_990),
            p99_99: latencies.quantile(9_999),
            max,
        };
        Some(Self { rate: Rate::new(latencies.count(), block, time), latency_ns })
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts below 2^53, shown rounded")]
fn ratio(count: u64) -> f64 {
    count as f64
}
