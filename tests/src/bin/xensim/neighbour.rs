//! `neighbour`: whether a hostile guest slows down the one beside it.

use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use tests::{
    bench::neighbour::{JOBS, Line, Neighbour, Street, text},
    world::{Binaries, interrupted},
};

use crate::rounds::Rounds;

/// Arguments of `neighbour`.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    #[command(flatten)]
    rounds: Rounds,
}

/// Fails when the innocent guest is slowed down by more than a tenth.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let mut street = Street::start(Binaries::build()?)?;
    args.rounds.run(|span| {
        for (job, neighbour) in JOBS.iter().flat_map(|job| Neighbour::ALL.map(|neighbour| (job, neighbour))) {
            if interrupted() {
                bail!("interrupted");
            }
            street.sample(neighbour, job, span).with_context(|| format!("beside one that {neighbour}"))?;
        }
        Ok(())
    })?;
    let lines = street.lines();
    street.stop()?;
    let measured = "both guests on one thread of the daemon, null disks.\nAttacks made of requests are held against a \
                    neighbour that reads, others against one that computes";
    args.rounds.report("neighbour", measured, &text(&lines), &lines, Line::is_met)
}
