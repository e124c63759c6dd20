//! Clauses about a backend, from a guest: one after the other on the guest's disk, each in a process of its own.
//!
//! A process that is killed takes its ports and grants along, so that a clause that hangs costs no more than its time. When the
//! disk does not come back to state 2 the guest has done what it can; another one may go on from there.

pub(crate) mod one;

use std::{process::ExitCode, time::Duration};

use anyhow::{Result, ensure};
use blkif_proto::Abi;

use crate::{
    child::{self, NO_PEER},
    device,
    verdict::Outcome,
};

/// Arguments of `backends`.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// Only clauses whose names begin with one of these
    #[arg(value_name = "CLAUSE")]
    clauses: Vec<String>,
    /// In this ABI, instead of the guest's own
    #[arg(long = "abi", value_name = "ABI", value_parser = one::abi)]
    abis: Vec<Abi>,
    /// Leave out so many, which another guest has done
    #[arg(long, default_value_t = 0)]
    skip: usize,
    /// Seconds that a clause may take
    #[arg(long, default_value_t = 60)]
    limit: u64,
    /// Seconds after which a backend that does not answer is taken to say nothing
    #[arg(long, default_value_t = 3)]
    patience: u64,
}

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let disk = device::number()?;
    for (clause, abi) in args.wanted()? {
        match args.check(clause, abi, disk)? {
            Some(outcome) => println!("{outcome}"),
            None => return Ok(ExitCode::from(NO_PEER)),
        }
    }
    Ok(ExitCode::SUCCESS)
}

impl Args {
    /// Names and ABIs.
    fn wanted(&self) -> Result<Vec<(&'static str, Abi)>> {
        let named =
            |name: &str| self.clauses.is_empty() || self.clauses.iter().any(|it| name.starts_with(it));
        let clauses = one::clauses().into_iter().filter(|clause| named(clause.name));
        let spoken = |abi: &&Abi| self.abis.is_empty() && **abi == Abi::NATIVE || self.abis.contains(abi);
        let mut wanted: Vec<_> = clauses
            .flat_map(|clause| clause.abis.iter().filter(spoken).map(move |abi| (clause.name, *abi)))
            .collect();
        ensure!(!wanted.is_empty(), "no such clause");
        Ok(wanted.split_off(self.skip.min(wanted.len())))
    }

    /// Runs one clause. `None`: the disk is not to be had any more.
    fn check(&self, clause: &str, abi: Abi, disk: u32) -> Result<Option<Outcome>> {
        let (disk, patience) = (disk.to_string(), self.patience.to_string());
        let arguments = ["backend", clause, abi.as_protocol(), &disk, "--patience", &patience];
        child::run(&arguments, clause, abi, Duration::from_secs(self.limit))
    }
}
