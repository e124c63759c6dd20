//! `formats`: images of formats of their own, against QEMU's daemon.

use std::{fs, path::PathBuf, process::ExitCode, time::Duration};

use anyhow::{Context as _, Result, bail};
use tests::{
    bench::{
        formats::{Formats, Line, text},
        job::Span,
    },
    world::{Binaries, interrupted},
};

use crate::image;

/// Arguments of `formats`.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// Size of the disk, in MiB
    #[arg(long, default_value_t = 512, value_name = "MIB")]
    size: u64,
    /// Rounds; medians are reported
    #[arg(long, default_value_t = 5, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Length of one measurement, after a warm-up of a quarter of it
    #[arg(long, default_value_t = 1.0, value_name = "SECONDS")]
    seconds: f64,
    /// Where the result goes: formats.json
    #[arg(long, default_value = "target/xensim", value_name = "FOLDER")]
    output: PathBuf,
}

/// Fails when the promise is broken.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    if !(0.01..=3600.0).contains(&args.seconds) {
        bail!("--seconds is from 0.01 to 3600");
    }
    let span = Span {
        warm_up: Duration::from_secs_f64(args.seconds / 4.0),
        measure: Duration::from_secs_f64(args.seconds),
    };
    let scratch = tempfile::Builder::new().prefix("xensim-formats-").tempdir()?;
    let full = scratch.path().join("full.img");
    image::make_full(&full, args.size << 20)?;
    let mut formats = Formats::start(Binaries::build()?, &full, scratch.path())?;
    fs::remove_file(&full)?;
    for _ in 0..args.rounds {
        if interrupted() {
            bail!("interrupted");
        }
        formats.round(span)?;
    }
    let lines = formats.lines();
    formats.stop()?;
    println!(
        "Medians of {} rounds of {} s each, all clusters allocated and in the page cache.\n\n{}",
        args.rounds,
        args.seconds,
        text(&lines)
    );
    fs::create_dir_all(&args.output).with_context(|| format!("cannot make {}", args.output.display()))?;
    fs::write(args.output.join("formats.json"), serde_json::to_vec_pretty(&lines)?)?;
    let met = lines.iter().all(Line::is_met);
    Ok(if met { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
