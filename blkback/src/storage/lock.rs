//! The lock on an image's file: one guest that writes, or any number that only read.
//!
//! It is taken (`flock`) on the very description that the disk's operations use, so it also lasts as long as the last of them
//! in the kernel, should the daemon be killed meanwhile: whoever gets it knows that nothing is under way any more.

use std::{fs::File, io, os::unix::fs::MetadataExt as _};

use nix::{
    errno::Errno,
    fcntl::{FcntlArg, Flock, FlockArg, fcntl},
    libc,
};
use tracing::warn;

/// A file, whatever it is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileId {
    device: u64,
    inode: u64,
}

impl FileId {
    /// Of an open file.
    pub fn of(file: &File) -> io::Result<Self> {
        let meta = file.metadata()?;
        Ok(Self { device: meta.dev(), inode: meta.ino() })
    }

    /// The process that has the file's lock, as far as this system knows it and it still runs: its number.
    pub fn locker(self) -> Option<u32> {
        let locks = std::fs::read_to_string("/proc/locks").ok()?;
        let process = locks.lines().find_map(|line| self.locker_of(line))?;
        std::fs::read_to_string(format!("/proc/{process}/stat"))
            .is_ok_and(|stat| runs(&stat))
            .then_some(process)
    }

    /// `1: FLOCK  ADVISORY  WRITE 4711 fe:01:123 0 EOF`: device in hexadecimal, inode in decimal numbers. A line with an arrow
    /// is about one who waits.
    fn locker_of(self, line: &str) -> Option<u32> {
        let words: Vec<_> = line.split_whitespace().collect();
        let [_, "FLOCK", _, _, process, place, ..] = words[..] else { return None };
        let (major, minor) = (libc::major(self.device), libc::minor(self.device));
        (place == format!("{major:02x}:{minor:02x}:{}", self.inode)).then(|| process.parse().ok()).flatten()
    }
}

/// Beyond the end of any image.
const FENCES: u64 = 1 << 62;

/// Takes one writer's lock beside other writers, for as long as the file's description lasts. False if it is taken: by requests that
/// a killed daemon has left in the kernel.
pub(super) fn fence(file: &File, writer: u64) -> io::Result<bool> {
    let lock = libc::flock {
        l_type: libc::c_short::try_from(libc::F_WRLCK).unwrap_or_default(),
        l_whence: libc::c_short::try_from(libc::SEEK_SET).unwrap_or_default(),
        l_start: (FENCES | writer).cast_signed(),
        l_len: 1,
        l_pid: 0,
    };
    match fcntl(file, FcntlArg::F_OFD_SETLK(&lock)) {
        Ok(_) => Ok(true),
        Err(Errno::EAGAIN | Errno::EACCES) => Ok(false),
        Err(errno @ (Errno::ENOLCK | Errno::ENOTSUP | Errno::ENOSYS | Errno::EINVAL)) => {
            warn!(%errno, "the image's file system has no such locks: a killed daemon's writes may come late");
            Ok(true)
        }
        Err(errno) => Err(errno.into()),
    }
}

/// From a process' `stat` line, whose name in brackets may hold anything: a zombie has let its files go, and what still has the
/// lock are requests of it.
fn runs(stat: &str) -> bool {
    let state = stat.rsplit_once(')').and_then(|(_, rest)| rest.trim_start().chars().next());
    state.is_some_and(|state| !matches!(state, 'Z' | 'X'))
}

/// Takes the lock, for as long as the value lives; none where files cannot be locked. Errors: `EWOULDBLOCK`, somebody else has
/// it.
pub(super) fn take(file: &File, exclusive: bool) -> io::Result<Option<Flock<File>>> {
    let how = if exclusive { FlockArg::LockExclusiveNonblock } else { FlockArg::LockSharedNonblock };
    match Flock::lock(file.try_clone()?, how) {
        Ok(lock) => Ok(Some(lock)),
        Err((_, errno @ (Errno::ENOLCK | Errno::ENOTSUP | Errno::ENOSYS))) => {
            warn!(%errno, "the image's file system has no locks: nothing keeps two guests from writing to it");
            Ok(None)
        }
        Err((_, errno)) => Err(errno.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_locker_is_found_by_the_file() {
        let file = FileId { device: libc::makedev(0xfe, 1), inode: 123 };
        let locker = |line| file.locker_of(line);
        assert_eq!(locker("1: FLOCK  ADVISORY  WRITE 4711 fe:01:123 0 EOF"), Some(4711));
        assert_eq!(locker("1: FLOCK  ADVISORY  READ 4711 fe:01:124 0 EOF"), None, "another file");
        assert_eq!(locker("1: POSIX  ADVISORY  WRITE 4711 fe:01:123 0 EOF"), None, "another kind of lock");
        assert_eq!(locker("1: -> FLOCK  ADVISORY  WRITE 4711 fe:01:123 0 EOF"), None, "one who waits");
        assert_eq!(locker("1: FLOCK  ADVISORY  WRITE -1 fe:01:123 0 EOF"), None, "another host's");
    }

    #[test]
    fn a_writer_waits_for_its_own_requests_only() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let open = || File::options().read(true).write(true).open(file.path()).unwrap();
        let first = open();
        // What the kernel still has of the description, a killed process' requests say.
        let under_way = first.try_clone().unwrap();
        assert!(fence(&first, 7).unwrap() && fence(&open(), 8).unwrap());
        drop(first);
        assert!(!fence(&open(), 7).unwrap());
        drop(under_way);
        assert!(fence(&open(), 7).unwrap());
    }

    #[test]
    fn a_zombie_does_not_run() {
        assert!(runs("4711 (blkback) S 1 4711") && runs("4711 (a) Z (b) R 1 4711"));
        assert!(!runs("4711 (blkback) Z 1 4711") && !runs("4711 (x) S) X 0 -1") && !runs(""));
    }
}
