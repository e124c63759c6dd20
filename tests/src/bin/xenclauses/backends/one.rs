//! One clause about a backend, on one disk.

use std::{process::ExitCode, time::Duration};

use anyhow::{Context as _, Result};
use blkif_proto::{Abi, keys};
use tests::conformance::{
    Clause, backend,
    rig::{Guest, Pace, Wish},
};
use xen_platform::linux;

use crate::{
    child::NO_PEER,
    device,
    verdict::{Outcome, Verdict},
};

/// Arguments of `backend`.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    clause: String,
    #[arg(value_parser = abi)]
    abi: Abi,
    /// Device number
    disk: u32,
    /// Seconds
    #[arg(long)]
    patience: u64,
}

/// An ABI by the value of its `protocol` key.
pub(crate) fn abi(name: &str) -> Result<Abi, String> {
    Abi::from_protocol(name).ok_or_else(|| "x86_64-abi, x86_32-abi or arm-abi".to_owned())
}

/// Every clause that needs no more than a guest, in the order in which a disk is put to them.
pub(crate) fn clauses() -> Vec<Clause<Guest<linux::World>>> {
    let mut clauses: Vec<_> = backend::data().into_iter().chain(backend::control()).collect();
    // What a backend offers while it connects is there for good afterwards.
    clauses.sort_by_key(|clause| clause.name != "features.before-state-2");
    clauses
}

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let patience = Duration::from_secs(args.patience);
    Pace { patience, silence: patience / 10 }.set();
    let clause = clauses().into_iter().find(|clause| clause.name == args.clause).context("no such clause")?;
    let mut guest = match device::open(args.disk, args.abi) {
        Ok(guest) => guest,
        Err(error) => {
            eprintln!("disk {}: {error:#}", args.disk);
            return Ok(ExitCode::from(NO_PEER));
        }
    };
    println!("{}", put(&clause, &mut guest, args.abi)?);
    Ok(ExitCode::SUCCESS)
}

/// What the backend does when the clause is put to it, and whether the disk can be used again afterwards.
fn put(clause: &Clause<Guest<linux::World>>, guest: &mut Guest<linux::World>, abi: Abi) -> Result<Outcome> {
    let outcome = |verdict, why: &str| Outcome::new(clause.name, abi, verdict, why);
    if UNSEEN.contains(&clause.name) {
        return Ok(outcome(
            Verdict::NotRun,
            "Linux lends a guest's programs no page that they can take back",
        ));
    }
    if let Some(missing) = missing(clause.name, guest)? {
        return Ok(outcome(Verdict::NotApplicable, &missing));
    }
    let mut outcome = Outcome::of(clause.name, abi, (clause.check)(guest));
    if let Err(error) = device::renew(guest) {
        let lost = format!("{}; the disk is lost: {error:#}", outcome.observation);
        outcome.observation = lost.trim_start_matches("; ").to_owned();
    }
    Ok(outcome)
}

/// Clauses that look at grants: `/dev/xen/gntalloc` makes them writable, ends them when the page goes, and does not tell
/// whether somebody has it mapped.
const UNSEEN: [&str; 10] = [
    "blocks.pages-let-go-before-answer",
    "hostile.grants-end-under-way",
    "hostile.read-into-a-read-only-page",
    "indirect.pages-let-go-before-answer",
    "indirect.read-only-descriptors",
    "keys.ring-read-only-refused",
    "persistent.only-if-promised",
    "persistent.unmapped-before-closed",
    "request.pages-let-go-before-answer",
    "xenbus.unmapped-before-closed",
];

/// What the backend would have to offer and does not.
fn missing(clause: &str, guest: &mut Guest<linux::World>) -> Result<Option<String>> {
    for (key, least) in backend::needs(clause) {
        let mut offered = guest.backend_key(key)?;
        // Some tell what they offer only when they are connected, and ours what depends on the image, which it closes afterwards.
        if offered.is_none() && (key == keys::FEATURE_DISCARD || guest.backend_key(keys::SECTORS)?.is_none())
        {
            _ = guest.connect(&Wish::default());
            offered = guest.backend_key(key)?;
            device::renew(guest)?;
        }
        let value: u64 = offered.as_deref().and_then(|value| value.trim().parse().ok()).unwrap_or(0);
        if value < least {
            return Ok(Some(offered.map_or(format!("no {key}"), |it| format!("{key} is {it}, not {least}"))));
        }
    }
    Ok(None)
}
