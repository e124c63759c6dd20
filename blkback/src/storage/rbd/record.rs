//! Which clients the daemons of this host have had for which images: so that the next one knows a dead one's as its own.
//!
//! A file for each client, in the folder of the logs of what is under way, locked for as long as its process lives and removed
//! when the client has been closed. What is there without a lock was killed; its last requests may be on their way yet.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use nix::fcntl::{Flock, FlockArg};

/// How the files are called, before the client's number.
pub const RECORDS: &str = "rbd-client-";

/// A client's file; gone with the value.
#[derive(Debug)]
pub(super) struct Record {
    path: PathBuf,
    _lock: Flock<File>,
}

impl Record {
    /// Notes a client before it does anything: its number, its address in the cluster, the image, and for people the disk that it is for.
    pub(super) fn create(
        folder: &Path,
        number: u64,
        address: &str,
        image: &str,
        disk: &str,
    ) -> io::Result<Self> {
        let path = folder.join(format!("{RECORDS}{number}"));
        let new = path.with_extension("new");
        let file = File::options().write(true).create(true).truncate(true).open(&new)?;
        let mut lock = Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| errno)?;
        write!(&mut *lock, "{address}\n{image}\n{disk}\n")?;
        // Whole and locked from its first instant on.
        fs::rename(&new, &path)?;
        Ok(Self { path, _lock: lock })
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        // What is left would be taken for a dead client, and one that does not exist be kept out.
        _ = fs::remove_file(&self.path);
    }
}

/// What is known of another client.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Known {
    path: PathBuf,
    /// Its address.
    pub(super) address: String,
    /// The image.
    pub(super) image: String,
    /// The disk it is for.
    pub(super) disk: String,
    /// Its process lives.
    pub(super) alive: bool,
}

impl Known {
    /// All whose files are in the folder.
    pub(super) fn all(folder: &Path) -> io::Result<Vec<Self>> {
        let entries = fs::read_dir(folder)?.filter_map(|entry| entry.ok().map(|entry| entry.path()));
        let of_clients = |path: &PathBuf| {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            name.strip_prefix(RECORDS).is_some_and(|number| number.bytes().all(|byte| byte.is_ascii_digit()))
        };
        // What cannot be read has been removed meanwhile.
        Ok(entries.filter(of_clients).filter_map(|path| Self::read(path).ok()?).collect())
    }

    fn read(path: PathBuf) -> io::Result<Option<Self>> {
        let text = fs::read_to_string(&path)?;
        let alive = Flock::lock(File::open(&path)?, FlockArg::LockSharedNonblock).is_err();
        let mut lines = text.lines().map(str::to_owned);
        let (Some(address), Some(image), Some(disk)) = (lines.next(), lines.next(), lines.next()) else {
            return Ok(None);
        };
        Ok(Some(Self { path, address, image, disk, alive }))
    }

    /// It has been kept out for good.
    pub(super) fn forget(&self) {
        // It would be kept out again.
        _ = fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(folder: &Path) -> Vec<(String, bool)> {
        let all = Known::all(folder).unwrap();
        all.into_iter().map(|known| (known.address, known.alive)).collect()
    }

    #[test]
    fn the_living_and_the_dead_are_told_apart() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("1-51712-0"), "a log").unwrap();
        fs::write(folder.path().join("rbd-client-5"), "cut off").unwrap();
        let record = Record::create(folder.path(), 4, "10.0.0.1:0/7", "a", "guest 1, disk 51712").unwrap();
        assert_eq!(known(folder.path()), [("10.0.0.1:0/7".to_owned(), true)]);
        let all = Known::all(folder.path()).unwrap();
        assert_eq!((&*all[0].image, &*all[0].disk), ("a", "guest 1, disk 51712"));
        drop(record);
        assert!(known(folder.path()).is_empty());

        // Its process has been killed: nobody was left to remove it.
        fs::write(folder.path().join("rbd-client-6"), "10.0.0.1:0/8\na\nguest 1, disk 51712\n").unwrap();
        assert_eq!(known(folder.path()), [("10.0.0.1:0/8".to_owned(), false)]);
        Known::all(folder.path()).unwrap()[0].forget();
        assert!(known(folder.path()).is_empty());
    }
}
