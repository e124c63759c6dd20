//! What can go wrong between a process and the broker.

use std::path::PathBuf;

use nix::errno::Errno;

use super::message::{Refusal, VERSION};
use crate::DomId;

/// Why a simulated world could not be started, joined or asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SimError {
    /// The text after `--xen` is not `sim:DIRECTORY`.
    #[error("{0:?} does not name a simulated world: expected sim:DIRECTORY")]
    Spec(String),
    /// The directory is not there.
    #[error("no simulated world in {}: no such directory", .0.display())]
    NoDirectory(PathBuf),
    /// Nobody listens on the socket.
    #[error("no simulated world in {}: its broker is not running (start one with xensim)", .0.display())]
    NoBroker(PathBuf),
    /// Another broker already serves this directory.
    #[error("{} already has a running broker", .0.display())]
    Occupied(PathBuf),
    /// The path is too long for the address of a Unix socket (107 bytes).
    #[error("{} is too long for the path of a Unix socket", .0.display())]
    LongPath(PathBuf),
    /// The other end of the socket is of another release, or no broker at all.
    #[error(
        "the broker speaks version {theirs} of the protocol and this program version {ours}: build both from one source"
    )]
    Version {
        /// What this library speaks.
        ours: u32,
        /// What the other end speaks.
        theirs: u32,
    },
    /// An answer that makes no sense.
    #[error("the broker's answer makes no sense")]
    Garbled,
    /// No such domain, or it is dying, or it may not be destroyed.
    #[error("no domain {0}")]
    NoDomain(DomId),
    /// No room for what was asked.
    #[error("the simulated machine has no room for that")]
    Exhausted,
    /// A system call failed.
    #[error("{what}: {errno}")]
    System {
        /// What was tried.
        what: &'static str,
        /// The reason.
        errno: Errno,
    },
}

impl SimError {
    /// Turns an errno into an error of `what`.
    pub(crate) fn system(what: &'static str) -> impl FnOnce(Errno) -> Self {
        move |errno| Self::System { what, errno }
    }
}

impl From<Refusal> for SimError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Version(theirs) => Self::Version { ours: VERSION, theirs },
            Refusal::NoDomain(dom) => Self::NoDomain(dom),
            Refusal::Exhausted => Self::Exhausted,
            Refusal::System(errno) => {
                Self::System { what: "asking the broker", errno: Errno::from_raw(errno) }
            }
            Refusal::Garbled | Refusal::NotUnbound | Refusal::NotBound(_) => Self::Garbled,
        }
    }
}
