//! What the project promises of speed, held against one run.

use std::fmt::Write as _;

use serde::Serialize;

use super::{
    job::{Job, Sample},
    table::{Contender, Row, Storage, Table},
};

/// One promise, as a ratio within one run.
#[derive(Clone, Debug, Serialize)]
pub struct Target {
    /// In words.
    pub promise: &'static str,
    /// The ratio that was measured; `None` when one side was not measured.
    pub ratio: Option<f64>,
    /// The bound.
    pub bound: f64,
    /// True when the ratio must be at least the bound, false when at most.
    pub at_least: bool,
}

impl Target {
    /// Kept, broken, or (`None`) not measured.
    pub fn kept(&self) -> Option<bool> {
        self.ratio.map(|ratio| if self.at_least { ratio >= self.bound } else { ratio <= self.bound })
    }
}

/// All promises against `table`.
pub fn check(table: &Table) -> Vec<Target> {
    use Contender::{Pair, PairUnlogged, PairWatched, Qemu, Raw};
    use Storage::{File, Null};
    let small = Job::random(4096, 32);
    let one = Job::random(4096, 1);
    let large = Job::sequential(1 << 20, 8);
    let deep = Job::random(4096, 128);
    let ratio = |storage, job, peer, get: fn(&Sample) -> f64| {
        let of = |who| table.median(Row { storage, job, who }).map(|sample| get(&sample));
        Some(of(Pair)? / of(peer)?)
    };
    let watched = |storage| {
        let of = |who| table.median(Row { storage, job: small, who }).map(|sample| sample.iops);
        Some(of(PairWatched)? / of(Pair)?)
    };
    let target = |promise, ratio, bound, at_least| Target { promise, ratio, bound, at_least };
    vec![
        target("4 KiB random, depth 32: IOPS against qemu", ratio(File, small, Qemu, |s| s.iops), 2.0, true),
        target(
            "4 KiB random, depth 32: IOPS against raw io_uring",
            ratio(File, small, Raw, |s| s.iops),
            0.7,
            true,
        ),
        target(
            "4 KiB random, depth 1: median latency against qemu",
            ratio(File, one, Qemu, |s| s.p50_us),
            0.2,
            false,
        ),
        target(
            "1 MiB sequential, depth 8: bytes against raw io_uring",
            ratio(File, large, Raw, |s| s.bytes_per_second),
            0.9,
            true,
        ),
        target("null, depth 128: IOPS against qemu's null", ratio(Null, deep, Qemu, |s| s.iops), 1.0, true),
        target("null, depth 1: IOPS against qemu's null", ratio(Null, one, Qemu, |s| s.iops), 3.0, true),
        target(
            "4 KiB random, depth 32: IOPS against without the log",
            ratio(File, small, PairUnlogged, |s| s.iops),
            0.97,
            true,
        ),
        target(
            "null, depth 32: IOPS against without the log",
            ratio(Null, small, PairUnlogged, |s| s.iops),
            0.97,
            true,
        ),
        target("4 KiB random, depth 32: IOPS with metrics and limits", watched(File), 0.98, true),
        target("null, depth 32: IOPS with metrics and limits", watched(Null), 0.98, true),
    ]
}

/// The promises as a table.
pub fn text(targets: &[Target]) -> String {
    let mut text = String::from("Targets (ratios of medians within this run)\n");
    for target in targets {
        let verdict = match target.kept() {
            Some(true) => "pass",
            Some(false) => "MISS",
            None => "not measured",
        };
        let ratio = target.ratio.map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.2}"));
        let sign = if target.at_least { ">=" } else { "<=" };
        let _ = writeln!(text, "  {:<58}{ratio:>7}  {sign} {:<5}{verdict}", target.promise, target.bound);
    }
    text
}

#[cfg(test)]
mod tests;
