//! `replay`: a recording, played again to one end, and made smaller if that does not do as recorded.

use std::{path::PathBuf, process::ExitCode, time::Duration};

use anyhow::{Context as _, Result};
use blkif_observe::recording::{End, Recording};
use clap::ValueEnum;
use tests::replay::{self, PATIENCE, Script};

/// Arguments of `replay`.
#[derive(clap::Args, Debug)]
#[command(after_help = EXIT_CODES)]
pub(crate) struct Args {
    /// What `blkback --record`, `blkfront --record` or `xensim run --record` has written
    recording: PathBuf,
    /// The device, as the recording names it: GUEST/NUMBER [default: the only one]
    #[arg(long, value_name = "DEVICE")]
    device: Option<String>,
    /// The end that is real; the other one is played [default: the one that has recorded]
    #[arg(long, value_enum, value_name = "END")]
    against: Option<Against>,
    /// Leave out what does not matter, for as long as it differs in the same way
    #[arg(long, requires = "out")]
    minimise: bool,
    /// Where the smaller recording goes
    #[arg(long, requires = "minimise", value_name = "FILE")]
    out: Option<PathBuf>,
    /// How long the real end may take for anything
    #[arg(long, value_name = "MILLISECONDS")]
    patience: Option<u64>,
}

const EXIT_CODES: &str = "\
Exit codes:
  0  the real end does as recorded
  1  it does not, or there is no such recording";

/// Of which many are waited for.
const IMPATIENCE: Duration = Duration::from_millis(500);

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Against {
    Backend,
    Frontend,
}

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let recording = Recording::load(&args.recording)?;
    let device = replay::device(&recording, args.device.as_deref())?;
    let end = match args.against {
        None => recording.header.end,
        Some(Against::Backend) => End::Backend,
        Some(Against::Frontend) => End::Frontend,
    };
    let script = Script::of(&recording, device);
    let events = |recording: &Recording| recording.entries.len();
    println!("recorded  {device}, {} events, {} requests", events(&recording), script.requests());
    let given = args.patience.map(Duration::from_millis);
    let play = |script: &Script, patience| replay::play(script, end, given.unwrap_or(patience));
    let Some(difference) = play(&script, PATIENCE)? else {
        println!("replayed  the real {end:?} does as recorded");
        return Ok(ExitCode::SUCCESS);
    };
    println!("differs   {difference}");
    if let Some(out) = &args.out {
        let smaller = replay::minimise(&script, end, |script| play(script, IMPATIENCE))?;
        let recording = smaller.script.record();
        recording.save(out).with_context(|| format!("cannot write {}", out.display()))?;
        let (events, requests) = (events(&recording), smaller.script.requests());
        println!("minimised {events} events, {requests} requests, after {} plays", smaller.plays);
        println!("differs   {}", smaller.difference);
    }
    Ok(ExitCode::FAILURE)
}
