//! Exit codes: what a script can tell apart.

use std::{fs, process::ExitCode};

use blkfront::DeviceError;
use xen_platform::GrantError;

use crate::say;

/// Where Linux keeps the number of pages that all programs of a guest together may grant.
const GNTALLOC_LIMIT: &str = "/sys/module/xen_gntalloc/parameters/limit";

/// Everything was done.
pub(crate) const OK: u8 = 0;
/// An I/O, connection or file error.
pub(crate) const FAILED: u8 = 1;
/// The command line does not make sense, or does not fit the disk. (clap uses the same code.)
pub(crate) const USAGE: u8 = 2;
/// `copy --verify` found a difference.
pub(crate) const MISMATCH: u8 = 3;

/// The command asks for something that cannot be: exit code 2.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Usage(pub(crate) String);

/// Verification found different bytes: exit code 3.
#[derive(Debug, thiserror::Error)]
#[error("verification failed: SHA-256 of the image is {image}, of the disk {disk}")]
pub(crate) struct Mismatch {
    /// Hexadecimal digest of the image file.
    pub(crate) image: String,
    /// Hexadecimal digest of the same range of the guest's disk.
    pub(crate) disk: String,
}

/// The code for how the command ended; prints the error.
pub(crate) fn report(result: anyhow::Result<()>) -> ExitCode {
    let Err(error) = result else { return ExitCode::from(OK) };
    say::error(&error);
    if is_out_of_grants(&error)
        && let Ok(limit) = fs::read_to_string(GNTALLOC_LIMIT)
    {
        say::hint(&format!(
            "all programs together may grant {} pages: write more to {GNTALLOC_LIMIT}, or ask for less (--depth, --piece, --ring-pages)",
            limit.trim()
        ));
    }
    ExitCode::from(code(&error))
}

fn is_out_of_grants(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        let device = cause.downcast_ref::<DeviceError>();
        matches!(device, Some(DeviceError::Grant(GrantError::Exhausted)))
            || cause.downcast_ref() == Some(&GrantError::Exhausted)
    })
}

fn code(error: &anyhow::Error) -> u8 {
    if error.is::<Mismatch>() {
        MISMATCH
    } else if error.is::<Usage>() {
        USAGE
    } else {
        FAILED
    }
}

#[cfg(test)]
mod tests {
    use anyhow::Context as _;

    use super::*;

    #[test]
    fn a_lack_of_grants_is_seen_through_any_context() {
        let of_device = anyhow::Error::from(DeviceError::Grant(GrantError::Exhausted)).context("connecting");
        assert!(is_out_of_grants(&of_device));
        assert!(is_out_of_grants(&anyhow::Error::from(GrantError::Exhausted).context("reading")));
        assert!(!is_out_of_grants(&anyhow::Error::from(GrantError::System(5))));
    }

    #[test]
    fn the_code_survives_context() {
        let usage: anyhow::Result<()> = Err(Usage("no".into()).into());
        assert_eq!(code(&usage.context("opening").unwrap_err()), USAGE);
        let mismatch = Mismatch { image: "1".into(), disk: "2".into() };
        assert_eq!(code(&mismatch.into()), MISMATCH);
        assert_eq!(code(&std::io::Error::other("disk").into()), FAILED);
    }
}
