//! `nbd`: an export of `nbdkit`, against `fio` with libnbd.

use std::{fs, path::PathBuf, process::ExitCode, time::Duration};

use anyhow::{Context as _, Result, bail};
use tests::{
    bench::{
        fio::{Line, text},
        job::Span,
        nbd::Nbd,
    },
    world::{Binaries, interrupted},
};

/// Arguments of `nbd`.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// Size of the disk, in MiB
    #[arg(long, default_value_t = 512, value_name = "MIB")]
    size: u64,
    /// Rounds; medians are reported
    #[arg(long, default_value_t = 5, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Length of one measurement, after a warm-up of a quarter of it
    #[arg(long, default_value_t = 2.0, value_name = "SECONDS")]
    seconds: f64,
    /// How the backend's data reaches the guest's pages: copy, persistent or direct
    #[arg(long, default_value = "persistent", value_name = "STRATEGY")]
    strategy: String,
    /// Where the result goes: nbd.json
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
    let mut nbd = Nbd::start(Binaries::build()?, args.size, &args.strategy)?;
    for _ in 0..args.rounds {
        if interrupted() {
            bail!("interrupted");
        }
        nbd.round(span)?;
    }
    let lines = nbd.lines();
    nbd.stop()?;
    println!(
        "Medians of {} rounds of {} s each; one nbdkit on this machine, a Unix socket, a disk in its memory.\n\n{}",
        args.rounds,
        args.seconds,
        text("NBD", &lines)
    );
    fs::create_dir_all(&args.output).with_context(|| format!("cannot make {}", args.output.display()))?;
    fs::write(args.output.join("nbd.json"), serde_json::to_vec_pretty(&lines)?)?;
    let met = lines.iter().all(Line::is_met);
    Ok(if met { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
