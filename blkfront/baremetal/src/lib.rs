//! What a guest does that is nothing but our frontend. `main.rs` boots it on Xen; here is what it does then, over any
//! [world](xen_platform::FrontWorld).
//!
//! ```text
//! command line ─▶ command ─▶ disk: find, connect ─▶ info, verify, bench, sum, soak ─▶ close
//!                                  ▲                        │
//!                                  └── wait, look after ────┘    pattern ─▶ disk ─▶ pattern
//! ```
//!
//! The command line is a command and options, `NAME=VALUE` each; see [`command`]. What comes of it is lines of text.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

mod bench;
mod buffers;
pub mod command;
mod disk;
mod extent;
mod info;
mod pattern;
mod soak;
mod sum;
#[cfg(test)]
mod tests;
mod verify;

use alloc::string::String;
use core::{error::Error, fmt};

use xen_platform::{
    FrontWorld, StoreError,
    bare::{BootError, World},
};

use command::{Command, Order};

/// A world whose guest can be saved and restored.
pub trait Guest: FrontWorld + Clone {
    /// As [`World::suspend`].
    fn suspend(&self) -> Result<bool, BootError>;
}

impl Guest for World {
    fn suspend(&self) -> Result<bool, BootError> {
        World::suspend(self)
    }
}

/// Why it was not done.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Failure {
    /// The command line makes no sense.
    #[error("{0}")]
    Order(#[from] command::OrderError),
    /// XenStore does not say what there is.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The toolstack gave the guest no such disk.
    #[error("no disk in {0}")]
    NoDisk(&'static str),
    /// The disk cannot be connected or closed.
    #[error(transparent)]
    Device(#[from] blkfront::Error),
    /// The connection broke.
    #[error(transparent)]
    Queue(#[from] blkfront::DeviceError),
    /// The frontend did not take an I/O.
    #[error("sector {sector}: {reason}")]
    Rejected {
        /// Its first sector.
        sector: u64,
        /// Why.
        reason: blkfront::RejectReason,
    },
    /// An I/O failed.
    #[error("sector {sector}: {error}")]
    Io {
        /// Its first sector.
        sector: u64,
        /// How.
        error: blkfront::IoError,
    },
    /// The disk does not hold what was written, or a buffer what it should.
    #[error("byte {byte} of sector {sector}: {found:#04x} instead of {wanted:#04x}")]
    Differs {
        /// The sector, or the first one of an I/O in whose buffer it is.
        sector: u64,
        /// Which byte of it.
        byte: usize,
        /// What was written.
        wanted: u8,
        /// What is there.
        found: u8,
    },
    /// A completion of nothing that is under way.
    #[error("completion {cookie} is of no I/O under way")]
    Stray {
        /// What it claims to be.
        cookie: u64,
    },
    /// An I/O, or its buffer, that did not come back.
    #[error("I/O {cookie} did not come back whole")]
    Lost {
        /// Its number.
        cookie: u64,
    },
    /// The backend is gone, and did not come back in time.
    #[error("the backend is gone")]
    Gone,
    /// The tool stack detaches the disk.
    #[error("the disk is being taken away")]
    TakenAway,
    /// The guest was saved, and cannot go on.
    #[error("suspended: {0}")]
    Suspended(#[from] BootError),
    /// The backend did not follow when the disk was closed.
    #[error("closing: {0}")]
    NotClosed(String),
    /// The disk cannot take the load that is to be measured.
    #[error(transparent)]
    Unfit(#[from] blkfront_bench::Unfit),
    /// Measuring failed.
    #[error(transparent)]
    Bench(#[from] blkfront_bench::Failure),
    /// The backend does not answer.
    #[error("no answer within {seconds} s")]
    TimedOut {
        /// How long it was waited for.
        seconds: u64,
    },
    /// There is not even memory for one I/O.
    #[error(transparent)]
    Memory(#[from] xen_platform::GrantError),
}

impl Failure {
    fn rejected(rejected: &blkfront::Rejected) -> Self {
        Self::Rejected { sector: rejected.io.sector, reason: rejected.reason }
    }
}

/// Does what `line` says and tells `out`. True if all went well.
pub fn run<W: Guest>(world: &W, line: &str, out: &mut impl fmt::Write) -> bool {
    let done = Order::parse(line).map_err(Failure::from).and_then(|order| obey(world, &order, out));
    // Whoever reads `out` sees what is missing.
    let _ = match &done {
        Ok(()) => writeln!(out, "done"),
        Err(failure) => writeln!(out, "failed: {}", Chain(failure)),
    };
    done.is_ok()
}

/// An error with all its causes.
struct Chain<'a>(&'a Failure);

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut error: &dyn Error = self.0;
        while let Some(source) = error.source() {
            write!(f, ": {source}")?;
            error = source;
        }
        Ok(())
    }
}

fn obey<W: Guest>(world: &W, order: &Order, out: &mut impl fmt::Write) -> Result<(), Failure> {
    let path = disk::path(world, order.device)?;
    match order.command {
        Command::Info => info::run(world, &path, order, out),
        Command::Verify => verify::run(world, &path, order, out),
        Command::Bench => bench::run(world, &path, order, out),
        Command::Sum => sum::run(world, &path, order, out),
        Command::Soak => soak::run(world, &path, order, out),
        #[expect(clippy::panic, reason = "what was ordered")]
        Command::Panic => panic!("as ordered"),
    }
}
