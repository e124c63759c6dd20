//! `nbd`: an export of `nbdkit`, against `fio` with libnbd.

use std::process::ExitCode;

use anyhow::Result;
use tests::{
    bench::{
        fio::{Line, text},
        nbd::Nbd,
    },
    world::Binaries,
};

use crate::rounds::Rounds;

/// Arguments of `nbd`.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// Size of the disk, in MiB
    #[arg(long, default_value_t = 512, value_name = "MIB")]
    size: u64,
    /// How the backend's data reaches the guest's pages: copy, persistent or direct
    #[arg(long, default_value = "persistent", value_name = "STRATEGY")]
    strategy: String,
    #[command(flatten)]
    rounds: Rounds,
}

/// Fails when the promise is broken.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let mut nbd = Nbd::start(Binaries::build()?, args.size, &args.strategy)?;
    args.rounds.run(|span| nbd.round(span))?;
    let lines = nbd.lines();
    nbd.stop()?;
    let measured = "one nbdkit on this machine, a Unix socket, a disk in its memory";
    args.rounds.report("nbd", measured, &text("NBD", &lines), &lines, Line::is_met)
}
