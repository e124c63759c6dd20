//! `kills`: the kill campaign.

use std::{io::IsTerminal as _, process::ExitCode};

use anyhow::Result;
use indicatif::{ProgressBar, ProgressStyle};
use tests::{
    kills::{Campaign, Files, LONGEST},
    world::Binaries,
};

/// Arguments of `kills`.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// How often the daemon is killed
    #[arg(long, default_value_t = 1000)]
    kills: u32,
    /// From which requests and times follow [default: another each time]
    #[arg(long)]
    seed: Option<u64>,
}

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let seed = args.seed.unwrap_or_else(|| u64::from(std::process::id()) << 20 | u64::from(args.kills));
    println!("seed {seed}");
    let bar = ProgressBar::new(args.kills.into())
        .with_style(ProgressStyle::with_template("{bar:40} {pos}/{len} kills")?);
    if !std::io::stderr().is_terminal() {
        bar.set_draw_target(indicatif::ProgressDrawTarget::hidden());
    }
    // The daemon of a build without debug assertions cannot be told to die at a step.
    let steps = cfg!(debug_assertions);
    let campaign =
        Campaign { kills: args.kills, seed, longest: LONGEST, steps, binaries: Binaries::build()? };
    let report = campaign.run(&Files, |kills| bar.set_position(kills.into()))?;
    bar.finish_and_clear();
    println!("{report}");
    Ok(ExitCode::SUCCESS)
}
