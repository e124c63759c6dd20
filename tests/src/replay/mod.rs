//! Recordings played again: one end is real, the other does what was recorded of it.
//!
//! ```text
//!   Recording ─▶ Script: steps of one device ─┬─▶ guest:   plays the frontend to the real daemon ──┬─▶ Difference, or none
//!                                             └─▶ backend: plays the backend to the real frontend ─┘        │
//!                      a smaller Script that differs in the same way ◀── minimise ◀─────────────────────────┘
//! ```
//!
//! The recorded end's own part is what the real one is held to: states, answers, requests. Not when it signals or publishes: that
//! differs from run to run. What a recording does not tell is made up: pages hold anything, grants are all good, disks are empty. So
//! a request that failed for its grants, for want of memory or in the storage may end in any way.

mod backend;
mod difference;
mod grefs;
mod guest;
mod minimise;
mod script;

use std::time::Duration;

use anyhow::{Result, bail};
use blkif_observe::recording::{End, Recording};

pub use difference::Difference;
pub use minimise::{Minimised, minimise};
pub use script::{Script, Step};

/// How long the real end may take for anything.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// Plays a script to the real `end`, which may take so long for any step. The first difference; none: it does as recorded.
pub fn play(script: &Script, end: End, patience: Duration) -> Result<Option<Difference>> {
    match end {
        End::Backend => guest::play(script, patience),
        End::Frontend => backend::play(script),
    }
}

/// The recording's only device, or the one that is named. Errors: there are several, or none.
pub fn device<'a>(recording: &'a Recording, named: Option<&'a str>) -> Result<&'a str> {
    let devices = recording.devices();
    match (named, &devices[..]) {
        (Some(named), _) if devices.contains(&named) => Ok(named),
        (Some(named), _) => bail!("no device {named}; there is {}", devices.join(", ")),
        (None, [one]) => Ok(one),
        (None, []) => bail!("nothing is recorded"),
        (None, _) => bail!("several devices are recorded, name one: {}", devices.join(", ")),
    }
}
