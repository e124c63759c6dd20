//! Where an unfinished copy stopped: a small file beside the image.

use std::{
    ffi::OsString,
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

use super::Direction;
use crate::exit::Usage;

/// What has to be the same for a copy to go on, and how far it got.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Progress {
    /// Which way.
    pub(crate) direction: Direction,
    /// The frontend's XenStore directory.
    pub(crate) disk: String,
    /// Size of the disk in bytes.
    pub(crate) disk_bytes: u64,
    /// Bytes to copy in all.
    pub(crate) length: u64,
    /// When a source image was last changed, in nanoseconds since 1970.
    pub(crate) changed: Option<i128>,
    /// Bytes that are done; all of them durable.
    pub(crate) done: u64,
}

impl Progress {
    /// How far the copy of `image` that agrees with `self` had come, in bytes. Errors: there is nothing to go on with, or it
    /// was another copy.
    pub(crate) fn recall(&self, image: &Path) -> anyhow::Result<u64> {
        let path = state_file(image);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(Usage(format!("nothing to resume: there is no {}", path.display())).into());
            }
            Err(error) => return Err(error).with_context(|| format!("reading {}", path.display())),
        };
        let before: Progress =
            serde_json::from_str(&text).map_err(|error| Usage(format!("{}: {error}", path.display())))?;
        if (Progress { done: self.done, ..before.clone() }) != *self || before.done > self.length {
            let message = format!("{} is of another copy, or the image has changed since", path.display());
            return Err(Usage(message).into());
        }
        Ok(before.done)
    }

    /// Keeps the progress for a later [`recall`](Self::recall).
    pub(crate) fn keep(&self, image: &Path) -> anyhow::Result<PathBuf> {
        let path = state_file(image);
        let text = serde_json::to_string_pretty(self)?;
        fs::write(&path, text + "\n").with_context(|| format!("writing {}", path.display()))?;
        Ok(path)
    }
}

/// Forgets an earlier progress: the copy is whole, or begins anew.
pub(crate) fn forget(image: &Path) -> io::Result<()> {
    match fs::remove_file(state_file(image)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// When a file was last changed, in nanoseconds since 1970.
pub(crate) fn changed(metadata: &fs::Metadata) -> i128 {
    i128::from(metadata.mtime()) * 1_000_000_000 + i128::from(metadata.mtime_nsec())
}

fn state_file(image: &Path) -> PathBuf {
    let mut name = OsString::from(image);
    name.push(".blkfront-resume");
    name.into()
}

#[cfg(test)]
mod tests;
