//! The folders that images may lie in, and the only way to a file in them.

use std::{
    ffi::OsStr,
    fs::File,
    io,
    os::{fd::AsRawFd as _, unix::fs::FileTypeExt as _},
    path::{Component, Path, PathBuf},
};

use nix::{
    errno::Errno,
    fcntl::{OFlag, OpenHow, ResolveFlag, open, openat2},
    sys::stat::Mode,
};

use super::outside::How;

/// Where udev puts devices, and links between them.
const DEVICES: &str = "/dev";

/// Where images may lie: folders, and what they name as a whole, single files and devices.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Folders(Vec<PathBuf>);

impl Folders {
    /// Of absolute paths. One that does not exist yet may come to be.
    pub fn new(paths: impl IntoIterator<Item = PathBuf>) -> Self {
        Self(paths.into_iter().collect())
    }

    /// With one more.
    pub fn and(mut self, path: &Path) -> Self {
        self.0.push(path.to_owned());
        self
    }

    /// These and others.
    pub(super) fn or(mut self, mut others: Self) -> Self {
        self.0.append(&mut others.0);
        self
    }

    /// Opens a regular file or block device, and nothing else. Errors: `EXDEV` for a path that is not absolute, has a `..` in it, lies
    /// in none of the folders, or gets out of it by a symbolic link; `ENOTBLK` for another kind of file, which is not opened.
    ///
    /// Links may lead from place to place within a folder. Those below `/dev` may lead anywhere below `/dev`, because names of volumes
    /// are links there, which nobody but root makes. What is named as a whole is followed wherever it leads.
    pub fn open(&self, path: &Path, how: How) -> io::Result<File> {
        // Nothing has been opened yet: some devices are used by being opened, and a FIFO blocks. What is opened now is what was
        // looked at, whatever its name leads to by now.
        let found = self.find(path)?;
        let kind = found.metadata()?.file_type();
        if !kind.is_file() && !kind.is_block_device() {
            return Err(Errno::ENOTBLK.into());
        }
        how.options().open(format!("/proc/self/fd/{}", found.as_raw_fd()))
    }

    /// A mere reference (`O_PATH`) to what is there.
    pub(super) fn find(&self, path: &Path) -> io::Result<File> {
        let (base, rest, resolve) = self.place_of(path).ok_or(Errno::EXDEV)?;
        let held = OFlag::O_PATH | OFlag::O_CLOEXEC;
        let base = open(base, held | OFlag::O_DIRECTORY, Mode::empty())?;
        let resolve = resolve | ResolveFlag::RESOLVE_NO_MAGICLINKS;
        Ok(openat2(base, rest, OpenHow::new().flags(held).resolve(resolve))?.into())
    }

    /// What `path` is found from, the way on from there, and how.
    fn place_of<'a>(&'a self, path: &'a Path) -> Option<(&'a Path, &'a Path, ResolveFlag)> {
        if !path.is_absolute() || path.components().any(|part| part == Component::ParentDir) {
            return None;
        }
        let root = Path::new("/");
        let from_root = || Some((root, path.strip_prefix(root).ok()?, ResolveFlag::RESOLVE_IN_ROOT));
        let mut found = None;
        for folder in &self.0 {
            let Ok(rest) = path.strip_prefix(folder) else { continue };
            if rest.as_os_str() == OsStr::new("") || folder == root {
                return from_root();
            }
            let base = if folder.starts_with(DEVICES) { Path::new(DEVICES) } else { folder };
            found = Some((base, path.strip_prefix(base).ok()?, ResolveFlag::RESOLVE_BENEATH));
        }
        found
    }
}

#[cfg(test)]
mod tests;
