//! What is to be measured.

use core::{fmt, str::FromStr, time::Duration};

use blkfront::{Capabilities, SECTOR_SIZE};

use crate::pattern::Pattern;

/// A load.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    /// Order and direction.
    pub mode: Mode,
    /// Percentage of reads in mixed modes.
    pub mix: u8,
    /// Bytes of each I/O.
    pub block: u32,
    /// I/Os in flight on each queue.
    pub depth: u16,
    /// How long to run before measuring.
    pub warmup: Duration,
    /// How long to measure.
    pub runtime: Duration,
    /// Measured I/Os after which it is over if the time is not up before.
    pub count: Option<u64>,
    /// Only the first so many bytes of the disk; `None`: all.
    pub span: Option<u64>,
    /// Of the random numbers.
    pub seed: u64,
    /// Modes that write are allowed.
    pub overwrite: bool,
    /// How long to look for answers before sleeping.
    pub poll: Duration,
    /// How long a backend may be silent.
    pub patience: Duration,
}

impl Default for Job {
    /// Random reads of 4 KiB, 32 at a time, for 10 seconds after one of warm-up.
    fn default() -> Self {
        Self {
            mode: Mode::Randread,
            mix: 70,
            block: 4096,
            depth: 32,
            warmup: Duration::from_secs(1),
            runtime: Duration::from_secs(10),
            count: None,
            span: None,
            seed: 1,
            overwrite: false,
            poll: Duration::from_micros(300),
            patience: Duration::from_secs(30),
        }
    }
}

/// Why a [`Job`] cannot be done on a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// It writes.
    #[error("the disk is read-only")]
    ReadOnly,
    /// It writes, and nobody allowed it.
    #[error("this would destroy what is on the disk; say overwrite if that is meant")]
    Destroys,
    /// Blocks that the disk cannot address.
    #[error("bs must be a multiple of {0} bytes, and not 0")]
    Misaligned(u32),
    /// No block for each queue.
    #[error("{span} bytes are too few for blocks of {block} on each queue")]
    Small {
        /// Bytes to work on.
        span: u64,
        /// Bytes of a block.
        block: u32,
    },
}

impl Job {
    /// How many blocks there are to work on. Errors: it does not fit the disk.
    pub fn blocks(&self, disk: &Capabilities, queues: u64) -> Result<u64, Unfit> {
        let (writes, alignment) = (self.reads() < 100, disk.alignment.max(SECTOR_SIZE));
        if writes && disk.read_only {
            return Err(Unfit::ReadOnly);
        }
        if writes && !self.overwrite {
            return Err(Unfit::Destroys);
        }
        if self.block == 0 || !self.block.is_multiple_of(alignment) {
            return Err(Unfit::Misaligned(alignment));
        }
        let span = self.span.unwrap_or(u64::MAX).min(disk.bytes());
        let blocks = span / u64::from(self.block);
        if blocks < queues { Err(Unfit::Small { span, block: self.block }) } else { Ok(blocks) }
    }

    /// What queue `index` of `queues` does on `blocks` blocks.
    pub(crate) fn pattern(&self, blocks: u64, index: u64, queues: u64) -> Pattern {
        Pattern::new(self.mode.is_random(), self.reads(), blocks, index, queues, self.seed)
    }

    /// Percentage of reads.
    fn reads(&self) -> u8 {
        match self.mode {
            Mode::Read | Mode::Randread => 100,
            Mode::Write | Mode::Randwrite => 0,
            Mode::Rw | Mode::Randrw => self.mix,
        }
    }

    /// The mode, with the mix if there is one.
    pub(crate) fn name(&self) -> alloc::string::String {
        match self.mode {
            Mode::Rw | Mode::Randrw => alloc::format!("{} ({} % reads)", self.mode, self.mix),
            mode => alloc::format!("{mode}"),
        }
    }
}

/// Order and direction of the I/Os; the names are those of fio.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Reads, one after the other.
    Read,
    /// Writes, one after the other.
    Write,
    /// Reads and writes, one after the other.
    Rw,
    /// Reads at random places.
    Randread,
    /// Writes at random places.
    Randwrite,
    /// Reads and writes at random places.
    Randrw,
}

impl Mode {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Read, Self::Write, Self::Rw, Self::Randread, Self::Randwrite, Self::Randrw];

    /// As on a command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Rw => "rw",
            Self::Randread => "randread",
            Self::Randwrite => "randwrite",
            Self::Randrw => "randrw",
        }
    }

    fn is_random(self) -> bool {
        matches!(self, Self::Randread | Self::Randwrite | Self::Randrw)
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A word that names no [`Mode`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no such mode")]
pub struct NoSuchMode;

impl FromStr for Mode {
    type Err = NoSuchMode;

    fn from_str(name: &str) -> Result<Self, NoSuchMode> {
        Self::ALL.into_iter().find(|mode| mode.as_str() == name).ok_or(NoSuchMode)
    }
}
