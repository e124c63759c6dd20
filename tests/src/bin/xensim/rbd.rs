//! `rbd`: an image of a Ceph cluster, against `fio` with librbd.

use std::process::ExitCode;

use anyhow::Result;
use tests::{
    bench::{
        fio::{Line, text},
        rbd::Rbd,
    },
    world::Binaries,
};

use crate::rounds::Rounds;

/// Arguments of `rbd`.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// Size of the image, in MiB
    #[arg(long, default_value_t = 256, value_name = "MIB")]
    size: u64,
    #[command(flatten)]
    rounds: Rounds,
}

/// Fails when the promise is broken.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let mut rbd = Rbd::start(Binaries::build()?, args.size)?;
    args.rounds.run(|span| rbd.round(span))?;
    let lines = rbd.lines();
    rbd.stop()?;
    let measured = "one monitor and one OSD on this machine, no cache";
    args.rounds.report("rbd", measured, &text("Ceph RBD", &lines), &lines, Line::is_met)
}
