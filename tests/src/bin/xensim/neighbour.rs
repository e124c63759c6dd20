//! `neighbour`: whether a hostile guest slows down the one beside it.

use std::{fs, path::PathBuf, process::ExitCode, time::Duration};

use anyhow::{Context as _, Result, bail};
use tests::{
    bench::{
        job::Span,
        neighbour::{JOBS, Neighbour, Street, text},
    },
    world::{Binaries, interrupted},
};

/// Arguments of `neighbour`.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// Rounds; medians are reported
    #[arg(long, default_value_t = 7, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Length of one measurement, after a warm-up of a quarter of it
    #[arg(long, default_value_t = 1.0, value_name = "SECONDS")]
    seconds: f64,
    /// Where the result goes: neighbour.json
    #[arg(long, default_value = "target/xensim", value_name = "FOLDER")]
    output: PathBuf,
}

/// Fails when the innocent guest is slowed down by more than a tenth.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    if !(0.01..=3600.0).contains(&args.seconds) {
        bail!("--seconds is from 0.01 to 3600");
    }
    let span = Span {
        warm_up: Duration::from_secs_f64(args.seconds / 4.0),
        measure: Duration::from_secs_f64(args.seconds),
    };
    let mut street = Street::start(Binaries::build()?)?;
    for _ in 0..args.rounds {
        for (job, neighbour) in JOBS.iter().flat_map(|job| Neighbour::ALL.map(|neighbour| (job, neighbour))) {
            if interrupted() {
                bail!("interrupted");
            }
            street.sample(neighbour, job, span).with_context(|| format!("beside one that {neighbour}"))?;
        }
    }
    let lines = street.lines();
    street.stop()?;
    println!(
        "Medians of {} rounds of {} s each; both guests on one thread of the daemon, null disks.\nAttacks made of requests are held \
         against a neighbour that reads, others against one that computes.\n\n{}",
        args.rounds,
        args.seconds,
        text(&lines)
    );
    fs::create_dir_all(&args.output).with_context(|| format!("cannot make {}", args.output.display()))?;
    fs::write(args.output.join("neighbour.json"), serde_json::to_vec_pretty(&lines)?)?;
    let met = lines.iter().all(tests::bench::neighbour::Line::is_met);
    Ok(if met { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
