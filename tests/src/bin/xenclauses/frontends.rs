//! Clauses about the block driver of a guest's own kernel, from dom0: one after the other, each on a disk and in a process of its own.
//!
//! A disk that the guest does not let go of is left to it. That may cost the guest, as its driver cannot be loaded anew any more.

pub(crate) mod one;

use std::{
    fs::{self, File},
    io::Write as _,
    path::PathBuf,
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context as _, Result};
use blkif_proto::Abi;
use tests::conformance::frontend::beyond_linux;

use crate::{
    child::{self, NO_PEER},
    verdict::{Outcome, Verdict},
};

/// Arguments of `frontends`.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// Number of the guest, which has no disks and runs the first process of tests/xen/guest
    #[arg(long)]
    domain: u16,
    /// Where the outcomes are put; clauses that have one there already are not put again
    #[arg(long)]
    outcomes: PathBuf,
    /// Only clauses whose names begin with one of these
    #[arg(value_name = "CLAUSE")]
    clauses: Vec<String>,
    /// Seconds that a clause may take
    #[arg(long, default_value_t = 120)]
    limit: u64,
    /// Seconds after which a frontend that does not answer is taken to say nothing; twice as much where it has to start first
    #[arg(long, default_value_t = 3)]
    patience: u64,
}

/// Puts the clauses until there are none, or the guest is of no further use (status 3).
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let mut outcomes = File::options().create(true).append(true).open(&args.outcomes)?;
    let mut disks = 0..;
    for (clause, abi) in args.wanted()? {
        let outcome = match beyond_linux(clause, abi) {
            Some(reason) => Outcome::new(clause, abi, Verdict::NotApplicable, reason),
            None => {
                let disk = disks.next().context("no disk is left")?;
                match args.check(clause, abi, disk)? {
                    Some(outcome) => outcome,
                    None if disk > 0 => return Ok(ExitCode::from(NO_PEER)),
                    None => Outcome::new(clause, abi, Verdict::NotRun, "not even a fresh guest will do"),
                }
            }
        };
        println!("{outcome}");
        writeln!(outcomes, "{outcome}")?;
    }
    Ok(ExitCode::SUCCESS)
}

impl Args {
    /// Names and ABIs, those last that cost the guest a disk.
    fn wanted(&self) -> Result<Vec<(&'static str, Abi)>> {
        let done: Vec<Outcome> =
            fs::read_to_string(&self.outcomes)?.lines().map(str::parse).collect::<Result<_>>()?;
        let is_done = |name: &str, abi| done.iter().any(|each| each.clause == name && each.abi == abi);
        let named = |name: &str| {
            self.clauses.is_empty() || self.clauses.iter().any(|prefix| name.starts_with(prefix.as_str()))
        };
        let clauses = one::clauses().into_iter().filter(|clause| named(clause.name));
        let all = clauses.flat_map(|clause| clause.abis.iter().map(move |abi| (clause.name, *abi)));
        let mut wanted: Vec<_> = all.filter(|(name, abi)| !is_done(name, *abi)).collect();
        wanted.sort_by_key(|(name, _)| one::cost(name));
        Ok(wanted)
    }

    /// Runs one clause. `None`: the guest will not do.
    fn check(&self, clause: &str, abi: Abi, disk: u8) -> Result<Option<Outcome>> {
        let (domain, disk, patience) = (self.domain.to_string(), disk.to_string(), self.patience.to_string());
        let arguments = ["frontend", clause, &domain, &disk, "--patience", &patience];
        child::run(&arguments, clause, abi, Duration::from_secs(self.limit))
    }
}
