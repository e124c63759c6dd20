//! The daemon's run directory, and that only one daemon uses it.

use std::{
    fs::{self, File},
    io::{self, Read as _, Seek as _, Write as _},
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    fcntl::{Flock, FlockArg},
};

/// Two daemons that answer for the same disks would destroy them, so the first keeps the others out until it ends.
#[derive(Debug)]
pub struct RunDir {
    _lock: Flock<File>,
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
    /// Makes the directory if need be, and takes its lock, which lasts until the value is dropped or the process ends.
    pub fn claim(dir: &Path) -> Result<Self, RunDirError> {
        let path = dir.join("lock");
        let failed = |cause| RunDirError::Io { path: path.clone(), cause };
        fs::create_dir_all(dir).map_err(failed)?;
        let file = File::options().read(true).write(true).create(true).truncate(false).open(&path);
        match Flock::lock(file.map_err(failed)?, FlockArg::LockExclusiveNonblock) {
            Ok(mut lock) => {
                let written = lock.set_len(0).and_then(|()| lock.rewind());
                written.and_then(|()| writeln!(*lock, "{}", std::process::id())).map_err(failed)?;
                Ok(Self { _lock: lock })
            }
            Err((mut file, Errno::EWOULDBLOCK)) => {
                let mut holder = String::new();
                // Only for the message.
                let _ = file.read_to_string(&mut holder);
                Err(RunDirError::Taken { path: path.clone(), holder: holder.trim().to_owned() })
            }
            Err((_, errno)) => Err(failed(errno.into())),
        }
    }
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
        drop(first);
        RunDir::claim(&run).unwrap();
    }

    #[test]
    fn a_place_that_cannot_be_is_named() {
        let error = RunDir::claim(Path::new("/proc/none")).unwrap_err().to_string();
        assert!(error.contains("/proc/none"), "{error}");
    }
}
