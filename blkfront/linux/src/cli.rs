//! The command line. Every subcommand's own arguments stand beside its code; here are those that all of them share.

use std::{path::PathBuf, str::FromStr, time::Duration};

use blkfront::{Config, SegmentChoice};
use blkif_proto::Abi;
use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::{bench, copy, info, nbd, range, vdev::Device};

/// Drives a Xen guest's PV block device from user space.
///
/// The guest's disk is connected for the time of one command and closed again afterwards, also when the command fails or is
/// stopped by SIGINT or SIGTERM.
#[derive(Debug, Parser)]
#[command(name = "blkfront", version, after_help = EXIT_CODES)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) connection: Connection,
    #[command(subcommand)]
    pub(crate) command: Command,
}

const EXIT_CODES: &str = "\
Exit codes:
  0  everything was done
  1  an I/O, connection or file error, or stopped by a signal
  2  the command line makes no sense, or does not fit the disk
  3  copy --verify found a difference

Sizes take the suffixes k, M, G and T (powers of 1024) and s (512-byte sectors).";

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    #[command(flatten)]
    Disk(DiskCommand),
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

/// What to do with the disk.
#[derive(Debug, Subcommand)]
pub(crate) enum DiskCommand {
    /// Show the disk's capabilities and what both ends negotiated
    Info(info::Args),
    /// Write a range of the disk to standard output or a file
    Read(range::ReadArgs),
    /// Write standard input or a file to a range of the disk
    ///
    /// Sectors that the range covers only in part keep their other bytes. What was written is durable at the end.
    Write(range::WriteArgs),
    /// Copy an image file into or out of the disk
    ///
    /// Holes of a sparse image become zeroes on the disk: the disk is read there, and zeroes are written where it holds
    /// something else. Zeroes on the disk become holes of the image. A copy that fails or is stopped leaves
    /// IMAGE.blkfront-resume beside the image, with which --resume goes on.
    Copy(copy::Args),
    /// Measure IOPS, throughput, latency and CPU cost
    ///
    /// Each queue (--queues) is driven by a thread of its own. The CPU cost is this process's alone.
    Bench(bench::Args),
    /// Serve the disk as an NBD export on a Unix socket
    ///
    /// Prints the export's address when it is ready, and serves until SIGINT or SIGTERM, upon which it answers what was
    /// asked, hangs up and closes the disk. Clients are spread over the queues (--queues), one thread each.
    Nbd(nbd::Args),
}

/// Which disk, and how to connect to it.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Connection")]
pub(crate) struct Connection {
    /// Which Xen to use: `sim:DIR`, a simulated world, or `linux`, the Xen this Linux guest runs on
    #[arg(long, global = true, env = "BLKFRONT_XEN", default_value = "linux", value_name = "WORLD")]
    pub(crate) xen: Xen,
    /// Which guest to be in a simulated world (its domain id)
    #[arg(long, global = true, default_value_t = 1, value_name = "DOMID")]
    pub(crate) domain: u16,
    /// The disk: a device number, a name such as xvda, or a XenStore path [default: the guest's only disk]
    #[arg(long, global = true, value_name = "DISK")]
    pub(crate) device: Option<Device>,
    /// Queues to ask for [default: 1]
    #[arg(long, global = true, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=64))]
    pub(crate) queues: Option<u32>,
    /// Pages of each queue's ring to ask for; rounded down to a power of two
    #[arg(long, global = true, default_value_t = 4, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=32))]
    pub(crate) ring_pages: u32,
    /// How to carry requests of more than 11 segments
    #[arg(long, global = true, value_enum, default_value_t = Segments::Auto)]
    pub(crate) segments: Segments,
    /// Most 4 KiB segments of one request
    #[arg(long, global = true, default_value_t = 256, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub(crate) max_segments: u32,
    /// Lend pages anew for every request
    #[arg(long, global = true)]
    pub(crate) no_persistent: bool,
    /// Layout of the ring's entries (for tests) [default: this machine's]
    #[arg(long, global = true, value_name = "ABI", value_parser = parse_abi)]
    pub(crate) abi: Option<Abi>,
    /// How long to look for answers before sleeping until an event; 0 sleeps at once
    #[arg(long, global = true, default_value_t = 300, value_name = "MICROSECONDS")]
    pub(crate) poll_us: u64,
    /// Record what the backend and this end do, in a new file in this folder, for `xensim replay`
    #[arg(long, global = true, value_name = "FOLDER")]
    pub(crate) record: Option<PathBuf>,
    /// Trace requests through all stages, and write that to this file at the end, for <https://ui.perfetto.dev>
    #[arg(long, global = true, value_name = "FILE", conflicts_with = "record")]
    pub(crate) trace: Option<PathBuf>,
    /// How long each step of connecting and closing may take
    #[arg(long, global = true, default_value_t = 30, value_name = "SECONDS")]
    pub(crate) timeout: u64,
}

impl Connection {
    /// The wishes for the connection; `queues` where the user named no number.
    pub(crate) fn config(&self, queues: u32) -> Config {
        Config {
            queues: self.queues.unwrap_or(queues),
            ring_pages: self.ring_pages,
            persistent: !self.no_persistent,
            segments: self.segments.into(),
            max_segments: self.max_segments,
            abi: self.abi.unwrap_or(Abi::NATIVE),
            timeout: Duration::from_secs(self.timeout),
            ..Config::default()
        }
    }

    /// How long to poll before sleeping.
    pub(crate) fn poll(&self) -> Duration {
        Duration::from_micros(self.poll_us)
    }
}

/// Which Xen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Xen {
    /// The hypervisor that this Linux guest runs on.
    Linux,
    /// A simulated world in a directory.
    Sim(PathBuf),
}

impl FromStr for Xen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            None if text == "linux" => Ok(Xen::Linux),
            Some(("sim", directory)) if !directory.is_empty() => Ok(Xen::Sim(directory.into())),
            _ => Err(format!("'{text}' is neither linux nor sim:DIR")),
        }
    }
}

/// How large requests are carried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Segments {
    /// Segment blocks where both ends offer them, else indirect descriptors, else direct
    Auto,
    /// Never more than 11 segments
    Direct,
    /// Indirect descriptors or direct
    Indirect,
    /// Segment blocks or direct
    Blocks,
}

impl From<Segments> for SegmentChoice {
    fn from(segments: Segments) -> Self {
        match segments {
            Segments::Auto => SegmentChoice::Auto,
            Segments::Direct => SegmentChoice::Direct,
            Segments::Indirect => SegmentChoice::Indirect,
            Segments::Blocks => SegmentChoice::Blocks,
        }
    }
}

/// Takes `x86_64-abi` as XenStore writes it, and `x86_64` for short.
fn parse_abi(text: &str) -> Result<Abi, String> {
    Abi::from_protocol(text)
        .or_else(|| Abi::from_protocol(&format!("{text}-abi")))
        .ok_or_else(|| format!("'{text}' is not an ABI: x86_32, x86_64 or arm"))
}

#[cfg(test)]
mod tests;
