#![expect(
    unsafe_code,
    reason = "a child must ask the kernel to die with us, between fork and exec: ADR-0005"
)]
//! Child processes that never outlive us: stopped when dropped, killed by the kernel if we are killed.

use std::{
    fs::{self, File},
    io::Write as _,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use nix::{
    sys::{
        prctl,
        signal::{self, Signal},
    },
    unistd::{Pid, getppid},
};

/// How often [`wait_until`] looks.
const LOOK: Duration = Duration::from_millis(2);

/// How long a child may take to end after SIGTERM before it is killed.
const PATIENCE: Duration = Duration::from_secs(10);

/// A child process with its log.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: Option<PathBuf>,
}

impl Process {
    /// Starts `command`. `name` is what messages call it.
    pub fn spawn(name: &str, command: &mut Command) -> Result<Self> {
        let parent = Pid::this();
        // SAFETY: between fork and exec the closure makes two system calls and touches no memory of ours but a copied number.
        unsafe {
            command.pre_exec(move || {
                prctl::set_pdeathsig(Signal::SIGKILL)?;
                // The parent may have died before the line above.
                if getppid() == parent { Ok(()) } else { Err(std::io::ErrorKind::BrokenPipe.into()) }
            });
        }
        let child = command
            .spawn()
            .with_context(|| format!("cannot start {name} ({})", command.get_program().display()))?;
        Ok(Self { name: name.to_owned(), child, log: None })
    }

    /// Starts `command` in a process group of its own (a terminal's ^C then reaches only us, who stop children in order) with its
    /// output appended to `log`, the end of which goes into messages.
    pub fn spawn_logged(name: &str, command: &mut Command, log: &Path) -> Result<Self> {
        let open = || File::options().create(true).append(true).open(log);
        let file = open().with_context(|| format!("cannot write {}", log.display()))?;
        command.stdout(file.try_clone()?).stderr(file).process_group(0);
        let mut process = Self::spawn(name, command)?;
        process.log = Some(log.to_owned());
        Ok(process)
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Errors when the process has ended, with the end of its log.
    pub fn check_alive(&mut self) -> Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => bail!("{} ended early: {status}{}", self.name, self.log_tail()),
        }
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        signal::kill(Pid::from_raw(i32::try_from(self.id())?), signal)?;
        Ok(())
    }

    /// Waits for the process to end by itself; an interrupt of ours or the time-out ends the wait with an error.
    pub fn wait(&mut self, timeout: Duration) -> Result<ExitStatus> {
        let name = self.name.clone();
        wait_until(&format!("the end of {name}"), timeout, || Ok(self.child.try_wait()?))
    }

    /// Like [`wait`](Self::wait), and an unsuccessful exit is an error too, with the end of the log.
    pub fn wait_success(&mut self, timeout: Duration) -> Result<()> {
        let status = self.wait(timeout)?;
        if !status.success() {
            bail!("{} failed: {status}{}", self.name, self.log_tail());
        }
        Ok(())
    }

    /// Asks it to end (SIGTERM), and insists after ten seconds. Errors: it had to be killed, or it ended unsuccessfully.
    pub fn stop(&mut self) -> Result<()> {
        self.check_alive()?;
        self.signal(Signal::SIGTERM)?;
        let Some(status) = self.outlast(PATIENCE)? else {
            self.kill();
            bail!("{} did not stop within {PATIENCE:?} and was killed{}", self.name, self.log_tail());
        };
        if !status.success() {
            bail!("{} did not stop cleanly: {status}{}", self.name, self.log_tail());
        }
        Ok(())
    }

    /// Kills it at once (SIGKILL).
    pub fn kill(&mut self) {
        // Both fail only when it is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// The last lines of the log, as an appendix to a message; empty without a log.
    pub fn log_tail(&self) -> String {
        let Some(text) = self.log.as_ref().and_then(|log| fs::read(log).ok()) else { return String::new() };
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        let tail = &lines[lines.len().saturating_sub(20)..];
        if tail.is_empty() { String::new() } else { format!("; its last words:\n  {}", tail.join("\n  ")) }
    }

    /// Waits without looking at our own interrupts, which must not cut a stop short.
    fn outlast(&mut self, timeout: Duration) -> Result<Option<ExitStatus>> {
        let deadline = Instant::now() + timeout;
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(Some(status));
            }
            if Instant::now() >= deadline {
                return Ok(None);
            }
            thread::sleep(LOOK);
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(Some(_))) {
            return;
        }
        let _ = self.signal(Signal::SIGTERM);
        if !matches!(self.outlast(Duration::from_secs(2)), Ok(Some(_))) {
            let _ = writeln!(std::io::stderr(), "xensim: {} had to be killed", self.name);
            self.kill();
        }
    }
}

/// Calls `look` until it gives a value. Errors: `look`'s own, the time-out, or an interrupt (see [`interrupted`]).
pub fn wait_until<T>(
    what: &str,
    timeout: Duration,
    mut look: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let deadline = Instant::now() + timeout;
    loop {
        if let Some(value) = look()? {
            return Ok(value);
        }
        if interrupted() {
            bail!("interrupted while waiting for {what}");
        }
        if Instant::now() >= deadline {
            bail!("waited {timeout:?} in vain for {what}");
        }
        thread::sleep(LOOK);
    }
}

/// True once SIGINT, SIGTERM or SIGHUP came, after [`catch_interrupts`].
pub fn interrupted() -> bool {
    INTERRUPTED.get().is_some_and(|flag| flag.load(Ordering::Relaxed))
}

/// Like [`interrupted`], and forgets it: the end that follows may wait again, until the next interrupt.
pub fn take_interrupt() -> bool {
    INTERRUPTED.get().is_some_and(|flag| flag.swap(false, Ordering::Relaxed))
}

/// From now on SIGINT, SIGTERM and SIGHUP do not kill us but end every wait here, so that values are dropped and nothing is
/// left behind.
pub fn catch_interrupts() -> Result<()> {
    let flag = INTERRUPTED.get_or_init(Arc::default);
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        signal_hook::flag::register(signal as i32, Arc::clone(flag))?;
    }
    Ok(())
}

static INTERRUPTED: OnceLock<Arc<AtomicBool>> = OnceLock::new();

#[cfg(test)]
mod tests;
