//! `info`: what the disk can do and what was negotiated.

use blkfront::{BackendInfo, Capabilities, Negotiated};
use blkfront_bench::Connection;
use indicatif::BinaryBytes;
use serde::Serialize;

use crate::{
    connect::{Disk, World},
    say,
};

/// Arguments of `info`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Prints what is known of a connected disk.
pub(crate) fn run<W: World>(args: &Args, disk: &Disk<W>) -> anyhow::Result<()> {
    let report = Report::new(disk.device.info(), &disk.capabilities(), disk.negotiated());
    say::line(if args.json { serde_json::to_string_pretty(&report)? } else { report.text() })
}

/// All of it, in the units its names tell; others are bytes.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    frontend: String,
    backend: String,
    backend_domain: u16,
    virtual_device: Option<u32>,
    trusted: bool,
    bytes: u64,
    sector_size: u32,
    physical_sector_size: u32,
    alignment: u32,
    read_only: bool,
    removable: bool,
    cdrom: bool,
    flush: bool,
    barrier: bool,
    discard: Option<Discard>,
    negotiated: Connection,
}

#[derive(Debug, Serialize)]
struct Discard {
    granularity: u32,
    alignment: u32,
    secure: bool,
}

impl Report {
    fn new(info: &BackendInfo, disk: &Capabilities, negotiated: &Negotiated) -> Self {
        Self {
            frontend: info.frontend.clone(),
            backend: info.backend.clone(),
            backend_domain: info.domain.0,
            virtual_device: info.virtual_device,
            trusted: info.trusted,
            bytes: disk.bytes(),
            sector_size: disk.sector_size,
            physical_sector_size: disk.physical_sector_size,
            alignment: disk.alignment,
            read_only: disk.read_only,
            removable: disk.removable,
            cdrom: disk.cdrom,
            flush: disk.flush,
            barrier: disk.barrier,
            discard: disk.discard.map(|discard| Discard {
                granularity: discard.granularity,
                alignment: discard.alignment,
                secure: discard.secure,
            }),
            negotiated: negotiated.into(),
        }
    }

    fn text(&self) -> String {
        let yes_no = |yes| if yes { "yes" } else { "no" };
        let n = &self.negotiated;
        let mut lines = vec![
            ("frontend", self.frontend.clone()),
            ("backend", format!("{} (domain {})", self.backend, self.backend_domain)),
            ("size", format!("{} ({} bytes)", BinaryBytes(self.bytes), self.bytes)),
            ("sector size", format!("{} bytes, physically {}", self.sector_size, self.physical_sector_size)),
            ("read-only", yes_no(self.read_only).into()),
            ("flush", yes_no(self.flush).into()),
            ("barrier", yes_no(self.barrier).into()),
            ("discard", self.discard.as_ref().map_or("no".into(), Discard::text)),
            (
                "kind",
                format!(
                    "{}{}",
                    if self.removable { "removable " } else { "" },
                    if self.cdrom { "CD-ROM" } else { "disk" }
                ),
            ),
            ("protocol", n.abi.clone()),
            (
                "queues",
                format!("{} of {} ring page(s), {} entries each", n.queues, n.ring_pages, n.ring_entries),
            ),
            (
                "requests",
                format!(
                    "{}, {} segments, {}; {} in flight per queue",
                    n.segments,
                    n.max_segments,
                    BinaryBytes(n.max_request_bytes.into()),
                    n.max_requests
                ),
            ),
            ("grants", if n.persistent { "persistent" } else { "per request" }.into()),
        ];
        lines.extend(n.reductions.iter().map(|r| {
            ("reduced", format!("{}: wanted {}, offered {}, using {}", r.key, r.wanted, r.offered, r.used))
        }));
        lines.iter().map(|(name, value)| format!("{name:<12} {value}")).collect::<Vec<_>>().join("\n")
    }
}

impl Discard {
    fn text(&self) -> String {
        let secure = if self.secure { ", also securely" } else { "" };
        format!("in units of {} bytes from byte {}{secure}", self.granularity, self.alignment)
    }
}
