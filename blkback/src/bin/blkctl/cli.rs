//! `blkctl`'s command line.

use std::path::PathBuf;

use blkback::{
    ctl::protocol::{Command, DiskName},
    limit::Rates,
};
use clap::{Parser, Subcommand};

/// Watches and steers a running blkback.
///
/// Disks are named as GUEST/DISK: the guest's number, and the disk's name in it or its number, such as 1/xvda or 1/51712.
///
/// Exit status: 0 done; 1 it was tried and failed; 2 the command line makes no sense; 3 there is no such disk; 4 not allowed; 5 no
/// daemon can be reached; 6 the disk cannot do that; 7 the disk is not in a state for that now.
#[derive(Parser)]
#[command(name = "blkctl", version)]
pub(crate) struct Arguments {
    /// The daemon's run directory
    #[arg(long, value_name = "DIR", default_value = "/run/blkback", global = true)]
    pub(crate) run_dir: PathBuf,
    /// The daemon's control socket [default: control.sock in the run directory]
    #[arg(long, value_name = "PATH", global = true)]
    pub(crate) socket: Option<PathBuf>,
    /// Print the daemon's answer as JSON
    #[arg(long, global = true)]
    pub(crate) json: bool,
    #[command(subcommand)]
    pub(crate) command: Word,
}

/// What can be asked for.
#[derive(Subcommand)]
pub(crate) enum Word {
    /// List all disks
    List,
    /// Show one disk at length
    Show {
        /// Which
        disk: DiskName,
    },
    /// Show what disks have carried since their guests connected, queue by queue
    Stats {
        /// Which [default: all]
        disk: Option<DiskName>,
    },
    /// Show or set the limits of a disk, or of a group of disks that share them; what is set replaces all limits that were
    Limit {
        /// Which
        #[arg(required_unless_present = "group", conflicts_with = "group")]
        disk: Option<DiskName>,
        /// The group, by its name in the configuration
        #[arg(long, value_name = "NAME")]
        group: Option<String>,
        #[command(flatten)]
        limits: Limits,
    },
    /// Make a disk larger or smaller; its guest is told
    Resize {
        /// Which
        disk: DiskName,
        /// The new size in bytes, or with K, M, G or T
        #[arg(value_parser = size)]
        size: u64,
    },
    /// Take the medium out of a removable disk
    Eject {
        /// Which
        disk: DiskName,
    },
    /// Put a medium into a removable disk, in place of what is there
    Insert {
        /// Which
        disk: DiskName,
        /// The medium, as target= of a guest's configuration names it
        image: String,
    },
    /// Finish what is under way to a disk and take nothing new: its image stays as it is; the guest's requests wait until release
    Drain {
        /// Which
        disk: DiskName,
    },
    /// Trace requests through the daemon's stages, for <https://ui.perfetto.dev>
    Trace {
        /// Of which disk [default: all]
        disk: Option<DiskName>,
        /// How many at most
        #[arg(long, value_name = "N", default_value_t = 1000)]
        requests: usize,
        /// How long at most
        #[arg(long, value_name = "N", default_value_t = 10)]
        seconds: u64,
        /// The file
        #[arg(long, value_name = "FILE", default_value = "trace.json")]
        output: PathBuf,
    },
    /// Let a drained disk go on
    Release {
        /// Which
        disk: DiskName,
    },
    /// Put the blkback that is installed with this program in the place of the one that runs: guests see a pause
    Upgrade {
        /// The program [default: blkback beside this one, or in sbin where this one is in bin]
        #[arg(long, value_name = "FILE")]
        program: Option<PathBuf>,
        /// Seconds to wait for it
        #[arg(long, value_name = "N", default_value_t = 30)]
        patience: u64,
    },
    /// Print a script that completes command lines
    Completions {
        /// For which shell
        shell: clap_complete::Shell,
    },
    /// Write manual pages into a folder
    #[command(hide = true)]
    Man {
        /// The folder
        folder: PathBuf,
    },
}

/// What is allowed in a second.
#[derive(clap::Args)]
pub(crate) struct Limits {
    /// Operations per second
    #[arg(long, value_name = "N")]
    iops: Option<u64>,
    /// Reads per second
    #[arg(long, value_name = "N")]
    read_iops: Option<u64>,
    /// Writes, flushes and discards per second
    #[arg(long, value_name = "N")]
    write_iops: Option<u64>,
    /// Bytes per second, or with K, M, G or T
    #[arg(long, value_name = "N", value_parser = size)]
    bytes: Option<u64>,
    /// Bytes read per second
    #[arg(long, value_name = "N", value_parser = size)]
    read_bytes: Option<u64>,
    /// Bytes written per second
    #[arg(long, value_name = "N", value_parser = size)]
    write_bytes: Option<u64>,
    /// How many milliseconds of its rates a disk that was idle may use up at once
    #[arg(long, value_name = "N")]
    burst_ms: Option<u64>,
    /// Lift all limits
    #[arg(long)]
    off: bool,
}

impl Limits {
    /// None: they are to be shown.
    fn rates(&self) -> Option<Rates> {
        let Self { iops, read_iops, write_iops, bytes, read_bytes, write_bytes, burst_ms, off } = *self;
        let rates = Rates { iops, read_iops, write_iops, bytes, read_bytes, write_bytes, burst_ms };
        (off || rates != Rates::default()).then(|| if off { Rates::default() } else { rates })
    }
}

impl Word {
    /// The daemon's part in it; none if it has no part.
    pub(crate) fn command(&self) -> Option<Command> {
        Some(match self {
            Word::List => Command::List,
            Word::Show { disk } => Command::Show { disk: disk.clone() },
            Word::Stats { disk } => Command::Stats { disk: disk.clone() },
            Word::Limit { disk: Some(disk), limits, .. } => {
                Command::Limit { disk: disk.clone(), limits: limits.rates() }
            }
            Word::Limit { disk: None, group, limits } => {
                Command::LimitGroup { group: group.clone().unwrap_or_default(), limits: limits.rates() }
            }
            Word::Resize { disk, size } => Command::Resize { disk: disk.clone(), bytes: *size },
            Word::Eject { disk } => Command::Eject { disk: disk.clone() },
            Word::Insert { disk, image } => Command::Insert { disk: disk.clone(), image: image.clone() },
            Word::Drain { disk } => Command::Drain { disk: disk.clone() },
            Word::Trace { disk, requests, seconds, .. } => {
                Command::Trace { disk: disk.clone(), requests: *requests, seconds: *seconds }
            }
            Word::Release { disk } => Command::Release { disk: disk.clone() },
            Word::Upgrade { .. } | Word::Completions { .. } | Word::Man { .. } => return None,
        })
    }
}

fn size(text: &str) -> Result<u64, String> {
    blkback::control::disk::bytes(text).ok_or_else(|| "no size: digits, and K, M, G or T".into())
}
