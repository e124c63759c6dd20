//! `rbd`: an image of a Ceph cluster, against `fio` with librbd.

use std::{fs, path::PathBuf, process::ExitCode, time::Duration};

use anyhow::{Context as _, Result, bail};
use tests::{
    bench::{
        fio::{Line, text},
        job::Span,
        rbd::Rbd,
    },
    world::{Binaries, interrupted},
};

/// Arguments of `rbd`.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// Size of the image, in MiB
    #[arg(long, default_value_t = 256, value_name = "MIB")]
    size: u64,
    /// Rounds; medians are reported
    #[arg(long, default_value_t = 5, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Length of one measurement, after a warm-up of a quarter of it
    #[arg(long, default_value_t = 2.0, value_name = "SECONDS")]
    seconds: f64,
    /// Where the result goes: rbd.json
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
    let mut rbd = Rbd::start(Binaries::build()?, args.size)?;
    for _ in 0..args.rounds {
        if interrupted() {
            bail!("interrupted");
        }
        rbd.round(span)?;
    }
    let lines = rbd.lines();
    rbd.stop()?;
    println!(
        "Medians of {} rounds of {} s each; one monitor and one OSD on this machine, no cache.\n\n{}",
        args.rounds,
        args.seconds,
        text("Ceph RBD", &lines)
    );
    fs::create_dir_all(&args.output).with_context(|| format!("cannot make {}", args.output.display()))?;
    fs::write(args.output.join("rbd.json"), serde_json::to_vec_pretty(&lines)?)?;
    let met = lines.iter().all(Line::is_met);
    Ok(if met { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
