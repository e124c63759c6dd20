//! What the daemon needs from outside of its sandbox while it serves: opened images, connections to servers that have some, and a word
//! to systemd.

use std::{
    fmt::Debug,
    fs::{File, OpenOptions},
    io,
    os::{
        fd::OwnedFd,
        unix::fs::{FileTypeExt as _, OpenOptionsExt as _},
    },
    path::Path,
};

use nix::{errno::Errno, libc};
use sd_notify::NotifyState;
use tracing::warn;

use super::servers::Server;

/// How a file is to be opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct How {
    /// For writing too.
    pub write: bool,
    /// Past the page cache (`O_DIRECT`).
    pub direct: bool,
}

/// What is worth a word to systemd.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Disks are served.
    Ready,
    /// Guests are told to close.
    Stopping,
}

/// The outside. Its calls may block.
pub trait Outside: Debug + Send + Sync {
    /// Opens an image. Errors: the system's; `ENOTBLK` for what is neither a file nor a block device, which is not opened, and
    /// `EXDEV` for a path that leads out of the folders for images.
    fn open(&self, path: &Path, how: How) -> io::Result<File>;

    /// Connects to a server that has images. Errors: the system's; `EXDEV` for one that is not allowed.
    fn connect(&self, server: &Server) -> io::Result<OwnedFd>;

    /// Tells systemd, if it wants to know.
    fn tell(&self, progress: Progress);
}

/// No sandbox, and neither folders nor servers.
#[derive(Clone, Copy, Debug, Default)]
pub struct Unconfined;

impl Outside for Unconfined {
    fn open(&self, path: &Path, how: How) -> io::Result<File> {
        // Asked before opening: opening a FIFO would block, and to open some devices is to use them.
        let kind = path.metadata()?.file_type();
        if !kind.is_file() && !kind.is_block_device() {
            return Err(Errno::ENOTBLK.into());
        }
        how.options().open(path)
    }

    fn connect(&self, server: &Server) -> io::Result<OwnedFd> {
        server.connect()
    }

    fn tell(&self, progress: Progress) {
        let state = match progress {
            Progress::Ready => NotifyState::Ready,
            Progress::Stopping => NotifyState::Stopping,
        };
        // For units of type `notify`; without systemd there is nobody to tell.
        if let Err(error) = sd_notify::notify(false, &[state]) {
            warn!(%error, "cannot tell systemd");
        }
    }
}

impl How {
    /// As the standard library has it.
    pub(super) fn options(self) -> OpenOptions {
        let mut options = OpenOptions::new();
        options.read(true).write(self.write).custom_flags(if self.direct { libc::O_DIRECT } else { 0 });
        options
    }
}
