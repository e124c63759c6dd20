//! The daemon's run directory, and that only one daemon uses it.

use std::{
    fmt,
    fs::{self, File},
    io::{self, Read as _, Seek as _, Write as _},
    num::ParseIntError,
    path::{Path, PathBuf},
    str::FromStr,
    thread::sleep,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use nix::{
    errno::Errno,
    fcntl::{Flock, FlockArg},
};

use crate::{log, storage::FileId};

/// How long the lock is waited for if whoever took it is dead: what it has left may have to wait for the disk.
const PATIENCE: Duration = Duration::from_secs(300);
const LOOK_EVERY: Duration = Duration::from_millis(1);

/// Two daemons that answer for the same disks would destroy them, so the first keeps the others out until it ends, and with it every
/// process that it was divided into.
#[derive(Debug)]
pub struct RunDir {
    _lock: Flock<File>,
}

/// Who holds a run directory, as it wrote into the lock's file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Its process.
    pub process: u32,
    /// The version of its logs.
    pub logs: u32,
    /// When it began: nanoseconds of the system's clock, by which one daemon differs from the next in the same process.
    pub since: u128,
}

impl Holder {
    /// This process, from now on.
    fn new() -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { process: std::process::id(), logs: log::VERSION, since: since.as_nanos() }
    }

    /// The daemon that holds `dir`, or held it last. None: nobody ever did, or one that did not say so.
    pub fn of(dir: &Path) -> Option<Self> {
        fs::read_to_string(dir.join("lock")).ok()?.parse().ok()
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} logs {} since {}", self.process, self.logs, self.since)
    }
}

impl FromStr for Holder {
    type Err = Option<ParseIntError>;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let words: Vec<&str> = text.split_whitespace().collect();
        let [process, "logs", logs, "since", since] = words[..] else { return Err(None) };
        Ok(Self { process: process.parse()?, logs: logs.parse()?, since: since.parse()? })
    }
}

/// Why the run directory is not ours.
#[derive(Debug, thiserror::Error)]
pub enum RunDirError {
    /// It cannot be made or used.
    #[error("{}: {cause}", path.display())]
    Io {
        /// What cannot.
        path: PathBuf,
        /// Why not.
        cause: io::Error,
    },
    /// Another daemon has it.
    #[error("{}: another blkback is running{}", path.display(), if holder.is_empty() { String::new() } else { format!(", process {holder}") })]
    Taken {
        /// The lock.
        path: PathBuf,
        /// Who holds it, as far as it wrote that down.
        holder: String,
    },
}

impl RunDir {
    /// Makes the directory if need be, and takes its lock, which lasts until the value is dropped or the process ends. Waits for what is
    /// left of a daemon that was killed.
    pub fn claim(dir: &Path) -> Result<Self, RunDirError> {
        let path = dir.join("lock");
        let failed = |cause| RunDirError::Io { path: path.clone(), cause };
        fs::create_dir_all(dir).map_err(failed)?;
        let file = File::options().read(true).write(true).create(true).truncate(false).open(&path);
        match lock(file.map_err(failed)?) {
            Ok(mut lock) => {
                let written = lock.set_len(0).and_then(|()| lock.rewind());
                written.and_then(|()| writeln!(*lock, "{}", Holder::new())).map_err(failed)?;
                Ok(Self { _lock: lock })
            }
            Err((mut file, Errno::EWOULDBLOCK)) => {
                let mut holder = String::new();
                // Only for the message.
                let _ = file.read_to_string(&mut holder);
                let holder = holder.split_whitespace().next().unwrap_or_default().to_owned();
                Err(RunDirError::Taken { path: path.clone(), holder })
            }
            Err((_, errno)) => Err(failed(errno.into())),
        }
    }
}

/// Takes a file's lock, and waits if whoever has it is dead.
fn lock(mut file: File) -> Result<Flock<File>, (File, Errno)> {
    let begin = Instant::now();
    loop {
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Err((refused, Errno::EWOULDBLOCK)) if begin.elapsed() < PATIENCE && is_left_behind(&refused) => {
                file = refused;
                sleep(LOOK_EVERY);
            }
            outcome => return outcome,
        }
    }
}

/// Nobody alive has taken its lock.
fn is_left_behind(file: &File) -> bool {
    FileId::of(file).is_ok_and(|id| id.locker().is_none())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let run = dir.path().join("made/on/demand");
        let first = RunDir::claim(&run).unwrap();
        let refused = RunDir::claim(&run).unwrap_err().to_string();
        assert!(
            refused.contains(&format!("another blkback is running, process {}", std::process::id())),
            "{refused}"
        );
        let holder = Holder::of(&run).unwrap();
        assert_eq!((holder.process, holder.logs), (std::process::id(), log::VERSION));
        drop(first);
        RunDir::claim(&run).unwrap();
        assert!(Holder::of(&run).unwrap().since > holder.since);
        assert!("4711".parse::<Holder>().is_err() && "1 logs 2 since x".parse::<Holder>().is_err());
    }

    /// The program that took the lock has ended; a process that it left has it still, for a while.
    #[test]
    fn what_a_dead_daemon_left_is_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let lock = dir.path().join("lock");
        let leave = "exec 9>\"$1\"; flock 9; sleep 0.5 >/dev/null 2>&1 &";
        let left = std::process::Command::new("sh").args(["-ec", leave, "sh"]).arg(&lock).status().unwrap();
        assert!(left.success());
        RunDir::claim(dir.path()).unwrap();
    }

    #[test]
    fn a_place_that_cannot_be_is_named() {
        let error = RunDir::claim(Path::new("/proc/none")).unwrap_err().to_string();
        assert!(error.contains("/proc/none"), "{error}");
    }
}
