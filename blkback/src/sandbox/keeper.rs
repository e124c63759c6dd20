//! Two processes: the daemon, which goes into the sandbox, and its keeper, which stays outside and does for it what cannot be done
//! from within.
//!
//! ```text
//!   keeper: the process that was started               daemon: its child
//!     holds the run directory                            serves guests
//!     opens images, in the folders for them   ◀── line ──  asks for them by path
//!     connects to the servers that have some  ◀── line ──  asks for them by name
//!     passes signals on                       ────────▶  closes, measures, pauses
//!     ends as the daemon ends                 ◀────────  ends
//!     becomes another program                            (is gone by then)
//! ```
//!
//! The keeper reads nothing that a guest wrote. It dies, the daemon dies (`PR_SET_PDEATHSIG`); the daemon dies, it dies in the same
//! way: to whoever started it, it *is* the daemon.
//!
//! Unsafe stands here because forking is unsafe (ADR-0011): a child of a process with other threads may find their locks taken for
//! ever. There are no other threads: [`divide`] looks, and the keeper starts none.
#![expect(unsafe_code, reason = "fork; see the module documentation")]

use std::{
    fs, io,
    os::fd::{AsFd as _, OwnedFd},
    path::PathBuf,
    process::{ExitCode, exit},
};

use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        prctl,
        signal::{SigSet, SigmaskHow, Signal, kill, raise},
        signalfd::{SfdFlags, SignalFd},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::{ForkResult, Pid, alarm, fork, getpid, getppid},
};
use tracing::{error, warn};

use super::{
    folders::Folders,
    line::{Ask, Ear, Line, answer, line},
    outside::{Outside as _, Unconfined},
    servers::Servers,
};

/// Images being opened at a time, at most, and connections being made. Each is a process, and may take as long as a server.
const OPENING_MAX: usize = 64;
/// Seconds after which a process gives up that connects.
const CONNECTING_MAX_S: u32 = 10;

/// Which of the two this process is.
#[derive(Debug)]
pub enum Side {
    /// The one that goes into the sandbox.
    Daemon(Charge),
    /// The one that stays outside.
    Keeper(Keeper),
}

/// What the daemon has from its keeper.
#[derive(Debug)]
pub struct Charge {
    /// The way to the outside.
    pub line: Line,
    pub(super) keeper: Pid,
}

/// How the daemon has ended.
#[derive(Debug)]
pub enum Fate {
    /// As this process is to end.
    Ended(ExitCode),
    /// By this signal.
    Killed(Signal),
    /// Another program is to take over.
    HandOver(PathBuf),
}

/// What the daemon can have through its keeper.
#[derive(Clone, Debug, Default)]
pub struct Reach {
    /// Files and devices in these.
    pub folders: Folders,
    /// Connections to these.
    pub servers: Servers,
}

/// The outside.
#[derive(Debug)]
pub struct Keeper {
    daemon: Pid,
    ear: Ear,
    reach: Reach,
    signals: SignalFd,
    opening: usize,
    /// What takes over when the daemon has ended.
    next: Option<PathBuf>,
}

