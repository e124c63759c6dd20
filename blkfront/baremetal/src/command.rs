//! What the guest is told to do.
//!
//! | command | does |
//! |---|---|
//! | `info` (if there is none) | tells what the disk is and what was negotiated |
//! | `verify` | writes patterns in every shape that requests have, and reads them back |
//! | `bench` | measures, and tells in JSON on one line |
//! | `sum` | tells the SHA-256 of the whole disk |
//! | `soak` | does random operations on the end of the disk, and compares with what should be there |
//! | `panic` | shows what becomes of a guest that cannot go on |
//!
//! | option | means |
//! |---|---|
//! | `device=51712` | the number of the disk; else the first one there is |
//! | `queues=2`, `ring-pages=4`, `max-segments=64` | at most so many |
//! | `segments=auto` | how large requests are carried: `auto`, `direct`, `blocks`, `indirect` |
//! | `persistent=yes` | whether pages stay lent: `yes`, `no` |
//! | `timeout=30` | seconds that a backend may take to answer, or to come back |
//! | `extents=24` | how many places of the disk `verify` writes |
//! | `runtime=10`, `count=1000` | for `bench` and `soak`: how many seconds, and how many operations at most |
//! | `span=1048576`, `seed=1` | for both: how many bytes of the disk, and of the random numbers |
//! | `rw`, `rwmix`, `bs`, `depth`, `warmup`, `overwrite=yes`, `poll-us` | for `bench`: as `blkfront bench` has them on Linux, sizes in bytes |

use alloc::{borrow::ToOwned as _, string::String};
use core::{str::FromStr, time::Duration};

use blkfront::{Config, SegmentChoice};
use blkfront_bench::Job;

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// `info`.
    Info,
    /// `verify`.
    Verify,
    /// `bench`.
    Bench,
    /// `sum`.
    Sum,
    /// `soak`.
    Soak,
    /// `panic`.
    Panic,
}

/// A command with its options.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// What to do.
    pub command: Command,
    /// With which disk.
    pub device: Option<u32>,
    /// How to connect.
    pub config: Config,
    /// The command line says how to connect.
    pub chosen: bool,
    /// How many places to write.
    pub extents: u32,
    /// What to measure; parts of it are for `soak`.
    pub job: Job,
    /// The command line names a seed.
    pub seeded: bool,
}

/// A word of the command line that makes no sense.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("what is '{0}' on the command line?")]
pub struct OrderError(pub String);

impl Order {
    /// What a command line says. Errors: the first word that makes no sense.
    pub fn parse(line: &str) -> Result<Self, OrderError> {
        let mut order = Self {
            command: Command::Info,
            device: None,
            config: Config::default(),
            chosen: false,
            extents: 24,
            job: Job::default(),
            seeded: false,
        };
        for (index, word) in line.split_ascii_whitespace().enumerate() {
            let understood = match word.split_once('=') {
                Some((name, value)) => order.option(name, value),
                None if index == 0 => order.command(word),
                None => None,
            };
            understood.ok_or_else(|| OrderError(word.to_owned()))?;
        }
        order.job.patience = order.config.timeout;
        Ok(order)
    }

    fn command(&mut self, word: &str) -> Option<()> {
        self.command = match word {
            "info" => Command::Info,
            "verify" => Command::Verify,
            "bench" => Command::Bench,
            "sum" => Command::Sum,
            "soak" => Command::Soak,
            "panic" => Command::Panic,
            _ => return None,
        };
        Some(())
    }

    fn option(&mut self, name: &str, value: &str) -> Option<()> {
        match name {
            "device" => self.device = Some(number(value)?),
            "extents" => self.extents = number(value)?,
            "timeout" => self.config.timeout = seconds(value)?,
            "queues" | "ring-pages" | "max-segments" | "segments" | "persistent" => {
                self.chosen = true;
                return connection(&mut self.config, name, value);
            }
            _ => {
                self.seeded |= name == "seed";
                return load(&mut self.job, name, value);
            }
        }
        Some(())
    }
}

fn connection(config: &mut Config, name: &str, value: &str) -> Option<()> {
    match name {
        "queues" => config.queues = number(value)?,
        "ring-pages" => config.ring_pages = number(value)?,
        "max-segments" => config.max_segments = number(value)?,
        "segments" => config.segments = segments(value)?,
        _ => config.persistent = yes_or_no(value)?,
    }
    Some(())
}

fn load(job: &mut Job, name: &str, value: &str) -> Option<()> {
    match name {
        "rw" => job.mode = value.parse().ok()?,
        "rwmix" => job.mix = value.parse().ok().filter(|percentage| *percentage <= 100)?,
        "bs" => job.block = number(value)?,
        "depth" => job.depth = number(value)?,
        "runtime" => job.runtime = seconds(value)?,
        "warmup" => job.warmup = Duration::from_secs(value.parse().ok()?),
        "count" => job.count = Some(number(value)?),
        "span" => job.span = Some(number(value)?),
        "seed" => job.seed = value.parse().ok()?,
        "overwrite" => job.overwrite = yes_or_no(value)?,
        "poll-us" => job.poll = Duration::from_micros(value.parse().ok()?),
        _ => return None,
    }
    Some(())
}

/// A number of at least 1.
fn number<T: FromStr + PartialOrd + From<u8>>(value: &str) -> Option<T> {
    value.parse().ok().filter(|number| *number >= T::from(1))
}

fn seconds(value: &str) -> Option<Duration> {
    number(value).map(Duration::from_secs)
}

fn segments(value: &str) -> Option<SegmentChoice> {
    Some(match value {
        "auto" => SegmentChoice::Auto,
        "direct" => SegmentChoice::Direct,
        "blocks" => SegmentChoice::Blocks,
        "indirect" => SegmentChoice::Indirect,
        _ => return None,
    })
}

fn yes_or_no(value: &str) -> Option<bool> {
    match value {
        "yes" => Some(true),
        "no" => Some(false),
        _ => None,
    }
}
