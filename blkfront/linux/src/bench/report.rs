//! What a benchmark tells: for people and as JSON.

use std::time::Duration;

use nix::sys::{
    resource::{Usage, UsageWho, getrusage},
    time::TimeValLike as _,
};
use serde::Serialize;

use super::{
    Args, Mode,
    stats::{Latencies, Stats},
};
use crate::info::Connection;

/// CPU time of this process, in microseconds. The backend's is its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct CpuTime {
    user_us: u64,
    system_us: u64,
}

impl CpuTime {
    /// Used so far.
    pub(super) fn now() -> anyhow::Result<Self> {
        let usage: Usage = getrusage(UsageWho::RUSAGE_SELF)?;
        let microseconds =
            |time: nix::sys::time::TimeVal| u64::try_from(time.num_microseconds()).unwrap_or_default();
        Ok(Self { user_us: microseconds(usage.user_time()), system_us: microseconds(usage.system_time()) })
    }

    pub(super) fn since(self, before: Self) -> Self {
        Self {
            user_us: self.user_us.saturating_sub(before.user_us),
            system_us: self.system_us.saturating_sub(before.system_us),
        }
    }
}

/// The measured part of one run.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    mode: String,
    block_bytes: u32,
    depth: usize,
    queues: usize,
    seconds: f64,
    read: Option<Direction>,
    write: Option<Direction>,
    total: Rate,
    cpu: Cpu,
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
    /// Sums up the queues' measurements.
    pub(super) fn new(
        args: &Args,
        depth: usize,
        connection: Connection,
        queues: &[Stats],
        cpu: CpuTime,
    ) -> anyhow::Result<Self> {
        let mut sum = Stats::new()?;
        queues.iter().try_for_each(|stats| sum.add(stats))?;
        let ios = ratio(sum.count());
        Ok(Self {
            mode: name(args.rw, args.rwmix),
            block_bytes: args.bs,
            depth,
            queues: queues.len(),
            seconds: sum.time.as_secs_f64(),
            read: Direction::new(&sum.reads, args.bs, sum.time),
            write: Direction::new(&sum.writes, args.bs, sum.time),
            total: Rate::new(sum.count(), args.bs, sum.time),
            cpu: Cpu { time: cpu, us_per_io: ratio(cpu.user_us + cpu.system_us) / ios.max(1.0) },
            per_io: PerIo {
                requests: ratio(sum.requests) / ios.max(1.0),
                notifications: ratio(sum.notifications) / ios.max(1.0),
                events: ratio(sum.events) / ios.max(1.0),
            },
            connection,
        })
    }

    /// The report for people.
    pub(super) fn text(&self) -> String {
        let Self { mode, block_bytes, depth, queues, seconds, total, cpu, per_io, .. } = self;
        let mut text =
            format!("{mode}, {block_bytes} bytes, {queues} queue(s) of depth {depth}, {seconds:.2} s\n");
        for (name, direction) in [("read", &self.read), ("write", &self.write)] {
            let Some(Direction { rate, latency_ns: l }) = direction else { continue };
            text += &format!(
                "{name:<6} {:>10.0} IOPS  {:>9.1} MB/s  latency µs:",
                rate.iops,
                rate.bytes_per_second / 1e6
            );
            for (name, nanoseconds) in [
                ("min", l.min),
                ("p50", l.p50),
                ("p90", l.p90),
                ("p99", l.p99),
                ("p99.9", l.p99_9),
                ("p99.99", l.p99_99),
                ("max", l.max),
            ] {
                text += &format!(" {name} {:.1}", ratio(nanoseconds) / 1e3);
            }
            text += &format!(", mean {:.1}\n", l.mean / 1e3);
        }
        if self.read.is_some() && self.write.is_some() {
            text += &format!(
                "{:<6} {:>10.0} IOPS  {:>9.1} MB/s\n",
                "total",
                total.iops,
                total.bytes_per_second / 1e6
            );
        }
        text + &format!(
            "cpu    {:.3} µs per I/O (user {:.2} s, system {:.2} s)\nper I/O: {:.3} ring requests, {:.4} notifications, {:.4} events\n",
            cpu.us_per_io,
            ratio(cpu.time.user_us) / 1e6,
            ratio(cpu.time.system_us) / 1e6,
            per_io.requests,
            per_io.notifications,
            per_io.events,
        )
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
            p50: latencies.percentile(50.0),
            p90: latencies.percentile(90.0),
            p99: latencies.percentile(99.0),
            p99_9: latencies.percentile(99.9),
            p99_99: latencies.percentile(99.99),
            max,
        };
        Some(Self { rate: Rate::new(latencies.count(), block, time), latency_ns })
    }
}

fn name(mode: Mode, mix: u8) -> String {
    match mode {
        Mode::Read => "read".into(),
        Mode::Write => "write".into(),
        Mode::Rw => format!("rw ({mix} % reads)"),
        Mode::Randread => "randread".into(),
        Mode::Randwrite => "randwrite".into(),
        Mode::Randrw => format!("randrw ({mix} % reads)"),
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts below 2^53, shown rounded")]
fn ratio(count: u64) -> f64 {
    count as f64
}