/// Makes two processes of one. In both, signals are held back: in the daemon until [`Charge::hear_signals`]. Errors: the kernel's; the
/// process has other threads.
pub fn divide(reach: Reach) -> io::Result<Side> {
    if fs::read_dir("/proc/self/task")?.count() != 1 {
        return Err(io::Error::other("other threads run in this process"));
    }
    let (line, ear) = line()?;
    let signals = held_back();
    signals.thread_block()?;
    let keeper = getpid();
    // SAFETY: this process has one thread, so no lock is held by a thread that the child does not have.
    match unsafe { fork() }? {
        ForkResult::Child => {
            drop(ear);
            let charge = Charge { line, keeper };
            charge.bind()?;
            Ok(Side::Daemon(charge))
        }
        ForkResult::Parent { child } => {
            drop(line);
            let signals = SignalFd::with_flags(&signals, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
            Ok(Side::Keeper(Keeper { daemon: child, ear, reach, signals, opening: 0, next: None }))
        }
    }
}

/// What is passed on, and news of children.
fn held_back() -> SigSet {
    [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGUSR2, Signal::SIGCHLD].into_iter().collect()
}

impl Charge {
    /// Lets this process die with its keeper. To be repeated whenever the process' user or rights have changed, which undoes it. Errors:
    /// it is gone already.
    pub(super) fn bind(&self) -> io::Result<()> {
        prctl::set_pdeathsig(Signal::SIGKILL)?;
        // It may have died before the line above.
        if getppid() == self.keeper { Ok(()) } else { Err(Errno::ESRCH.into()) }
    }

    /// Signals come from now on: there is somebody to take them.
    pub fn hear_signals() -> io::Result<()> {
        Ok(held_back().thread_unblock()?)
    }
}

impl Keeper {
    /// Keeps the daemon until it has ended, and says how. `asked` is called when another program is to take over, and says which, if it
    /// can.
    pub fn keep(mut self, mut asked: impl FnMut() -> Option<PathBuf>) -> io::Result<Fate> {
        let mut heard = true;
        loop {
            let events = [heard.then(|| self.ear.0.as_fd()), Some(self.signals.as_fd())];
            let mut events: Vec<_> =
                events.into_iter().flatten().map(|fd| PollFd::new(fd, PollFlags::POLLIN)).collect();
            match poll(&mut events, PollTimeout::NONE) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno.into()),
            }
            let speaks = heard && events.first().and_then(PollFd::any).unwrap_or(false);
            drop(events);
            if speaks {
                heard = self.hear();
            }
            while let Some(signal) = self.signals.read_signal()? {
                let signal = i32::try_from(signal.ssi_signo).ok().and_then(|n| Signal::try_from(n).ok());
                match signal {
                    Some(Signal::SIGCHLD) => {
                        if let Some(fate) = self.reap() {
                            return Ok(fate);
                        }
                    }
                    Some(Signal::SIGUSR2) => {
                        self.next = asked();
                        if self.next.is_some() {
                            self.pass_on(Signal::SIGUSR2);
                        }
                    }
                    Some(signal) => self.pass_on(signal),
                    None => {}
                }
            }
        }
    }

    fn pass_on(&self, signal: Signal) {
        // It has not been waited for, so the number is still its own.
        if let Err(error) = kill(self.daemon, signal) {
            warn!(%error, ?signal, "cannot pass a signal on");
        }
    }

    /// Does what the daemon asks. False when it will ask no more.
    fn hear(&mut self) -> bool {
        match self.ear.take() {
            Ok(Some((Ask::Tell(progress), _))) => Unconfined.tell(progress),
            Ok(Some((ask, Some(to)))) if self.opening < OPENING_MAX => {
                // SAFETY: as in `divide`: the keeper has started no thread since.
                match unsafe { fork() } {
                    Ok(ForkResult::Child) => exit(self.have(&ask, &to)),
                    Ok(ForkResult::Parent { .. }) => self.opening += 1,
                    Err(error) => error!(%error, "cannot do what is asked for"),
                }
            }
            // Without an answer it has one.
            Ok(_) => {}
            Err(Errno::EINTR) => {}
            Err(_) => return false,
        }
        true
    }

    /// The whole life of a process that opens an image, or connects to a server: how it ends.
    fn have(&self, ask: &Ask, to: &OwnedFd) -> i32 {
        // Whoever is asked may be a server that never answers.
        let bound = prctl::set_pdeathsig(Signal::SIGKILL);
        let outcome = || match ask {
            Ask::Open(path, how) => self.reach.folders.open(path, *how).map(OwnedFd::from),
            Ask::Connect(server) => {
                // Names of hosts and full queues take as long as they like. Who asks hears nothing then.
                alarm::set(CONNECTING_MAX_S);
                self.reach.servers.connect(server)
            }
            Ask::Tell(_) => Err(Errno::EINVAL.into()),
        };
        let told = bound.and_then(|()| answer(to, outcome()));
        i32::from(told.is_err())
    }

    /// Takes note of children that have ended; how, if it was the daemon.
    fn reap(&mut self) -> Option<Fate> {
        loop {
            let ended = waitpid(None, Some(WaitPidFlag::WNOHANG)).ok()?;
            let fate = match ended {
                WaitStatus::StillAlive => return None,
                WaitStatus::Exited(_, status) => {
                    Fate::Ended(ExitCode::from(u8::try_from(status).unwrap_or(u8::MAX)))
                }
                WaitStatus::Signaled(_, signal, _) => Fate::Killed(signal),
                _ => continue,
            };
            if ended.pid() == Some(self.daemon) {
                return Some(self.next.take().map_or(fate, Fate::HandOver));
            }
            self.opening = self.opening.saturating_sub(1);
        }
    }
}

/// Dies by `signal`, as the daemon has.
pub fn die_by(signal: Signal) -> ExitCode {
    let none = SigSet::empty();
    // Whatever fails here, the process ends, if in another way.
    _ = none.thread_swap_mask(SigmaskHow::SIG_SETMASK);
    _ = raise(signal);
    ExitCode::from(u8::try_from(128 + signal as i32).unwrap_or(u8::MAX))
}
