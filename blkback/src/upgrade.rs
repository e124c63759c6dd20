//! Another program takes the daemon's place, in the same process: `blkback upgrade`.
//!
//! ```text
//!   new program: upgrade                                 keeper of the running daemon
//!     reads who holds the run directory  ◀──── lock ────── process, version of its logs, since when
//!     can it read such logs? else it refuses
//!     writes its own path  ────────────────── upgrade ──▶
//!     SIGUSR2              ──────────────────────────────▶ has the daemon take nothing new and finish what is under way
//!     waits until the lock says that another began         becomes that program, which takes every ring over
//! ```
//!
//! The keeper takes a program's name from nobody but who could as well have started the daemon with it.
//!
//! Whatever goes wrong after the signal is what happens when a daemon is killed: the next one goes on.

use std::{
    env, fs,
    os::unix::{ffi::OsStringExt as _, fs::MetadataExt as _, process::CommandExt as _},
    path::{Path, PathBuf},
    process::Command,
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Error, Result, bail, ensure};
use blkback::{log, run_dir::Holder};
use nix::{
    sys::signal::{Signal, kill},
    unistd::{Pid, Uid, geteuid},
};
use tracing::error;

/// The file that says which program is to take over.
const FILE: &str = "upgrade";
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Puts this program in the place of the daemon that holds `run_dir`, and waits until it is. Errors: there is none, it cannot be
/// followed, or it has not become this program in time.
pub(crate) fn ask(run_dir: &Path, patience: Duration) -> Result<()> {
    let none = || format!("no blkback that can be upgraded holds {}", run_dir.display());
    let running = Holder::of(run_dir).with_context(none)?;
    ensure!(
        running.logs == log::VERSION,
        "process {} writes logs of version {}, and this program reads version {}: nothing was done",
        running.process,
        running.logs,
        log::VERSION
    );
    let program = env::current_exe().context("cannot find this program")?;
    fs::write(run_dir.join(FILE), program.as_os_str().as_encoded_bytes())
        .with_context(|| format!("cannot write to {}", run_dir.display()))?;
    let process = Pid::from_raw(i32::try_from(running.process)?);
    kill(process, Signal::SIGUSR2).with_context(|| format!("process {process}"))?;
    let begin = Instant::now();
    while begin.elapsed() < patience {
        if let Some(now) = Holder::of(run_dir).filter(|now| now.since != running.since) {
            println!(
                "process {} is {} since {:.3} s",
                now.process,
                program.display(),
                begin.elapsed().as_secs_f64()
            );
            return Ok(());
        }
        ensure!(
            kill(process, None).is_ok(),
            "process {process} has ended, and no other took its place: start one"
        );
        sleep(LOOK_EVERY);
    }
    bail!("process {process} has not become {} within {} s", program.display(), patience.as_secs())
}

/// The program that is to take over, if there is one that can. Asked once for each signal.
pub(crate) fn asked(run_dir: &Path) -> Option<PathBuf> {
    let file = run_dir.join(FILE);
    let owner = fs::symlink_metadata(&file).map(|meta| Uid::from_raw(meta.uid()));
    let path = fs::read(&file).map(std::ffi::OsString::from_vec).map(PathBuf::from);
    _ = fs::remove_file(&file);
    if let Some(owner) = owner.ok().filter(|owner| !owner.is_root() && *owner != geteuid()) {
        error!(%owner, "no hand-over: that is for root to ask");
        return None;
    }
    let path = path.inspect_err(|error| error!(file = %file.display(), %error, "no hand-over")).ok()?;
    // Better now than when nobody serves the disks any more.
    let version = Command::new(&path).arg("--version").output();
    let starts = version.is_ok_and(|output| output.status.success());
    if !starts {
        error!(program = %path.display(), "no hand-over: it does not start");
    }
    starts.then_some(path)
}

/// Becomes that program, with the arguments of this one. Returns only if that fails.
pub(crate) fn become_program(program: &Path) -> Error {
    let error = Command::new(program).args(env::args_os().skip(1)).exec();
    Error::from(error).context(format!("cannot become {}", program.display()))
}
