//! Containment: what is left to somebody who has taken the daemon over.
//!
//! ```text
//!   process that was started ──▶ divide ──▶ keeper: outside, opens images in their folders, passes signals on, upgrades
//!                                   │
//!                                   └─────▶ daemon: opens its world and XenStore ──▶ enter ──▶ serves
//!                                                     another user · no capabilities · landlock · seccomp
//! ```
//!
//! [`keeper`] divides, [`Sandbox::enter`] closes the door. [`outside`] is what the daemon can still ask for, [`folders`] and [`servers`]
//! where that ends. docs/THREAT-MODEL.md says who can do what, and ADR-0011 why it is built this way.

use std::{io, path::PathBuf};

use tracing::{info, warn};

pub mod calls;
pub mod files;
pub mod folders;
pub mod keeper;
pub mod line;
pub mod outside;
pub mod rights;
pub mod self_test;
pub mod servers;

use calls::{Filters, Refusal};
use files::Enforced;
use keeper::Charge;
use rights::Identity;

/// A sandbox, yet to be entered.
#[derive(Debug)]
pub struct Sandbox {
    who: Option<Identity>,
    logs: Option<PathBuf>,
    credentials: Vec<PathBuf>,
    network: bool,
    refusal: Refusal,
}

impl Sandbox {
    /// For a daemon that becomes the user `configured` (absent: the usual one, if root starts it and there is such a user), and
    /// notes in the folder `logs` what is under way, and reads `credentials`, files or folders, when it connects to a server: by
    /// itself, where it is let into the `network`. To be made while this process may still do everything: it makes the folder, and
    /// gives it to that user. Errors: it cannot become that user; it cannot make the folder.
    pub fn prepare(
        configured: Option<&str>,
        logs: Option<PathBuf>,
        credentials: Vec<PathBuf>,
        network: bool,
        refusal: Refusal,
    ) -> io::Result<Self> {
        let who = Identity::find(configured)?;
        if let Some(logs) = &logs {
            std::fs::create_dir_all(logs)?;
            if let Some(who) = &who {
                who.give(logs)?;
            }
        }
        Ok(Self { who, logs, credentials, network, refusal })
    }

    /// Goes in, for good, with all threads that are started from now on; there must be no others yet. What is open stays open. Errors:
    /// the system's; what the kernel does not offer is a warning.
    pub fn enter(&self, charge: &Charge) -> io::Result<Filters> {
        let filters = Filters::compile(self.refusal, self.network)?;
        rights::drop_all(self.who.as_ref())?;
        charge.bind()?;
        let files = files::restrict(self.logs.as_deref(), &self.credentials, self.network)?;
        filters.apply()?;
        let user = self.who.as_ref().map_or("unchanged", Identity::name);
        info!(user, landlock = ?files, "contained");
        if files == Enforced::No {
            warn!("this kernel has no landlock: the daemon can open whatever its user can");
        }
        Ok(filters)
    }
}

/// What becomes of a call that is not allowed: in a build for tests nothing may hide it; else guests keep their disks.
pub const REFUSAL: Refusal = if cfg!(debug_assertions) { Refusal::Die } else { Refusal::Fail };
