//! What the daemon can open by itself: landlock.
//!
//! Images are not among it: the keeper opens them. What is left are the logs of what is under way, what the kernel tells about locks,
//! processes and block devices, and keys and certificates, which libraries read by path.

use std::{
    io,
    path::{Path, PathBuf},
};

use landlock::{
    ABI, Access as _, AccessFs, AccessNet, CompatLevel, Compatible as _, PathBeneath, PathFd, Ruleset,
    RulesetAttr as _, RulesetCreatedAttr as _, RulesetStatus, Scope,
};

/// Who holds a lock, and the limits of block devices: to be read.
const TOLD: [&str; 2] = ["/proc", "/sys/devices"];

/// How much of it this kernel enforces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Enforced {
    /// All of it.
    Fully,
    /// What it knows: rights that later versions added are not checked.
    Partly,
    /// Nothing: it has no landlock.
    No,
}

/// Lets this thread, and those it starts, open what lies in `logs`, read `credentials` and what the kernel tells, and nothing else; send
/// no signals to other processes, and, unless it is let into the `network`, connect to nobody. What is open already stays as it is.
pub(super) fn restrict(logs: Option<&Path>, credentials: &[PathBuf], network: bool) -> io::Result<Enforced> {
    let failed = |error: landlock::RulesetError| io::Error::other(format!("landlock: {error}"));
    // All that any version can refuse; what this kernel does not know is left out.
    let latest = ABI::V6;
    let mut refused = AccessNet::from_all(latest);
    if network {
        refused.remove(AccessNet::ConnectTcp);
    }
    let mut rules = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(latest))
        .and_then(|rules| rules.handle_access(refused))
        .and_then(|rules| rules.scope(Scope::from_all(latest)))
        .and_then(Ruleset::create)
        .map_err(failed)?;
    let of_logs = AccessFs::ReadFile
        | AccessFs::WriteFile
        | AccessFs::ReadDir
        | AccessFs::MakeReg
        | AccessFs::RemoveFile
        | AccessFs::Truncate;
    let told = TOLD.iter().map(Path::new).chain(credentials.iter().map(PathBuf::as_path));
    let told = told.map(|path| (path, AccessFs::ReadFile.into()));
    for (path, access) in told.chain(logs.map(|logs| (logs, of_logs))) {
        // What is not there is not told.
        let Ok(place) = PathFd::new(path) else { continue };
        rules = rules.add_rule(PathBeneath::new(place, access)).map_err(failed)?;
    }
    let status = rules.restrict_self().map_err(failed)?;
    Ok(match status.ruleset {
        RulesetStatus::FullyEnforced => Enforced::Fully,
        RulesetStatus::PartiallyEnforced => Enforced::Partly,
        RulesetStatus::NotEnforced => Enforced::No,
    })
}
