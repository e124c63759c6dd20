//! How a world is named.

use std::path::{Path, PathBuf};

use super::SimError;

/// The directory in a world's name as it stands after `--xen`: `sim:DIRECTORY`. Errors: [`SimError::Spec`].
pub fn parse_spec(spec: &str) -> Result<&Path, SimError> {
    let dir = spec.strip_prefix("sim:").filter(|dir| !dir.is_empty());
    dir.map(Path::new).ok_or_else(|| SimError::Spec(spec.to_owned()))
}

/// The socket of a world's broker.
pub fn broker_socket(dir: &Path) -> PathBuf {
    dir.join("broker.sock")
}

/// The socket of a world's XenStore, in xenstored's wire protocol; also what `XENSTORED_PATH` wants.
pub fn xenstored_socket(dir: &Path) -> PathBuf {
    dir.join("xenstored.sock")
}
