//! `limits`: whether disks with limits do what they are allowed to.

use std::{fs, path::PathBuf, process::ExitCode, time::Duration};

use anyhow::{Context as _, Result, bail};
use tests::{
    bench::{
        job::Span,
        limits::{CASES, FAIR, Line, TARGET, measure, text},
    },
    world::{Binaries, interrupted},
};

/// Arguments of `limits`.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// Length of one measurement, after a warm-up of a tenth of it
    #[arg(long, default_value_t = 10.0, value_name = "SECONDS")]
    seconds: f64,
    /// Where the result goes: limits.json
    #[arg(long, default_value = "target/xensim", value_name = "FOLDER")]
    output: PathBuf,
}

/// Fails when a disk or group is too far from its limit, or a disk from its share.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    if !(0.1..=3600.0).contains(&args.seconds) {
        bail!("--seconds is from 0.1 to 3600");
    }
    let span = Span {
        warm_up: Duration::from_secs_f64(args.seconds / 10.0),
        measure: Duration::from_secs_f64(args.seconds),
    };
    let binaries = Binaries::build()?;
    let mut lines = Vec::new();
    for case in &CASES {
        if interrupted() {
            bail!("interrupted");
        }
        lines.push(measure(binaries.clone(), case, span).with_context(|| case.name)?);
    }
    let (seconds, target, fair) = (args.seconds, TARGET * 100.0, FAIR * 100.0);
    println!(
        "{seconds} s each; at most {target} % off the limit, {fair} % off an even share\n\n{}",
        text(&lines)
    );
    fs::create_dir_all(&args.output).with_context(|| format!("cannot make {}", args.output.display()))?;
    fs::write(args.output.join("limits.json"), serde_json::to_vec_pretty(&lines)?)?;
    Ok(if lines.iter().all(Line::is_met) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
