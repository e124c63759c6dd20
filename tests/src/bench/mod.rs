//! The pair against its ceiling and its peer, in one run on one machine.
//!
//! ```text
//!   raw io_uring            one process            file
//!   qemu-storage-daemon     blkio ══ vhost-user ══ file, null-co
//!   our pair             blkfront ══ blkif ring ══ file, null
//! ```
//!
//! A run goes round by round through all rows ([`rows`]), so that whatever else the machine does falls on all contenders
//! alike; medians of the rounds are reported ([`table`]), and held against the promises ([`targets`]). All contenders read
//! the same page-cached file with the same sizes and depths, and stamp time once per batch.

pub mod fio;
pub mod formats;
pub mod job;
pub mod limits;
pub mod meter;
pub mod nbd;
pub mod neighbour;
pub mod pair;
pub mod plot;
pub mod processors;
pub mod qemu;
pub mod raw;
pub mod rbd;
pub mod table;
pub mod targets;

use std::path::Path;

use anyhow::{Context as _, Result};

use self::{
    job::{Job, Sample, Span},
    pair::Pair,
    qemu::{Daemon, Wait},
    table::{Contender, Row, Storage},
};
use crate::world::{Binaries, tuning::Tuning};

/// Which parts of the comparison to run.
#[derive(Clone, Copy, Debug)]
pub struct Parts {
    /// `qemu-storage-daemon` takes part.
    pub qemu: bool,
    /// The depths between, for the plot.
    pub sweep: bool,
    /// Direct, indirect and segment-block requests against each other.
    pub modes: bool,
    /// The null storage.
    pub null: bool,
    /// The pair without its in-flight log.
    pub unlogged: bool,
    /// The pair with metrics, and limits that it never reaches.
    pub watched: bool,
}

/// Every row of a run, contenders of one job side by side.
pub fn rows(parts: Parts) -> Vec<Row> {
    use Contender::{
        Pair, PairBlocks, PairDirect, PairIndirect, PairUnlogged, PairWatched, Qemu, QemuPolled, Raw,
    };
    let mut rows = Vec::new();
    let mut add = |storage, job, whos: &[Contender]| {
        let wanted = |who: &&Contender| parts.qemu || !matches!(who, Qemu | QemuPolled);
        rows.extend(whos.iter().filter(wanted).map(|&who| Row { storage, job, who }));
    };
    let everyone = [Raw, Qemu, QemuPolled, Pair];
    for depth in [1, 2, 4, 8, 16, 32, 64, 128] {
        if parts.sweep || [1, 32].contains(&depth) {
            add(Storage::File, Job::random(4096, depth), &everyone);
        }
        if parts.unlogged && depth == 32 {
            add(Storage::File, Job::random(4096, depth), &[PairUnlogged]);
        }
        if parts.watched && [1, 32].contains(&depth) {
            add(Storage::File, Job::random(4096, depth), &[PairWatched]);
        }
    }
    for job in [Job::random(64 << 10, 32), Job::sequential(1 << 20, 8)] {
        add(Storage::File, job, &everyone);
        if parts.modes {
            add(Storage::File, job, &[PairDirect, PairIndirect, PairBlocks]);
        }
    }
    if parts.null {
        for depth in [1, 32, 128] {
            add(Storage::Null, Job::random(4096, depth), &[Qemu, QemuPolled, Pair]);
            if parts.unlogged && depth == 32 {
                add(Storage::Null, Job::random(4096, depth), &[PairUnlogged]);
            }
            if parts.watched && depth == 32 {
                add(Storage::Null, Job::random(4096, depth), &[PairWatched]);
            }
        }
    }
    rows
}

/// Everything that is measured, up and running.
#[derive(Debug)]
pub struct Bench<'a> {
    image: &'a Path,
    qemu: Option<[Daemon; 2]>,
    pair: Pair,
    unlogged: Option<Pair>,
    watched: Option<Pair>,
    span: Span,
}

impl<'a> Bench<'a> {
    /// Starts the servers on `image`.
    pub fn start(
        binaries: Binaries,
        image: &'a Path,
        parts: Parts,
        tuning: Tuning,
        span: Span,
    ) -> Result<Self> {
        let bytes = image.metadata().with_context(|| format!("cannot open {}", image.display()))?.len();
        let qemu = match parts.qemu {
            true => Some([Daemon::start(qemu::Disk::File(image))?, Daemon::start(qemu::Disk::Null(bytes))?]),
            false => None,
        };
        let unlogged = match parts.unlogged {
            true => {
                let tuning = Tuning { no_recovery: true, ..tuning.clone() };
                Some(Pair::start(binaries.clone(), image, bytes, tuning)?)
            }
            false => None,
        };
        let watched = match parts.watched {
            true => {
                let tuning = Tuning { watched: true, ..tuning.clone() };
                Some(Pair::start(binaries.clone(), image, bytes, tuning)?)
            }
            false => None,
        };
        Ok(Self { image, qemu, pair: Pair::start(binaries, image, bytes, tuning)?, unlogged, watched, span })
    }

    /// Runs one row once.
    pub fn sample(&mut self, row: &Row) -> Result<Sample> {
        let Row { storage, job, who } = row;
        let wait = match who {
            Contender::Raw => return raw::run(self.image, job, self.span),
            Contender::Qemu => Wait::Event,
            Contender::QemuPolled => Wait::Poll,
            Contender::PairWatched => {
                let pair = self.watched.as_mut().context("the pair that is watched is left out")?;
                return pair.run(job, *storage, *who, self.span);
            }
            Contender::PairUnlogged => {
                let pair = self.unlogged.as_mut().context("the pair without a log is left out")?;
                return pair.run(job, *storage, *who, self.span);
            }
            _ => return self.pair.run(job, *storage, *who, self.span),
        };
        let [file, null] = self.qemu.as_ref().context("qemu-storage-daemon is left out")?;
        let daemon = match storage {
            Storage::File => file,
            Storage::Null => null,
        };
        daemon.run(job, wait, self.span)
    }

    /// Stops the servers.
    pub fn stop(self) -> Result<()> {
        self.unlogged.map_or(Ok(()), Pair::stop)?;
        self.watched.map_or(Ok(()), Pair::stop)?;
        self.pair.stop()
    }
}
