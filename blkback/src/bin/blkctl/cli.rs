//! `blkctl`'s command line.

use std::path::PathBuf;

use blkback::ctl::protocol::{Command, DiskName};
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
    /// Let a drained disk go on
    Release {
        /// Which
        disk: DiskName,
    },
    /// Put the blkback that is installed beside this program in the place of the one that runs: guests see a pause
    Upgrade {
        /// The program [default: blkback beside this one]
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

impl Word {
    /// The daemon's part in it; none if it has no part.
    pub(crate) fn command(&self) -> Option<Command> {
        Some(match self {
            Word::List => Command::List,
            Word::Show { disk } => Command::Show { disk: disk.clone() },
            Word::Stats { disk } => Command::Stats { disk: disk.clone() },
            Word::Resize { disk, size } => Command::Resize { disk: disk.clone(), bytes: *size },
            Word::Eject { disk } => Command::Eject { disk: disk.clone() },
            Word::Insert { disk, image } => Command::Insert { disk: disk.clone(), image: image.clone() },
            Word::Drain { disk } => Command::Drain { disk: disk.clone() },
            Word::Release { disk } => Command::Release { disk: disk.clone() },
            Word::Upgrade { .. } | Word::Completions { .. } | Word::Man { .. } => return None,
        })
    }
}

fn size(text: &str) -> Result<u64, String> {
    blkback::control::disk::bytes(text).ok_or_else(|| "no size: digits, and K, M, G or T".into())
}
