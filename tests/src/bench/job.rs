//! What is measured: one job, and one sample of it.

use std::time::Duration;

use serde::Serialize;

/// The order in which blocks are visited.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Pattern {
    /// Uniformly distributed, aligned to the block size.
    Random,
    /// One after the other, from the start again at the end.
    Sequential,
}

/// One job: reads, or writes, of one size at one depth.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Job {
    /// Order of the blocks.
    pub pattern: Pattern,
    /// Bytes per read.
    pub block: u32,
    /// Reads in flight.
    pub depth: u32,
    /// They are writes.
    pub writes: bool,
}

impl Job {
    /// Random reads.
    pub const fn random(block: u32, depth: u32) -> Self {
        Self { pattern: Pattern::Random, block, depth, writes: false }
    }

    /// Sequential reads.
    pub const fn sequential(block: u32, depth: u32) -> Self {
        Self { pattern: Pattern::Sequential, block, depth, writes: false }
    }

    /// The same with writes.
    pub const fn writing(self) -> Self {
        Self { writes: true, ..self }
    }

    /// As the tables print it: `4 KiB random, depth 32`.
    pub fn name(&self) -> String {
        let pattern = match self.pattern {
            Pattern::Random => "random",
            Pattern::Sequential => "sequential",
        };
        let size = match self.block {
            b if b % (1 << 20) == 0 => format!("{} MiB", b >> 20),
            b => format!("{} KiB", b >> 10),
        };
        let writes = if self.writes { " writes" } else { "" };
        format!("{size} {pattern}{writes}, depth {}", self.depth)
    }
}

/// The block offsets of a job, in bytes, without end. Cheap enough not to show in a measurement.
#[derive(Debug)]
pub struct Offsets {
    pattern: Pattern,
    block: u64,
    blocks: u64,
    state: u64,
}

impl Offsets {
    /// Offsets of `job` on a disk of `bytes`.
    pub fn new(job: &Job, bytes: u64) -> Self {
        let block = u64::from(job.block);
        let seed = match job.pattern {
            Pattern::Random => 0x9E37_79B9_7F4A_7C15,
            Pattern::Sequential => 0,
        };
        Self { pattern: job.pattern, block, blocks: (bytes / block).max(1), state: seed }
    }

    /// The next offset in bytes.
    pub fn next_offset(&mut self) -> u64 {
        let index = match self.pattern {
            Pattern::Sequential => {
                let now = self.state;
                self.state = (now + 1) % self.blocks;
                now
            }
            Pattern::Random => {
                // Xorshift; the high half times the range spreads evenly without a division.
                self.state ^= self.state << 13;
                self.state ^= self.state >> 7;
                self.state ^= self.state << 17;
                ((u128::from(self.state) * u128::from(self.blocks)) >> 64) as u64
            }
        };
        index * self.block
    }
}

/// How long a sample runs, and how long it warms up before.
#[derive(Clone, Copy, Debug)]
pub struct Span {
    /// Not counted.
    pub warm_up: Duration,
    /// Counted.
    pub measure: Duration,
}

/// What one run of a job gave.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Sample {
    /// Reads per second.
    pub iops: f64,
    /// Bytes per second.
    pub bytes_per_second: f64,
    /// Median latency in microseconds, from submission to the moment the program sees the completion.
    pub p50_us: f64,
    /// 99th percentile of the latency in microseconds.
    pub p99_us: f64,
    /// CPU time of client and server together, in microseconds per read.
    pub cpu_us: f64,
}

#[cfg(test)]
mod tests;
