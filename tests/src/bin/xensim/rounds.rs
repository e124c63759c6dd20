//! What the measurements have in common: rounds of one length, medians, and a file for the result.

use std::{fs, path::PathBuf, process::ExitCode, time::Duration};

use anyhow::{Context as _, Result, bail};
use serde::Serialize;
use tests::{bench::job::Span, world::interrupted};

/// How often, how long, and where the result goes.
#[derive(clap::Args, Debug)]
pub(crate) struct Rounds {
    /// Rounds; medians are reported
    #[arg(long, default_value_t = 7, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Length of one measurement, after a warm-up of a quarter of it
    #[arg(long, default_value_t = 2.0, value_name = "SECONDS", value_parser = seconds)]
    seconds: f64,
    /// Folder for the result, a JSON file named after the command
    #[arg(long, default_value = "target/xensim", value_name = "FOLDER")]
    output: PathBuf,
}

fn seconds(text: &str) -> Result<f64, String> {
    text.parse().ok().filter(|seconds| (0.01..=3600.0).contains(seconds)).ok_or("from 0.01 to 3600".into())
}

impl Rounds {
    /// Measures in every round. Errors: the measurement's, or that the user wants no more.
    pub(crate) fn run(&self, mut measure: impl FnMut(Span) -> Result<()>) -> Result<()> {
        let span = Span {
            warm_up: Duration::from_secs_f64(self.seconds / 4.0),
            measure: Duration::from_secs_f64(self.seconds),
        };
        for _ in 0..self.rounds {
            if interrupted() {
                bail!("interrupted");
            }
            measure(span)?;
        }
        Ok(())
    }

    /// Prints the result with what was `measured`, and writes its `lines` to the file of this `name`. Fails, as a program, unless the
    /// promises were `kept`.
    pub(crate) fn report<L: Serialize>(
        &self,
        name: &str,
        measured: &str,
        text: &str,
        lines: &[L],
        kept: impl FnMut(&L) -> bool,
    ) -> Result<ExitCode> {
        println!("Medians of {} rounds of {} s each; {measured}.\n\n{text}", self.rounds, self.seconds);
        let output = &self.output;
        fs::create_dir_all(output).with_context(|| format!("cannot make {}", output.display()))?;
        fs::write(output.join(format!("{name}.json")), serde_json::to_vec_pretty(lines)?)?;
        Ok(if lines.iter().all(kept) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}
