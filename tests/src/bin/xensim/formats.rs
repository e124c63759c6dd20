//! `formats`: images of formats of their own, against QEMU's daemon.

use std::{fs, process::ExitCode};

use anyhow::Result;
use tests::{
    bench::formats::{Formats, Line, text},
    world::Binaries,
};

use crate::{image, rounds::Rounds};

/// Arguments of `formats`.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// Size of the disk, in MiB
    #[arg(long, default_value_t = 512, value_name = "MIB")]
    size: u64,
    #[command(flatten)]
    rounds: Rounds,
}

/// Fails when the promise is broken.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let scratch = tempfile::Builder::new().prefix("xensim-formats-").tempdir()?;
    let full = scratch.path().join("full.img");
    image::make_full(&full, args.size << 20)?;
    let mut formats = Formats::start(Binaries::build()?, &full, scratch.path())?;
    fs::remove_file(&full)?;
    args.rounds.run(|span| formats.round(span))?;
    let lines = formats.lines();
    formats.stop()?;
    let measured = "all clusters allocated and in the page cache";
    args.rounds.report("formats", measured, &text(&lines), &lines, Line::is_met)
}
