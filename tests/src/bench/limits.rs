//! Whether disks with limits do what they are allowed to, no more and no less.
//!
//! Guests ask for all they can get from null disks, so that nothing but the limit holds them back. Each case has its own world; the
//! guests of one work at the same time.

use std::{fmt::Write as _, fs, process::Output, thread};

use anyhow::{Context as _, Result, anyhow};
use serde::Serialize;

use super::{
    job::{Job, Sample, Span},
    pair,
};
use crate::world::{Binaries, Disk, World, tuning::Tuning};

/// How far from its limit a disk or a group may be.
pub const TARGET: f64 = 0.05;
/// How far from an even share a disk of a group may be.
pub const FAIR: f64 = 0.10;

/// What is limited.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Unit {
    /// Operations per second.
    Iops,
    /// Bytes per second.
    Bytes,
}

/// A limit, and who works under it.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    /// In words.
    pub name: &'static str,
    /// Of all guests together, as the configuration says it.
    pub limit: &'static str,
    /// The same as a number.
    pub rate: f64,
    /// What of.
    pub unit: Unit,
    /// One of each guest.
    pub jobs: &'static [Job],
}

const MIB: f64 = (1 << 20) as f64;

/// All cases.
pub const CASES: [Case; 6] = [
    Case {
        name: "operations",
        limit: "iops = 3000",
        rate: 3000.0,
        unit: Unit::Iops,
        jobs: &[Job::random(4096, 32)],
    },
    Case {
        name: "few operations, one at a time",
        limit: "read-iops = 50",
        rate: 50.0,
        unit: Unit::Iops,
        jobs: &[Job::random(4096, 1)],
    },
    Case {
        name: "bytes",
        limit: "bytes = \"100M\"",
        rate: 100.0 * MIB,
        unit: Unit::Bytes,
        jobs: &[Job::random(64 << 10, 32)],
    },
    Case {
        name: "bytes, requests larger than the burst",
        limit: "read-bytes = \"20M\", burst-ms = 10",
        rate: 20.0 * MIB,
        unit: Unit::Bytes,
        jobs: &[Job::sequential(1 << 20, 8)],
    },
    Case {
        name: "a group: operations of one deep and one shallow queue",
        limit: "iops = 4000",
        rate: 4000.0,
        unit: Unit::Iops,
        jobs: &[Job::random(4096, 32), Job::random(4096, 4)],
    },
    Case {
        name: "a group: bytes of large and small requests",
        limit: "bytes = \"40M\"",
        rate: 40.0 * MIB,
        unit: Unit::Bytes,
        jobs: &[Job::sequential(1 << 20, 8), Job::random(4096, 32)],
    },
];

/// What came of a case.
#[derive(Clone, Debug, Serialize)]
pub struct Line {
    /// In words.
    pub name: &'static str,
    /// As the configuration says it.
    pub limit: &'static str,
    /// The limit, in operations or bytes per second.
    pub rate: f64,
    /// What each guest got of it.
    pub each: Vec<f64>,
}

impl Line {
    /// How much more than allowed was done, as a part of the limit.
    pub fn off(&self) -> f64 {
        self.each.iter().sum::<f64>() / self.rate - 1.0
    }

    /// How far the guest that is furthest from it is from an even share.
    pub fn unfair(&self) -> f64 {
        let fair = self.each.iter().sum::<f64>() / self.each.len() as f64;
        self.each.iter().map(|done| (done / fair - 1.0).abs()).fold(0.0, f64::max)
    }

    /// Within the promises.
    pub fn is_met(&self) -> bool {
        self.off().abs() <= TARGET && self.unfair() <= FAIR
    }
}

/// Measures a case.
pub fn measure(binaries: Binaries, case: &Case, span: Span) -> Result<Line> {
    let mut world = World::start(binaries)?;
    let config = world.dir().join("limits.toml");
    let text = match case.jobs {
        [_] => format!("[disk]\nlimit = {{ {} }}\n", case.limit),
        _ => format!("[groups.all]\n{}\n[disk]\ngroup = \"all\"\n", case.limit.replace(", ", "\n")),
    };
    fs::write(&config, text)?;
    let config = config.to_str().context("the folder is not UTF-8")?.to_owned();
    world.start_backend(&["--config".to_owned(), config, "--log".to_owned(), "error".to_owned()])?;
    let mut guests = Vec::new();
    for job in case.jobs {
        guests.push((world.guest_with_disk(&Disk::new(format!("null:{}", 1_u64 << 30)))?, job));
    }
    let outputs = thread::scope(|scope| {
        let run = |(vbd, job)| {
            let mut command = pair::command(&world, vbd, &Tuning::default(), job, span);
            scope.spawn(move || command.output().context("cannot run blkfront bench"))
        };
        let running: Vec<_> = guests.iter().map(|(vbd, job)| run((vbd, *job))).collect();
        let ended = running.into_iter().map(|guest| guest.join().map_err(|_| anyhow!("a guest panicked"))?);
        ended.collect::<Result<Vec<Output>>>()
    })?;
    let of = |sample: Sample| match case.unit {
        Unit::Iops => sample.iops,
        Unit::Bytes => sample.bytes_per_second,
    };
    let each = outputs.iter().zip(case.jobs).map(|(output, job)| pair::sample(output, job).map(of));
    let each = each.collect::<Result<_>>()?;
    for (vbd, _) in &guests {
        world.toolstack().detach(vbd)?;
    }
    world.stop()?;
    Ok(Line { name: case.name, limit: case.limit, rate: case.rate, each })
}

/// The table, for people.
pub fn text(lines: &[Line]) -> String {
    let mut text = format!("{:<56}{:<38}{:>8}{:>10}\n", "", "limit", "off", "unfair");
    for line in lines {
        let unfair =
            if line.each.len() > 1 { format!("{:.1} %", line.unfair() * 100.0) } else { String::new() };
        let off = format!("{:+.1} %", line.off() * 100.0);
        let verdict = if line.is_met() { "" } else { "  MISS" };
        _ = writeln!(text, "{:<56}{:<38}{off:>8}{unfair:>10}{verdict}", line.name, line.limit);
    }
    text
}
