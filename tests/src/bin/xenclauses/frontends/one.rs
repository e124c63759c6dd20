//! One clause about a guest's own driver.

use std::{process::ExitCode, time::Duration};

use anyhow::{Context as _, Result};
use blkif_proto::Abi;
use tests::conformance::{
    Clause, frontend,
    rig::{
        Pace, Processes,
        backend::{
            Backend,
            stock::{Guest, UsedUp},
        },
    },
};
use xen_platform::{DomId, FrontWorld as _, linux};

use crate::{
    child::NO_PEER,
    verdict::{Outcome, Verdict},
};

/// Arguments of `frontend`.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    clause: String,
    domain: u16,
    /// Index of the disk that the guest is given
    disk: u8,
    /// Seconds
    #[arg(long)]
    patience: u64,
}

/// Every clause that there is.
pub(crate) fn clauses() -> Vec<Clause<Backend<linux::World>>> {
    frontend::clauses(Processes::One)
}

/// Clauses, or areas of them, after which Linux is known not to let go of the disk, and in the end of none; in this order.
const COSTLY: [&str; 7] = [
    "sizes.indirect-inner-or-6",
    "hostile.",
    "xenbus.backend-gone",
    "xenbus.closing-is-served",
    "disk.",
    "xenbus.earlier-driver",
    "xenbus.never-resurrects",
];

/// What a clause costs the guest, to be compared with others.
pub(crate) fn cost(clause: &str) -> usize {
    COSTLY.iter().position(|costly| clause.starts_with(costly)).map_or(0, |n| n + 1)
}

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let patience = Duration::from_secs(args.patience);
    Pace { patience, silence: patience / 10 }.set();
    let clause = clauses().into_iter().find(|clause| clause.name == args.clause).context("no such clause")?;
    let mut store = linux::World::for_backend()?.store()?;
    let opened = Guest::new(&mut store, DomId(args.domain), args.disk).and_then(Backend::attach);
    let mut backend = match opened {
        Ok(backend) => backend,
        Err(error) => return Ok(no_guest(&error)),
    };
    let checked = (clause.check)(&mut backend);
    if let Err(error) = &checked
        && error.is::<UsedUp>()
    {
        return Ok(no_guest(error));
    }
    let words = backend.last_words();
    let mut outcome = Outcome::of(clause.name, Abi::NATIVE, checked);
    if outcome.verdict == Verdict::Differs && !words.is_empty() {
        outcome.observation += &format!("; its kernel said: {words}");
    }
    if let Err(error) = backend.detach() {
        eprintln!("{}: the guest keeps the disk: {error:#}", clause.name);
    }
    println!("{outcome}");
    Ok(ExitCode::SUCCESS)
}

fn no_guest(error: &anyhow::Error) -> ExitCode {
    eprintln!("guest: {error:#}");
    ExitCode::from(NO_PEER)
}
