//! One clause in a process of its own: whatever it does or holds ends with it.

use std::{
    io::Read as _,
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result};
use blkif_proto::Abi;
use tests::world::wait_until;

use crate::verdict::{Outcome, Verdict};

/// Exit status: this disk or guest is not at the beginning and cannot be brought there; nothing was checked.
pub(crate) const NO_PEER: u8 = 3;

/// Runs this program with `arguments`, which put `clause`, for at most `limit`. `None`: it ended with [`NO_PEER`].
pub(crate) fn run(arguments: &[&str], clause: &str, abi: Abi, limit: Duration) -> Result<Option<Outcome>> {
    let mut command = Command::new(std::env::current_exe()?);
    let mut child = command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
    let Ok(status) = wait_until("the clause", limit, || Ok(child.try_wait()?)) else {
        // Both fail only when it is gone already.
        _ = child.kill();
        _ = child.wait();
        let words = format!("not over after {limit:?}");
        return Ok(Some(Outcome::new(clause, abi, Verdict::Differs, &words)));
    };
    if status.code() == Some(NO_PEER.into()) {
        return Ok(None);
    }
    let mut line = String::new();
    child.stdout.take().context("no output")?.read_to_string(&mut line)?;
    let ended = || Outcome::new(clause, abi, Verdict::NotRun, &format!("its process ended: {status}"));
    Ok(Some(line.trim_end_matches('\n').parse().unwrap_or_else(|_| ended())))
}
